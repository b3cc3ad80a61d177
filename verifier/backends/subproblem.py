"""What a backend is asked: one disjunct over one box, with what is known about the network there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from verifier.backends.pieces import Cuts
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.problem import Problem
from verifier.core.stacked import cast, move

T = TypeVar("T")

MOST_ENTRIES = 1 << 24  # of the matrix of a linear program, as numbers in memory (128 MiB)

MOST_PLANES = 6  # of a curved function over a piece

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
    splits left); SAT is answered with the first that it agrees to. `cuts`: pieces of curved functions."""

    program: Program
    found: NodeBounds
    problem: Problem
    box: Interval
    which: int
    disjunct: int
    confirm: Callable[[Tensor], bool] = lambda point: True
    cuts: Cuts = field(default_factory=dict)

    def obstacle(self) -> str | None:
        """Why it has no encoding, or None: all bounds finite, and few enough neurons undecided."""
        tensors = [self.box.lower, *(bounds.lower for bounds in self.found.intervals.values())]
        kinds = {(tensor.dtype, tensor.device.type) for tensor in tensors}
        if {(self.program.dtype, self.program.device.type), *kinds} != {(torch.float64, "cpu")}:
            return "exact reasoning needs the network in double precision, and all on the CPU"
        if not self.problem.exact and self.problem.output_rows.dtype is not torch.float64:
            return "the property's coefficients were rounded to single precision"
        if not bool((self.problem.owner[self.which] == self.disjunct).any()):
            return f"disjunct {self.disjunct} of box {self.which} has no rows"
        return self._excess()

    @property
    def straight(self) -> bool:
        """Whether every function has an encoding without loss; else functions lie between planes, over pieces."""
        return all(self._straight(position) for position, _ in self._nonlinear())

    def _nonlinear(self) -> list[tuple[int, Elementwise]]:
        nodes = self.program.graph.nodes[: self.program.graph.output + 1]
        return [(position, node.op) for position, node in enumerate(nodes) if isinstance(node.op, Elementwise)]

    def _boxes(self, position: int) -> list[Interval]:
        return [self.found.intervals[source] for source in self.program.graph.nodes[position].inputs]

    def _straight(self, position: int) -> bool:
        op = self.program.graph.nodes[position].op
        assert isinstance(op, Elementwise)
        return bool(op.extreme()) or op.corners(self._boxes(position)[0]) is not None

    def _excess(self) -> str | None:
        """What in the network has no encoding, or makes it too large."""
        rows = columns = 0
        for position, op in self._nonlinear():
            boxes = self._boxes(position)
            ends = [end for box in (*boxes, self.found.intervals[position]) for end in (box.lower, box.upper)]
            if not all(bool(end.isfinite().all()) for end in ends):
                return f"the bounds of {self.program.graph.nodes[position]} are not finite"
            own = self._size(position, op, boxes)
            rows, columns = rows + own[0], columns + own[1]
        if (rows + 1) * (columns + self.program.graph.nodes[0].size) > MOST_ENTRIES:
            return f"{columns} columns of undecided neurons are too many"
        return None

    def _size(self, position: int, op: Elementwise, boxes: list[Interval]) -> tuple[int, int]:
        """About as many rows and columns as the node's undecided elements take."""
        undecided, count = int(op.unstable(*boxes).sum()), len(boxes)
        if op.extreme():
            return count * undecided, count * undecided
        corners = op.corners(boxes[0])
        if corners is not None:
            return (1 + len(corners)) * undecided, (1 + len(corners)) * undecided
        cut = sum(len(found) - 1 for found in self.cuts.get(position, {}).values())
        pieces = undecided * len(op.parts(*boxes)) + cut
        return undecided * (count + MOST_PLANES) + count * pieces, (count + 1) * pieces

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
