"""Backward bounds whose free multipliers are optimised: slopes and other parameters of planes (alpha-CROWN, Xu 2021),
multipliers of the neurons' bounds, which splits tighten (beta-CROWN, Wang 2021), and weights of a conjunction's rows
(lambda).

Every choice gives a valid bound. So the ascent runs in plain arithmetic, and only the best multipliers go through the
backward pass that accounts for rounding.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.ascent import Ascent
from verifier.bounding.backward import Charge, LinearForm, backward
from verifier.bounding.dual import Dual, Multipliers, Objective
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.bounding.undecided import Undecided, elements_of, finite
from verifier.core.adjustable import Adjustable, Sloped
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Planes
from verifier.core.rounding import gamma, narrow_down, tiny
from verifier.core.stacked import cast, clone, pick
from verifier.settings import AscentSettings

CHECK_EVERY = 5  # iterations between looks at which rows are proved and which multipliers are the best so far
DROPPED_SHARE = 0.25  # proved rows leave the loop when they are at least this share of it
AFTERWARDS = 3.0  # iterations' time that is kept for this one and for what is made of the result
ENOUGH_GAIN = 0.005  # of the bounds' size, between two looks: an ascent that gains less is over
MOST_COMPARED = 64  # rows of a conjunction that are tried alone: each takes half an iteration
VALUES = 3.0  # times the time of a bound alone: an iteration, which takes its gradient too
FOCUS = 0.9  # the weight of the best of them


@dataclass(frozen=True, eq=False)
class Optimum:
    """`bound` `[n]` in plain arithmetic (no proof), the `multipliers` it was reached with, and the minimiser of the
    relaxation there, `[n, *input]`: the likeliest place of a violation."""

    bound: Tensor
    multipliers: Multipliers
    minimiser: Tensor


def initial_multipliers(
    undecided: Undecided, neurons: dict[int, Interval], objective: Objective, bounded: bool = False
) -> Multipliers:
    """Where an ascent starts: the parameters of the planes, and equal weights; if `bounded`, with multipliers of the
    neurons' bounds, which are 0."""
    count, combined = objective.offset.shape
    start, neurons = max(objective.rows), finite(neurons)
    fill = lambda value: value.expand(count, *value.shape[1:]).clone()  # noqa: E731
    lower, upper = {}, {}
    for position, reader in undecided.readers.items():
        if position > start or not isinstance(reader.op, Adjustable):
            continue
        boxes = tuple(neurons[source] for source in reader.sources)
        below, above = reader.op.parameters(reader.op.relax(*boxes), *boxes)
        lower[position] = fill(below)
        if reader.op.ranges(*boxes)[1] is not None:
            upper[position] = fill(above)
    bounds = {k: torch.zeros_like(fill(box.lower)) for k, box in neurons.items() if bounded and 0 < k <= start}
    weights = torch.full_like(objective.offset, 1.0 / combined)
    return Multipliers(lower, upper, bounds, weights)


def focused(dual: Dual, free: Multipliers) -> Multipliers:
    """The same with most weight on that row of each conjunction which alone has the best bound (in place).

    Often it is all that is needed, and equal weights are far from that: rows that hold everywhere weigh the bound down.
    """
    count, rows = dual.objective.offset.shape
    if 1 < rows <= MOST_COMPARED:
        each = torch.eye(rows, dtype=free.weights.dtype, device=free.weights.device)
        alone = [dual.value(replace(free, weights=one.expand(count, -1))) for one in each]
        best = torch.nan_to_num(torch.stack(alone, 1), nan=-torch.inf).argmax(1)
        free.weights.copy_(FOCUS * each[best] + (1 - FOCUS) / rows)
    return free


def optimise(dual: Dual, multipliers: Multipliers, settings: AscentSettings, deadline: float = float("inf")) -> Optimum:
    """Ascend from `multipliers` (which are overwritten). Rows whose bound is clearly positive stay where they are."""
    count, program = len(dual.objective.offset), dual.undecided.program
    everything = torch.arange(count, device=program.device)
    best = Optimum(
        torch.full((count,), -torch.inf, dtype=program.dtype, device=program.device),
        clone(multipliers),
        torch.zeros((count, *program.graph.input_shape), dtype=program.dtype, device=program.device),
    )
    active, free = everything, multipliers
    ascent = Ascent(dual, free, settings)
    if free.bounds:
        _settle(dual, free)
    dual.projected(free)
    previous, took = best.bound, 0.0
    for iteration in range(settings.iterations + 1):
        began = time.monotonic()
        value = dual.value(free)
        took = took or VALUES * (time.monotonic() - began)
        last = iteration == settings.iterations or began + AFTERWARDS * took > deadline
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
        took = time.monotonic() - began
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
        reader = dual.undecided.readers[position]
        source = reader.sources[0]
        if isinstance(reader.op, Sloped) and source in free.bounds and position in rows:
            free.bounds[source].add_(rows[position] * (slope - old[position]))
    better = value > dual.value(free)
    free.put(better, pick(plain, better))


def _settled(previous: Tensor, bound: Tensor, iteration: int) -> bool:
    """Whether the last iterations gained little, on average."""
    gain = ((bound - previous) / bound.abs().clamp(min=tiny(bound.dtype))).clamp(max=1.0)
    return iteration > 0 and not float(gain.mean()) > ENOUGH_GAIN


def certain_bound(
    program: Program,
    box: Interval,
    found: NodeBounds,
    index: dict[int, Tensor],
    objective: Objective,
    multipliers: Multipliers,
) -> LinearForm:
    """The linear form `[n, 1]` of each row at these multipliers, with every rounding accounted for.

    `box` `[n, *input]` and `found` have the batch of the rows, or 1; `index` `[k]`, by argument of a nonlinear node:
    the elements that have multipliers."""
    shared = box.shape[0] == 1 and all(len(v.upper_intercept) == 1 for v in found.planes.values())
    axis = 0 if shared else 1  # rows of one domain go side by side, else each has a domain of its own
    planes = {
        k: _tilted(program, k, v, found, index, multipliers, axis) if k in multipliers.lower else v
        for k, v in found.planes.items()
    }
    start, bias = _certain_start(objective, multipliers.weights, found)
    form = backward(
        program,
        {k: v.unsqueeze(axis) for k, v in start.items()},
        bias.unsqueeze(axis),
        NodeBounds(found.intervals, planes, known=found.reach),
        objective.exact and objective.offset.shape[1] == 1,
        {k: Charge(index[k], v.unsqueeze(axis)) for k, v in multipliers.bounds.items()},
    )
    if shared:
        form = LinearForm(*(part.transpose(0, 1) for part in (form.coefficients, form.bias, form.debt)))
    return form


def precise_bound(
    precise: Program,
    box: Interval,
    found: NodeBounds,
    index: dict[int, Tensor],
    objective: Objective,
    multipliers: Multipliers,
) -> Tensor:
    """The bound `[n]` that `certain_bound` gives in double precision, by the program `precise`, rounded down to that of
    the box."""
    wide, known = cast(box, precise.dtype), cast(found, precise.dtype)
    rows, multipliers = cast(objective, precise.dtype), cast(multipliers, precise.dtype)
    form = certain_bound(precise, wide, known, index, rows, multipliers)
    return narrow_down(form.minimum(wide)[:, 0], box.lower.dtype)


def _tilted(
    program: Program,
    position: int,
    planes: Planes,
    found: NodeBounds,
    index: dict[int, Tensor],
    multipliers: Multipliers,
    axis: int,
) -> Planes:
    """The planes of an adjustable node with the chosen parameters, one of each for every row."""
    node, below = program.graph.nodes[position], multipliers.lower[position]
    chosen = index[node.inputs[0]]
    op = node.op.elements(chosen, node.shape)  # type: ignore[attr-defined]
    assert isinstance(op, Adjustable)
    boxes = tuple(elements_of(found.intervals[source], chosen) for source in node.inputs)

    def put(whole: Tensor, values: Tensor) -> Tensor:
        rows = flat(whole).expand(len(below), -1)
        put = torch.scatter(rows, 1, chosen.expand(below.shape), values.expand(below.shape))
        return put.reshape(-1, *node.shape).unsqueeze(axis)

    plane = op.lower_plane(below, *boxes)
    slopes = tuple(map(put, planes.lower_slopes, plane.slopes))
    low = None if planes.lower_intercept is None else put(planes.lower_intercept, plane.intercept)
    if position not in multipliers.upper:
        return Planes(slopes, low, planes.upper_slopes, planes.upper_intercept)
    plane = op.upper_plane(multipliers.upper[position], *boxes)
    above = tuple(map(put, planes.upper_slopes, plane.slopes))
    return Planes(slopes, low, above, put(planes.upper_intercept, plane.intercept))


def _certain_start(objective: Objective, weights: Tensor, found: NodeBounds) -> tuple[dict[int, Tensor], Tensor]:
    """The combined rows and a bias, from which the roundings of the combination itself are subtracted."""
    if objective.offset.shape[1] == 1:
        return {k: v[:, 0] for k, v in objective.rows.items()}, objective.offset[:, 0]
    count = weights.shape[1] + 3
    size, products = (weights * objective.offset.abs()).sum(1), torch.ones_like(weights[:, 0])
    start = {}
    for position, rows in objective.rows.items():
        start[position] = torch.einsum("nk,nk...->n...", weights, rows)
        largest = flat(found.intervals[position].magnitude())
        size = size + (torch.einsum("nk,nk...->n...", weights, rows.abs()).flatten(1) * largest).sum(1)
        products = products + (largest + 2).sum(1)  # what underflows multiply
    bias = (weights * objective.offset).sum(1)
    slack = size * gamma(2 * count, bias.dtype) + tiny(bias.dtype) * count * products
    return start, bias - 1.01 * slack
