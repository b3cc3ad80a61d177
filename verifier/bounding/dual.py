"""The bound of a row as a function of its free multipliers, and its gradient, in plain arithmetic.

A backward pass fixes, for each row, which line of each neuron and which corner of the box it uses. Following these
choices forwards gives the minimiser of the row's relaxation, its value z at every node, and

    d bound / d slope       =  A (z - touch)         of the line in use, A the coefficient of the neuron's output
    d bound / d parameter   =  A (derivative of the plane in use, at z)                              in general
    d bound / d multiplier  =  lower - z, upper - z  of the bound it belongs to
    d bound / d weight_j    =  rows_j . z + offset_j

(the derivative of a minimum is the derivative at a minimiser, Danskin 1967). No tape is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.graph import Constant
from verifier.core.interval import Interval
from verifier.core.operator import Adjustable, Adjusted, Affine, Elementwise
from verifier.core.stacked import pick


@dataclass(frozen=True, eq=False)
class Objective:
    """Rows to bound from below, `n` of them, each a combination  sum_j w_j (rows_j . z + offset_j)  of k given ones.

    `rows` by node `[n, k, *shape]`, `offset` `[n, k]`; `exact`: no coefficient was rounded."""

    rows: dict[int, Tensor]
    offset: Tensor
    exact: bool = True

    def select(self, index: Tensor) -> Objective:
        return pick(self, index)


@dataclass(frozen=True, eq=False)
class Multipliers:
    """All `[n, *shape]`: `lower`, `upper` parameters of the planes of each adjustable node (slopes, where it has one
    argument); `bounds` by argument of a nonlinear node, positive on its lower bound, negative on its upper one.
    `weights` `[n, k]` on the simplex."""

    lower: dict[int, Tensor] = field(default_factory=dict)
    upper: dict[int, Tensor] = field(default_factory=dict)
    bounds: dict[int, Tensor] = field(default_factory=dict)
    weights: Tensor = field(default_factory=lambda: torch.ones(1, 1))

    def groups(self) -> tuple[dict[int, Tensor], ...]:
        return self.lower, self.upper, self.bounds, {0: self.weights}

    def put(self, index: Tensor, other: Multipliers) -> None:
        """Overwrite the rows `index` by those of `other`."""
        for mine, others in zip(self.groups(), other.groups(), strict=True):
            for key, value in mine.items():
                value[index] = others[key]


def arguments_of(program: Program, found: NodeBounds, position: int) -> tuple[Interval, ...]:
    """Bounds of a node's arguments."""
    return tuple(found.intervals[source] for source in program.graph.nodes[position].inputs)


@dataclass(frozen=True, eq=False)
class LinesInUse:
    """At a nonlinear node: the coefficients `rows` `[n, *shape]` of its value, and the line that each element takes,
    the upper one where its coefficient is negative."""

    rows: Tensor
    slopes: tuple[Tensor, ...]
    intercept: Tensor


class Dual:
    """The bound as a function of the multipliers, and its gradient, in plain arithmetic.

    The box is `[n, *input]` or `[1, *input]`; `found` likewise."""

    def __init__(self, program: Program, box: Interval, found: NodeBounds, objective: Objective) -> None:
        self.program, self.box, self.found, self.objective = program, box, found, objective
        self.top = max(objective.rows)
        self.lines: dict[int, LinesInUse] = {}
        self._visited: list[int] = []
        self.rows: Tensor | None = None
        self.planes: dict[int, tuple[Adjusted, Adjusted | None]] = {}

    def select(self, index: Tensor) -> Dual:
        box = self.box if self.box.shape[0] == 1 else self.box.select(index)
        return Dual(self.program, box, self.found.select(index), self.objective.select(index))

    def projected(self, free: Multipliers) -> Multipliers:
        """The multipliers with every parameter moved into its range (in place)."""
        project(free, *parameter_ranges(self.program, self.found, free))
        return free

    def value(self, free: Multipliers) -> Tensor:
        """The bound of each row, `[n]`."""
        self._visited = []
        bias = (free.weights * self.objective.offset).sum(1)
        pending = {k: torch.einsum("nk,nk...->n...", free.weights, v) for k, v in self.objective.rows.items()}
        for position in range(self.top, 0, -1):
            if position in free.bounds and position in pending:
                bias = bias + self._charge(position, free.bounds[position], pending)
            if position not in pending:
                continue
            self._visited.append(position)
            node, rows = self.program.graph.nodes[position], pending.pop(position)
            if isinstance(node.op, Constant):
                bias = bias + flat(rows) @ node.op.value.flatten()
                continue
            if isinstance(node.op, Elementwise):
                gain, sent = self._bend(position, node.op, rows, free)
                bias = bias + gain
            else:
                assert isinstance(node.op, Affine)
                offset = node.op.offset()
                if offset is not None:
                    bias = bias + flat(rows) @ offset.expand(node.shape).flatten()
                sent = node.op.adjoint(rows)
            for source, part in zip(node.inputs, sent, strict=True):
                pending[source] = pending[source] + part if source in pending else part
        self.rows = pending.get(0)
        if self.rows is None:
            return bias
        lower, upper = self.box.lower, self.box.upper
        return bias + flat(torch.where(self.rows > 0, self.rows * lower, self.rows * upper)).sum(1)

    def _charge(self, position: int, multiplier: Tensor, pending: dict[int, Tensor]) -> Tensor:
        box = self.found.intervals[position]
        pending[position] = pending[position] - multiplier
        end = torch.where(multiplier > 0, box.lower, box.upper)
        return flat(torch.where(multiplier == 0, 0.0, multiplier * end)).sum(1)

    def _bend(
        self, position: int, op: Elementwise, rows: Tensor, free: Multipliers
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Cross a nonlinear node: what the bias gains, and the rows over its arguments. Notes the lines in use."""
        planes = self.found.planes[position]
        above = rows < 0
        lower_slopes, upper_slopes = planes.lower_slopes, planes.upper_slopes
        low, high = planes.lower_intercept, planes.upper_intercept
        if position in free.lower:
            assert isinstance(op, Adjustable)
            boxes, upper = arguments_of(self.program, self.found, position), None
            lower = op.lower_plane(free.lower[position], *boxes)
            lower_slopes, low = lower.slopes, None if low is None else lower.intercept
            if position in free.upper:
                upper = op.upper_plane(free.upper[position], *boxes)
                upper_slopes, high = upper.slopes, upper.intercept
            self.planes[position] = lower, upper
        slopes = tuple(torch.where(above, u, s) for s, u in zip(lower_slopes, upper_slopes, strict=True))
        intercept = torch.where(above, high, 0.0 if low is None else low)
        self.lines[position] = LinesInUse(rows, slopes, intercept)
        return flat(rows * intercept).sum(1), tuple(rows * slope for slope in slopes)

    def corner(self) -> Tensor:
        """The minimiser's input, `[n, *input]`."""
        count = len(self.objective.offset)
        if self.rows is None:
            return (self.box.lower / 2 + self.box.upper / 2).expand(count, *self.box.lower.shape[1:])
        return torch.where(self.rows > 0, self.box.lower, self.box.upper)

    def minimiser(self) -> dict[int, Tensor]:
        """Its value `[n, *shape]` at every node that the rows came through."""
        values = {0: self.corner()}
        for position in reversed(self._visited):
            node = self.program.graph.nodes[position]
            if isinstance(node.op, Constant):
                values[position] = node.op.value.expand(len(values[0]), *node.shape)
            elif isinstance(node.op, Elementwise):
                lines = self.lines[position]
                values[position] = lines.intercept
                for source, slope in zip(node.inputs, lines.slopes, strict=True):
                    values[position] = torch.addcmul(values[position], slope, values[source])
            else:
                assert isinstance(node.op, Affine)
                values[position] = node.op.evaluate(*(values[source] for source in node.inputs))
        return values

    def gradient(self, free: Multipliers) -> Multipliers:
        """Derivatives at the multipliers of the last `value`, of the same shapes."""
        values = self.minimiser()
        lower, upper, bounds = {}, {}, {}
        for position in free.lower:
            if position not in self.lines:
                lower[position] = torch.zeros_like(free.lower[position])
                continue
            places = [values[source] for source in self.program.graph.nodes[position].inputs]
            rows, (below, above) = self.lines[position].rows, self.planes[position]
            lower[position] = rows.clamp(min=0) * below.rise(*places)
            if above is not None:
                upper[position] = rows.clamp(max=0) * above.rise(*places)
        for position, multiplier in free.bounds.items():
            if position not in values:
                bounds[position] = torch.zeros_like(multiplier)
                continue
            z, box = values[position], self.found.intervals[position]
            lacking, over = (box.lower - z), (box.upper - z)
            # at 0 either side may start to pay: the lower bound where z is below it, the upper where z is above it
            at_zero = lacking.clamp(min=0) + over.clamp(max=0)
            slope = torch.where(multiplier == 0, at_zero, torch.where(multiplier > 0, lacking, over))
            bounds[position] = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        weights = self.objective.offset.clone()
        for position, rows in self.objective.rows.items():
            weights = weights + torch.einsum("nk...,n...->nk", rows, values[position])
        return Multipliers(lower, upper, bounds, weights)


def parameter_ranges(
    program: Program, found: NodeBounds, free: Multipliers
) -> tuple[dict[int, Interval], dict[int, Interval]]:
    """Of the lower and of the upper parameters, by node."""
    below, above = {}, {}
    for position in free.lower:
        op = program.graph.nodes[position].op
        assert isinstance(op, Adjustable)
        below[position], over = op.ranges(*arguments_of(program, found, position))
        if over is not None:
            above[position] = over
    return below, above


def project(free: Multipliers, below: dict[int, Interval], above: dict[int, Interval]) -> None:
    for group, ranges in ((free.lower, below), (free.upper, above)):
        for key, value in group.items():
            torch.minimum(torch.maximum(value, ranges[key].lower), ranges[key].upper, out=value)
