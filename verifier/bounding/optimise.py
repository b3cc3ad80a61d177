"""Backward bounds whose free multipliers are optimised: slopes and other parameters of planes (alpha-CROWN, Xu 2021),
multipliers of the neurons' bounds, which splits tighten (beta-CROWN, Wang 2021), and weights of a conjunction's rows
(lambda).

Every choice gives a valid bound. So the ascent runs in plain arithmetic, and only the best multipliers go through the
backward pass that accounts for rounding.

The gradient needs no tape. A backward pass fixes, for each row, which line of each neuron and which corner of the box
it uses. Following these choices forwards gives the minimiser of the row's relaxation, its value z at every node, and

    d bound / d slope       =  A (z - touch)         of the line in use, A the coefficient of the neuron's output
    d bound / d parameter   =  A (derivative of the plane in use, at z)                              in general
    d bound / d multiplier  =  lower - z, upper - z  of the bound it belongs to
    d bound / d weight_j    =  rows_j . z + offset_j

(the derivative of a minimum is the derivative at a minimiser, Danskin 1967).
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.graph import Constant
from verifier.core.interval import Interval
from verifier.core.operator import Adjustable, Adjusted, Affine, Elementwise, Planes, Sloped
from verifier.core.rounding import gamma, tiny
from verifier.core.stacked import clone, pick
from verifier.settings import AscentSettings

CHECK_EVERY = 5  # iterations between looks at which rows are proved and which multipliers are the best so far
DROPPED_SHARE = 0.25  # proved rows leave the loop when they are at least this share of it
MOMENTUM = 0.9
ENOUGH_GAIN = 0.02  # of the bounds' size, between two looks: an ascent that gains less is over


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


@dataclass(frozen=True, eq=False)
class Optimum:
    """`bound` `[n]` in plain arithmetic (no proof), the `multipliers` it was reached with, and the minimiser of the
    relaxation there, `[n, *input]`: the likeliest place of a violation."""

    bound: Tensor
    multipliers: Multipliers
    minimiser: Tensor


def initial_multipliers(
    program: Program, found: NodeBounds, objective: Objective, bounded: tuple[int, ...] = ()
) -> Multipliers:
    """Where an ascent starts: the slopes of the planes, no multiplier on the bounds of the nodes `bounded`, equal
    weights."""
    count, combined = objective.offset.shape
    start = max(objective.rows)
    fill = lambda value: value.expand(count, *value.shape[1:]).clone()  # noqa: E731
    lower, upper = {}, {}
    for position, planes in found.planes.items():
        op = program.graph.nodes[position].op
        if position > start or not isinstance(op, Adjustable):
            continue
        below, above = op.parameters(planes)
        lower[position] = fill(below)
        if op.ranges(*arguments_of(program, found, position))[1] is not None:
            upper[position] = fill(above)
    bounds = {k: torch.zeros_like(fill(found.intervals[k].lower)) for k in bounded if k <= start}
    weights = torch.full_like(objective.offset, 1.0 / combined)
    return Multipliers(lower, upper, bounds, weights)


def arguments_of(program: Program, found: NodeBounds, position: int) -> tuple[Interval, ...]:
    """Bounds of a node's arguments."""
    return tuple(found.intervals[source] for source in program.graph.nodes[position].inputs)


def optimise(
    program: Program,
    box: Interval,
    found: NodeBounds,
    objective: Objective,
    multipliers: Multipliers,
    settings: AscentSettings,
    deadline: float = float("inf"),
) -> Optimum:
    """Ascend from `multipliers` (which are overwritten). Rows whose bound is clearly positive are left where they are.

    `box` `[n, *input]` and `found` have the batch of the rows, or 1."""
    count = len(objective.offset)
    everything = torch.arange(count, device=program.device)
    best = Optimum(
        torch.full((count,), -torch.inf, dtype=program.dtype, device=program.device),
        clone(multipliers),
        torch.zeros((count, *program.graph.input_shape), dtype=program.dtype, device=program.device),
    )
    active, free = everything, multipliers
    dual = Dual(program, box, found, objective)
    ascent = _Ascent(program, found, free, settings)
    if free.bounds:
        _settle(dual, free)
    dual.projected(free)
    previous = best.bound
    for iteration in range(settings.iterations + 1):
        value = dual.value(free)
        last = iteration == settings.iterations or time.monotonic() > deadline
        if last or iteration % CHECK_EVERY == 0:
            better = value > best.bound[active]
            best.bound[active[better]] = value[better]
            best.multipliers.put(active[better], pick(free, better))
            best.minimiser[active[better]] = dual.corner()[better]
            rest = ~(value > settings.enough)
            if last or not bool(rest.any()) or _settled(previous, best.bound[active], iteration):
                break
            previous = best.bound[active]
            if float(rest.float().mean()) <= 1 - DROPPED_SHARE:
                active, free = active[rest], pick(free, rest)
                dual, ascent = dual.select(rest), ascent.select(rest)
                previous = previous[rest]
                dual.value(free)
        ascent.step(free, dual.gradient(free), dual)
    return best


def _settle(dual: Dual, free: Multipliers) -> None:
    """Give neurons in a fixed phase the exact line of it; the slopes, and the multipliers of their bounds, in place.

    The slope a that a parent used does more: outside of the phase it is the better line. With A > 0 the coefficient of
    the neuron, A a = A - b, so that a multiplier b = A (1 - a) of the new bound keeps all that: no child starts below
    its parent. Rows that are better off without it start without it."""
    plain, old = clone(free), dict(free.lower)
    dual.value(free)
    rows = {position: lines.rows.clamp(min=0) for position, lines in dual.lines.items()}
    value = dual.value(dual.projected(plain))
    free.lower.update({position: slope.clone() for position, slope in old.items()})
    dual.projected(free)
    for position, slope in free.lower.items():
        node = dual.program.graph.nodes[position]
        source = node.inputs[0]
        if isinstance(node.op, Sloped) and source in free.bounds and position in rows:
            free.bounds[source].add_(rows[position] * (slope - old[position]))
    better = value > dual.value(free)
    free.put(better, pick(plain, better))


def _settled(previous: Tensor, bound: Tensor, iteration: int) -> bool:
    """Whether the last iterations gained little for every row."""
    return iteration > 0 and bool((bound - previous <= ENOUGH_GAIN * bound.abs()).all())


def certain_bound(
    program: Program, box: Interval, found: NodeBounds, objective: Objective, multipliers: Multipliers
) -> LinearForm:
    """The linear form `[n, 1]` of each row at these multipliers, with every rounding accounted for."""
    shared = box.shape[0] == 1 and all(len(v.upper_intercept) == 1 for v in found.planes.values())
    axis = 0 if shared else 1  # rows of one domain go side by side, else each has a domain of its own
    planes = {
        k: _tilted(program, k, v, found, multipliers, axis) if k in multipliers.lower else v
        for k, v in found.planes.items()
    }
    start, bias = _certain_start(objective, multipliers.weights, found)
    form = backward(
        program,
        {k: v.unsqueeze(axis) for k, v in start.items()},
        bias.unsqueeze(axis),
        found.intervals,
        planes,
        objective.exact and objective.offset.shape[1] == 1,
        {k: v.unsqueeze(axis) for k, v in multipliers.bounds.items()},
    )
    if shared:
        form = LinearForm(*(part.transpose(0, 1) for part in (form.coefficients, form.bias, form.debt)))
    return form


def _tilted(
    program: Program, position: int, planes: Planes, found: NodeBounds, multipliers: Multipliers, axis: int
) -> Planes:
    """The planes of an adjustable node with the chosen parameters, one of each for every row."""
    op = program.graph.nodes[position].op
    assert isinstance(op, Adjustable)
    wide = tuple(
        Interval(box.lower.unsqueeze(1), box.upper.unsqueeze(1)) for box in arguments_of(program, found, position)
    )
    below = multipliers.lower[position].unsqueeze(axis)
    plane = op.lower_plane(below, *wide)
    low = None if planes.lower_intercept is None else plane.intercept.expand_as(below)
    if position not in multipliers.upper:
        return Planes(plane.slopes, low, planes.upper_slopes, planes.upper_intercept)
    upper = op.upper_plane(multipliers.upper[position].unsqueeze(axis), *wide)
    return Planes(plane.slopes, low, upper.slopes, upper.intercept)


def _certain_start(objective: Objective, weights: Tensor, found: NodeBounds) -> tuple[dict[int, Tensor], Tensor]:
    """The combined rows and a bias, from which the roundings of the combination itself are subtracted."""
    if objective.offset.shape[1] == 1:
        return {k: v[:, 0] for k, v in objective.rows.items()}, objective.offset[:, 0]
    count = weights.shape[1] + 3
    size = (weights * objective.offset.abs()).sum(1)
    start = {}
    for position, rows in objective.rows.items():
        start[position] = torch.einsum("nk,nk...->n...", weights, rows)
        largest = flat(found.intervals[position].magnitude())
        size = size + (torch.einsum("nk,nk...->n...", weights, rows.abs()).flatten(1) * largest).sum(1)
    bias = (weights * objective.offset).sum(1)
    slack = size * gamma(2 * count, bias.dtype) + tiny(bias.dtype) * count * sum(v[0].numel() for v in start.values())
    return start, bias - 1.01 * slack


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
        _project(free, *_parameter_ranges(self.program, self.found, free))
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


def _parameter_ranges(
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


def _project(free: Multipliers, below: dict[int, Interval], above: dict[int, Interval]) -> None:
    for group, ranges in ((free.lower, below), (free.upper, above)):
        for key, value in group.items():
            torch.minimum(torch.maximum(value, ranges[key].lower), ranges[key].upper, out=value)


class _Ascent:
    """Gradient ascent with momentum in natural units, projected to the ranges; multiplicative updates of the weights.

    A slope's derivative, divided by its coefficient and by the width of the neuron, is a place between the ends of the
    neuron (-1 to 1): times the range of slopes it is a step; likewise of other parameters, with what the plane gains
    between the ends. A bound's derivative, divided by the width, says how far
    outside the minimiser is: times the coefficient of the neuron it is a step. Adam, which forgets these sizes, needs
    two to four times as many iterations for the same bound."""

    def __init__(self, program: Program, found: NodeBounds, free: Multipliers, settings: AscentSettings) -> None:
        self.program, self.found, self.settings = program, found, settings
        self.steps = 0
        self.ranges = _parameter_ranges(program, found, free)
        self.momentum = tuple({k: torch.zeros_like(v) for k, v in group.items()} for group in free.groups()[:3])

    def select(self, index: Tensor) -> _Ascent:
        chosen = copy.copy(self)
        chosen.found = self.found.select(index)
        own = lambda v: v if len(v.lower) == 1 else v.select(index)  # noqa: E731
        below, above = ({k: own(v) for k, v in group.items()} for group in self.ranges)
        chosen.ranges = below, above
        chosen.momentum = pick(self.momentum, index)
        return chosen

    def step(self, free: Multipliers, gradient: Multipliers, dual: Dual) -> None:
        decay = self.settings.decay**self.steps
        self.steps += 1
        for place, ranges in enumerate(self.ranges):
            for key, value in free.groups()[place].items():
                if key not in dual.lines:
                    continue
                op = self.program.graph.nodes[key].op
                assert isinstance(op, Adjustable)
                size = self._span(key, dual.planes[key][place]) * dual.lines[key].rows.abs()
                reach = (ranges[key].upper - ranges[key].lower) * op.pace
                move = self._move(place, key, gradient.groups()[place][key] * reach / (size + tiny(value.dtype)))
                value.add_(move, alpha=self.settings.slope_rate * decay)
        for key, value in free.bounds.items():
            coefficient = self._coefficient(key, dual)
            if coefficient is None:
                continue
            move = self._move(2, key, gradient.bounds[key] * coefficient / self._width(key))
            moved = torch.add(value, move, alpha=self.settings.bound_rate * decay)
            # a multiplier that would change sides stops at 0, where the other bound takes over
            value.copy_(torch.where(moved * value < 0, 0.0, moved))
        if free.weights.shape[1] > 1:
            slope = gradient.weights
            largest = slope.abs().amax(1, keepdim=True).clamp(min=tiny(slope.dtype))
            free.weights.mul_(torch.exp(slope / largest * (self.settings.weight_rate * decay)))
            free.weights.div_(free.weights.sum(1, keepdim=True))
        _project(free, *self.ranges)

    def _span(self, position: int, plane: Adjusted | None) -> Tensor:
        """How much a parameter can move its plane, at most, or nearly."""
        sources = self.program.graph.nodes[position].inputs
        if plane is None or plane.turns is None:
            return self._width(sources[0])
        spans = [turn.abs() * self._width(source) for turn, source in zip(plane.turns, sources, strict=True)]
        return torch.stack(spans).sum(0) / 2

    def _width(self, position: int) -> Tensor:
        box = self.found.intervals[position]
        return (box.upper - box.lower).clamp(min=tiny(box.lower.dtype))

    def _coefficient(self, position: int, dual: Dual) -> Tensor | None:
        """How much the neuron's readers weigh."""
        readers = [r for r in self.program.graph.consumers[position] if r in dual.lines]
        sizes = [dual.lines[reader].rows.abs() for reader in readers]
        return torch.stack(sizes).sum(0) if sizes else None

    def _move(self, place: int, key: int, direction: Tensor) -> Tensor:
        return self.momentum[place][key].mul_(MOMENTUM).add_(torch.nan_to_num(direction, nan=0.0))
