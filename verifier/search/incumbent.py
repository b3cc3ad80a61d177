"""The lowest value of a form of the outputs that is known to be attained, and where.

Candidates are compared in double precision; what the best one is worth is then bounded at that point, as over any other
box, so that it is an upper bound of the minimum in real arithmetic. The network's own file is run there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from verifier.attack.falsifier import Original
from verifier.attack.pgd import Descent
from verifier.attack.sampling import PIECE_FLOATS
from verifier.attack.surrogate import with_slopes
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.program import Program
from verifier.bounding.specification import bound_rows
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.query import Box
from verifier.core.rationals import round_fractions

POLISHED, FIRST_STEP = 40, 1 / 16  # steps of descent from a better point, and their first size, of the boxes' widths


class Incumbent:
    """`x` `[*input]` of the network's type, inside a box; `y` the file's outputs there; the real value at `x` is at
    most `upper`. `problem`, with one row for each box, and `program` are in double precision; the form is that row plus
    `constant`."""

    def __init__(
        self, boxes: Sequence[Box], problem: Problem, constant: Fraction, program: Program, original: Original
    ) -> None:
        self.problem, self.constant, self.program, self.original = problem, constant, program, original
        self.upper = float("inf")
        self.x: np.ndarray | None = None
        self.y: np.ndarray | None = None
        self._which = 0
        self._boxes = boxes
        self._inward: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def value(self) -> float:
        """What the form of the file's outputs is there."""
        assert self.y is not None
        row = self.problem.output_rows[self.problem.row[0, 0]].cpu().numpy()
        return float(row @ self.y.reshape(-1).astype(np.float64) + float(self.constant))

    def offer(self, points: Tensor, which: Tensor) -> bool:
        """Points `[n, *input]` of boxes `which` `[n]`; whether the lowest of them is better than what was known."""
        x, boxes = flat(points).cpu().numpy(), which.tolist()
        inside = np.stack([self._inside(one, box) for one, box in zip(x, boxes, strict=True)])
        values = self._values(torch.from_numpy(inside).to(self.program.device, self.program.dtype))
        best = int(values.argmin())
        return bool(values[best] < self.upper) and self._accept(inside[best], boxes[best])

    def polish(self, generator: torch.Generator) -> None:
        """Descend from it by smaller and smaller steps."""
        if self.x is None:
            return
        which = torch.tensor([self._which], device=self.program.device)
        start = torch.from_numpy(self.x.reshape(1, -1)).to(self.program.device, self.program.dtype)
        descent = Descent(with_slopes(self.program.graph), self.problem, generator)
        descent.start(start, which, torch.zeros_like(which), FIRST_STEP)
        for _ in range(POLISHED):
            descent.step()
            if descent.blind:
                return
        self.offer(descent.best_x, which)

    def lower_by(self, program: Program, problem: Problem) -> float:
        """The lower bound at `x` that another precision gives: what it lacks to `upper` is lost to rounding."""
        assert self.x is not None
        return self._ends(self.x, program, problem)[0]

    def _inside(self, x: np.ndarray, box: int) -> np.ndarray:
        if box not in self._inward:
            self._inward[box] = self._boxes[box].inward(self.original.dtype)[:2]
        return np.clip(x.astype(self.original.dtype), *self._inward[box])

    def _values(self, x: Tensor) -> Tensor:
        """Of the form without its constant at `[n, inputs]`, infinite where it is not a number."""
        row = self.problem.output_rows[self.problem.row[0, 0]]
        pieces = x.split(max(1, PIECE_FLOATS // self.program.graph.size))
        values = torch.cat([flat(self.program.graph.evaluate(piece)) @ row for piece in pieces])
        return torch.nan_to_num(values + float(self.constant), nan=torch.inf, posinf=torch.inf, neginf=torch.inf)

    def _accept(self, x: np.ndarray, box: int) -> bool:
        shaped = x.reshape(self.original.input_shape)
        upper = self._ends(x, self.program, self.problem)[1]
        if not upper < self.upper:
            return False
        y = self.original.run(shaped[None])[0]
        if not np.isfinite(y).all():
            return False
        self.x, self.y, self.upper, self._which = shaped, y, upper, box
        return True

    def _ends(self, x: np.ndarray, program: Program, problem: Problem) -> tuple[float, float]:
        """Bounds of the real value at one input; minus infinity and infinity where there are none."""
        point = torch.from_numpy(x.reshape(1, *program.graph.input_shape)).to(program.device, program.dtype)
        box = Interval(point, point)
        row = problem.output_rows[problem.row[0]]
        rows = torch.cat([row, -row]).reshape(1, 2, *program.graph.output_shape)
        found = bound_nodes(program, box)
        start, bias = {program.graph.output: rows}, rows.new_zeros(1, 2)
        ends = bound_rows(program, found, start, bias, Effort(), problem.exact).minimum(box)[0].tolist()
        low, high = ends[0], -ends[1]
        return shifted(low, self.constant, -1), shifted(high, self.constant, +1)


def shifted(value: float, constant: Fraction, direction: int) -> float:
    """`value + constant`, rounded to double precision downwards (`direction` -1) or upwards (+1); a value that is not
    finite says nothing."""
    if not np.isfinite(value):
        return direction * float("inf")
    return float(round_fractions([Fraction(value) + constant], np.float64, direction)[0])
