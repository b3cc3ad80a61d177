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

from verifier.bounding.undecided import Undecided, finite
from verifier.core.adjustable import Adjustable, Adjusted
from verifier.core.choose import choose, negative, positive
from verifier.core.flat import flat
from verifier.core.graph import Constant
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Planes
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

    def combined(self, weights: Tensor) -> dict[int, Tensor]:
        """The combinations, by node `[n, *shape]`."""
        if weights.shape[1] == 1:
            return {position: rows[:, 0] for position, rows in self.rows.items()}
        return {position: torch.einsum("nk,nk...->n...", weights, rows) for position, rows in self.rows.items()}


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Of the undecided elements, all `[n, k]`: `lower`, `upper` parameters of the planes of each adjustable node
    (slopes, where it has one argument); `bounds` by argument of a nonlinear node, positive on its lower bound, negative
    on its upper one. `weights` `[n, k]` on the simplex."""

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


@dataclass(frozen=True, eq=False)
class Lines:
    """At a nonlinear node: the coefficients `rows` `[n, k]` of its undecided elements, and the line that each takes,
    the upper one where its coefficient is negative. `adjusted`: the lines that have a parameter, if any."""

    rows: Tensor
    slopes: tuple[Tensor, ...]
    intercept: Tensor
    adjusted: Adjusted | None


class Dual:
    """The bound as a function of the multipliers, and its gradient, in plain arithmetic.

    The box is `[n, *input]` or `[1, *input]`; `neurons` `[n or 1, k]`: bounds of the undecided arguments."""

    def __init__(self, undecided: Undecided, box: Interval, neurons: dict[int, Interval], objective: Objective) -> None:
        self.undecided, self.box, self.neurons, self.objective = undecided, box, finite(neurons), objective
        self.graph = undecided.program.graph
        self.top = max(objective.rows)
        self.lines: dict[int, Lines] = {}
        self.rows: Tensor | None = None  # over the input
        self._visited: list[int] = []
        self._relaxed: dict[int, Planes] = {}
        self._places: dict[int, Tensor] = {}

    def select(self, index: Tensor) -> Dual:
        own = lambda box: box if box.shape[0] == 1 else box.select(index)  # noqa: E731
        neurons = {source: own(box) for source, box in self.neurons.items()}
        return Dual(self.undecided.select(index), own(self.box), neurons, self.objective.select(index))

    def boxes(self, position: int) -> tuple[Interval, ...]:
        """Bounds of the undecided arguments of a nonlinear node."""
        return tuple(self.neurons[source] for source in self.undecided.readers[position].sources)

    def relaxed(self, position: int) -> Planes:
        """The planes of the undecided elements of a nonlinear node, as they are without a parameter."""
        if position not in self._relaxed:
            self._relaxed[position] = self.undecided.readers[position].op.relax(*self.boxes(position))
        return self._relaxed[position]

    def projected(self, free: Multipliers) -> Multipliers:
        """The multipliers with every parameter moved into its range (in place)."""
        project(free, *parameter_ranges(self, free))
        return free

    def value(self, free: Multipliers) -> Tensor:
        """The bound of each row, `[n]`."""
        self._visited = []
        bias = (free.weights * self.objective.offset).sum(1)
        pending = self.objective.combined(free.weights)
        for position in range(self.top, 0, -1):
            if position in free.bounds and position in pending:
                bias = bias + self._charge(position, free.bounds[position], pending)
            if position not in pending:
                continue
            self._visited.append(position)
            node, rows = self.graph.nodes[position], pending.pop(position)
            if isinstance(node.op, Constant):
                bias = bias + flat(rows) @ node.op.value.flatten()
                continue
            if position in self.undecided.readers:
                gain, sent = self._bend(position, rows, free)
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
        middle, half = self.box.middle(), self.box.upper / 2 - self.box.lower / 2
        return bias + _dot(self.rows, middle) - _dot(self.rows.abs(), half)

    def _charge(self, position: int, multiplier: Tensor, pending: dict[int, Tensor]) -> Tensor:
        rows, box = pending[position], self.neurons[position]
        index = self.undecided.index[position].expand(len(multiplier), -1)
        pending[position] = torch.scatter_add(flat(rows), 1, index, -multiplier).reshape(rows.shape)
        return (multiplier.clamp(min=0) * box.lower + multiplier.clamp(max=0) * box.upper).sum(1)

    def _bend(self, position: int, rows: Tensor, free: Multipliers) -> tuple[Tensor | float, tuple[Tensor, ...]]:
        """Cross a nonlinear node: what the bias gains, and the rows over its arguments. Notes the lines in use."""
        reader, whole = self.undecided.readers[position], flat(rows)
        own = reader.gather(whole)
        self.lines[position] = lines = self._lines(position, own, free)
        gain = (own * lines.intercept).sum(1)
        if reader.offset is not None:
            gain = gain + _dot(whole, reader.offset)
        sent = (
            reader.scatter(own if reader.whole else whole * settled, own * slope)
            for settled, slope in zip(reader.slopes, lines.slopes, strict=True)
        )
        return gain, tuple(part.reshape(rows.shape) for part in sent)

    def _lines(self, position: int, rows: Tensor, free: Multipliers) -> Lines:
        """Those in use, for coefficients `rows` `[n, k]` of the undecided elements of a node."""
        op, planes, above = self.undecided.readers[position].op, self.relaxed(position), negative(rows)
        if position in free.upper:
            assert isinstance(op, Adjustable)
            parameter = choose(above, free.upper[position], free.lower[position])
            adjusted = op.plane(above, parameter, *self.boxes(position))
            return Lines(rows, adjusted.slopes, adjusted.intercept, adjusted)
        low = torch.zeros_like(planes.upper_intercept) if planes.lower_intercept is None else planes.lower_intercept
        slopes, lower = planes.lower_slopes, None
        if position in free.lower:
            assert isinstance(op, Adjustable)
            lower = op.lower_plane(free.lower[position], *self.boxes(position))
            slopes, low = lower.slopes, lower.intercept
        slopes = tuple(choose(above, u, s) for s, u in zip(slopes, planes.upper_slopes, strict=True))
        return Lines(rows, slopes, choose(above, planes.upper_intercept, low), lower)

    def corner(self) -> Tensor:
        """The minimiser's input, `[n, *input]`."""
        count = len(self.objective.offset)
        if self.rows is None:
            return self.box.middle().expand(count, *self.box.lower.shape[1:])
        return choose(negative(self.rows), self.box.upper, self.box.lower)

    def minimiser(self) -> dict[int, Tensor]:
        """Its value `[n, *shape]` at every node that the rows came through. Notes the places of undecided arguments."""
        values, self._places = {0: self.corner()}, {}
        for position in reversed(self._visited):
            node = self.graph.nodes[position]
            if isinstance(node.op, Constant):
                values[position] = node.op.value.expand(len(values[0]), *node.shape)
            elif position in self.undecided.readers:
                values[position] = self._follow(position, values)
            else:
                assert isinstance(node.op, Affine)
                values[position] = node.op.evaluate(*(values[source] for source in node.inputs))
        return values

    def _follow(self, position: int, values: dict[int, Tensor]) -> Tensor:
        """The value of a nonlinear node on its lines."""
        reader, lines = self.undecided.readers[position], self.lines[position]
        whole, own = reader.offset, lines.intercept
        for source, settled, slope in zip(reader.sources, reader.slopes, lines.slopes, strict=True):
            if source not in self._places:
                self._places[source] = reader.gather(values[source])
            own = torch.addcmul(own, slope, self._places[source])
            if not reader.whole:
                product = flat(values[source]) * settled
                whole = product if whole is None else whole + product
        value = own if reader.whole or whole is None else reader.scatter(whole, own)
        return value.reshape(values[reader.sources[0]].shape)

    def gradient(self, free: Multipliers) -> Multipliers:
        """Derivatives at the multipliers of the last `value`, of the same shapes."""
        values = self.minimiser()
        lower, upper, bounds = {}, {}, {}
        for position in free.lower:
            if position not in self.lines:
                lower[position] = torch.zeros_like(free.lower[position])
                continue
            places = [self._places[source] for source in self.undecided.readers[position].sources]
            lines = self.lines[position]
            assert lines.adjusted is not None
            rise = lines.adjusted.rise(*places)
            lower[position] = lines.rows.clamp(min=0) * rise
            if position in free.upper:
                upper[position] = lines.rows.clamp(max=0) * rise
        for position, multiplier in free.bounds.items():
            if position in self._places:
                bounds[position] = _bound_slope(multiplier, self._places[position], self.neurons[position])
            else:
                bounds[position] = torch.zeros_like(multiplier)
        weights = self.objective.offset
        if weights.shape[1] > 1:
            for position, rows in self.objective.rows.items():
                weights = weights + torch.einsum("nk...,n...->nk", rows, values[position])
        return Multipliers(lower, upper, bounds, weights)


def _bound_slope(multiplier: Tensor, place: Tensor, box: Interval) -> Tensor:
    """By the multiplier of an element's bounds: at 0 either side may start to pay, the lower bound where the place is
    below it, the upper one where it is above that."""
    lacking, over = box.lower - place, box.upper - place
    low, high = positive(multiplier), negative(multiplier)
    at_zero = lacking.clamp(min=0) + over.clamp(max=0)
    return choose(low, lacking, choose(high, over, at_zero))


def _dot(rows: Tensor, vector: Tensor) -> Tensor:
    """`[n, *shape]` by `[n or 1, *shape]` to `[n]`."""
    if len(vector) == 1:
        return flat(rows) @ vector.flatten()
    return (flat(rows) * flat(vector)).sum(1)


def parameter_ranges(dual: Dual, free: Multipliers) -> tuple[dict[int, Interval], dict[int, Interval]]:
    """Of the lower and of the upper parameters, by node."""
    below, above = {}, {}
    for position in free.lower:
        op = dual.undecided.readers[position].op
        assert isinstance(op, Adjustable)
        below[position], over = op.ranges(*dual.boxes(position))
        if over is not None:
            above[position] = over
    return below, above


def project(free: Multipliers, below: dict[int, Interval], above: dict[int, Interval]) -> None:
    for group, ranges in ((free.lower, below), (free.upper, above)):
        for key, value in group.items():
            torch.minimum(torch.maximum(value, ranges[key].lower), ranges[key].upper, out=value)
