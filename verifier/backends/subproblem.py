"""What a backend is asked: one disjunct over one box, with what is known about the network there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.problem import Problem
from verifier.core.stacked import cast, move

T = TypeVar("T")

MOST_ENTRIES = 1 << 24  # of the matrix of a linear program, as numbers in memory (128 MiB)

DIGITS = 12  # of coarse bounds: they are wider by a few parts in ten thousand


def as_solved(value: T) -> T:
    """A stacked value in double precision, on the CPU."""
    return move(cast(value, torch.float64), "cpu")


@dataclass(frozen=True, eq=False)
class Subproblem:
    """Whether disjunct `disjunct` of box `which` of the problem has a violation in `box` `[1, *input]`, a part of it.
    Everything is in double precision and on the CPU, but for a problem that is exact in single precision.

    `found` (of batch 1) holds over that part, or over what splits of neurons left of it: their bounds become rows.
    `confirm(point)` `[*input]` is asked about points that violate in double precision (of the whole box, whatever
    splits left); SAT is answered with the first that it agrees to."""

    program: Program
    found: NodeBounds
    problem: Problem
    box: Interval
    which: int
    disjunct: int
    confirm: Callable[[Tensor], bool] = lambda point: True

    def obstacle(self) -> str | None:
        """Why it has no encoding, or None: operators with bends or choices only, all bounds finite, and few enough
        neurons undecided."""
        tensors = [self.box.lower, *(bounds.lower for bounds in self.found.intervals.values())]
        kinds = {(tensor.dtype, tensor.device.type) for tensor in tensors}
        if {(self.program.dtype, self.program.device.type), *kinds} != {(torch.float64, "cpu")}:
            return "exact reasoning needs the network in double precision, and all on the CPU"
        if not self.problem.exact and self.problem.output_rows.dtype is not torch.float64:
            return "the property's coefficients were rounded to single precision"
        if not bool((self.problem.owner[self.which] == self.disjunct).any()):
            return f"disjunct {self.disjunct} of box {self.which} has no rows"
        return self._excess()

    def _excess(self) -> str | None:
        """What in the network has no encoding, or makes it too large."""
        graph = self.program.graph
        rows = columns = 0
        for node in graph.nodes[: graph.output + 1]:
            if not isinstance(node.op, Elementwise):
                continue
            boxes = [self.found.intervals[source] for source in node.inputs]
            if not all(bool(box.lower.isfinite().all() and box.upper.isfinite().all()) for box in boxes):
                return f"the bounds of {node} are not finite"
            kinks = node.op.kinks()
            if kinks is None and not node.op.extreme():
                return f"no exact form of {node}"
            each = len(node.inputs) if node.op.extreme() else 1 + len(kinks or ())
            undecided = int(node.op.unstable(*boxes).sum())
            rows, columns = rows + each * undecided, columns + each * undecided
        if (rows + 1) * (columns + graph.nodes[0].size) > MOST_ENTRIES:
            return f"{columns} columns of undecided neurons are too many"
        return None

    def contradicts(self) -> bool:
        """Whether the bounds of some neuron leave nothing."""
        return any(bool((bounds.lower > bounds.upper).any()) for bounds in self.found.intervals.values())

    def coarse(self) -> Subproblem:
        """The same with bounds of a few binary digits, rounded outward: for arithmetic whose cost grows with them."""
        ends = lambda end, rounded: torch.ldexp(rounded(end.frexp()[0] * 2**DIGITS) / 2**DIGITS, end.frexp()[1])  # noqa: E731
        intervals = {
            position: Interval(ends(bounds.lower, torch.floor), ends(bounds.upper, torch.ceil))
            for position, bounds in self.found.intervals.items()
        }
        return replace(self, found=replace(self.found, intervals=intervals))

    def violates(self, point: np.ndarray) -> bool:
        """Whether an input `[inputs]` is a violation, confirmed."""
        x = self.shaped(point)
        return self.margin(x) <= 0 and self.confirm(x)

    def margin(self, point: Tensor) -> float:
        """Of the disjunct at an input `[*input]`, in double precision: at most 0 where it seems to be violated."""
        x = point.reshape(1, *self.program.graph.input_shape)
        y = flat(self.program.graph.evaluate(x))
        exact = self.problem.in_double()
        return float(exact.disjunct_margins(x, y, torch.tensor([self.which]))[0, self.disjunct])

    def shaped(self, point: np.ndarray) -> Tensor:
        """An input `[inputs]` as the network reads it."""
        return torch.from_numpy(point).reshape(self.program.graph.input_shape)
