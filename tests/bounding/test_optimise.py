"""The gradient of the dual, and an ascent that only gains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.soundness.graphs import ACTIVATIONS, FAMILIES
from tests.soundness.test_multipliers import all_elements
from verifier.bounding.dual import Dual, Multipliers, Objective, parameter_ranges
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import certain_bound, focused, initial_multipliers, optimise
from verifier.bounding.program import Program, prepare
from verifier.bounding.specification import bound_rows
from verifier.bounding.undecided import Undecided, undecided_elements
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.stacked import clone, map_tensors, pick
from verifier.settings import AscentSettings

CONTINUOUS = ["relu", "leaky", "steep", "abs", "clip", "sigmoid", "tanh", "softplus", "square"]
ROWS = 6
SETTINGS = AscentSettings(iterations=20, enough=float("inf"))


def some_question(
    family: str, activation: str, dtype: torch.dtype = torch.float64, combined: int = 3
) -> tuple[Program, Interval, NodeBounds, Objective]:
    """`ROWS` boxes and as many conjunctions, over the output and the input."""
    graph = FAMILIES[family](activation, seed=3)
    program = prepare(graph, dtype)
    generator = torch.Generator().manual_seed(4)
    lower = torch.randn(ROWS, *graph.input_shape, generator=generator).to(dtype) - 0.5
    box = Interval(lower, lower + 0.3 + torch.rand(lower.shape, generator=generator).to(dtype))
    rows = {
        node: torch.randn(ROWS, combined, *graph.nodes[node].shape, generator=generator).to(dtype)
        for node in (graph.output, 0)
    }
    objective = Objective(rows, torch.randn(ROWS, combined, generator=generator).to(dtype))
    return program, box, bound_nodes(program, box, "crown"), objective


def dual_of(
    program: Program, box: Interval, found: NodeBounds, objective: Objective, index: Undecided | None = None
) -> Dual:
    undecided = index or undecided_elements(program, found)
    return Dual(undecided, box, undecided.neurons(found), objective)


def start_of(dual: Dual, bounded: bool = True) -> Multipliers:
    return initial_multipliers(dual.undecided, dual.neurons, dual.objective, bounded)


def certain(dual: Dual, found: NodeBounds, free: Multipliers) -> Tensor:
    undecided = dual.undecided
    form = certain_bound(undecided.program, dual.box, found, undecided.index, dual.objective, free)
    return form.minimum(dual.box)[:, 0]


def slope_ranges(dual: Dual, free: Multipliers) -> tuple[Multipliers, Multipliers]:
    """The least and the greatest slopes, with nothing for the other multipliers."""
    ends: tuple[Multipliers, Multipliers] = replace(free, lower={}, upper={}), replace(free, lower={}, upper={})
    below, above = parameter_ranges(dual, free)
    for one, side in zip(ends, ("lower", "upper"), strict=True):
        one.lower.update({k: getattr(v, side).expand_as(free.lower[k]) for k, v in below.items()})
        one.upper.update({k: getattr(v, side).expand_as(free.upper[k]) for k, v in above.items()})
    return ends


def random_multipliers(dual: Dual, seed: int) -> tuple[Multipliers, Multipliers]:
    """Slopes anywhere in their ranges, multipliers of either sign, any weights; and sizes to vary them by."""
    generator = torch.Generator().manual_seed(seed)
    start = start_of(dual)
    low, high = slope_ranges(dual, start)
    draw = lambda like: torch.rand(like.shape, generator=generator).to(like.dtype)  # noqa: E731
    between = lambda a, b: {k: a[k] + draw(a[k]) * (b[k] - a[k]) for k in a}  # noqa: E731
    bounds = {k: draw(v) - 0.5 for k, v in start.bounds.items()}
    free = Multipliers(between(low.lower, high.lower), between(low.upper, high.upper), bounds, draw(start.weights))
    sizes = Multipliers(
        {k: high.lower[k] - v for k, v in low.lower.items()},
        {k: high.upper[k] - v for k, v in low.upper.items()},
        {k: torch.ones_like(v) for k, v in bounds.items()},
        torch.ones_like(start.weights),
    )
    return free, sizes


def moved(free: Multipliers, direction: Multipliers, length: float) -> Multipliers:
    return map_tensors(lambda t: t[0] + length * t[1], [free, direction])


def product(a: dict[int, Tensor], b: dict[int, Tensor]) -> Tensor:
    return sum((a[k] * b[k]).flatten(1).sum(1) for k in a)  # type: ignore[return-value]


@pytest.mark.parametrize("activation", CONTINUOUS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_agrees_with_differences(family: str, activation: str) -> None:
    """Along random directions of each group; where both one-sided differences agree, so that there is no kink."""
    program, box, found, objective = some_question(family, activation)
    dual = dual_of(program, box, found, objective)
    free, sizes = random_multipliers(dual, seed=5)
    middle = dual.value(free)
    gradient, step, compared = dual.gradient(free), 1e-6, 0
    for name in ("lower", "upper", "bounds", "weights"):
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            zero = map_tensors(lambda t: torch.zeros_like(t[0]), [free])
            draw = lambda t, g=generator: torch.randn(t[0].shape, generator=g) * t[0]  # noqa: E731
            direction = replace(zero, **{name: map_tensors(draw, [getattr(sizes, name)])})
            slope = sum(product(a, b) for a, b in zip(gradient.groups(), direction.groups(), strict=True))
            ahead = (dual.value(moved(free, direction, step)) - middle) / step
            behind = (middle - dual.value(moved(free, direction, -step))) / step
            size = 1e-3 * (ahead.abs() + behind.abs() + 1)
            smooth = (ahead - behind).abs() < size
            assert ((ahead - slope).abs() <= size)[smooth].all(), (name, ahead, behind, slope)
            compared += int(smooth.sum())
    assert compared > 12 * ROWS


@pytest.mark.parametrize("family", FAMILIES)
def test_a_multiplier_at_zero_has_the_derivative_of_the_side_that_pays(family: str) -> None:
    """The gradient is 0 where neither bound pays, and leads upwards where one does."""
    program, box, found, objective = some_question(family, "relu")
    tight = NodeBounds(dict(found.intervals), found.planes)
    for source in program.splittable:  # as if split: the minimiser is outside of some
        old = tight.intervals[source]
        tight.intervals[source] = Interval(old.lower / 2 + old.upper / 2, old.upper)
    dual = dual_of(program, box, tight, objective, undecided_elements(program, found))
    free = start_of(dual)
    value, gained = dual.value(free), False
    for key, slope in dual.gradient(free).bounds.items():
        step = 1e-7 / (1 + slope.abs().amax())
        changed = replace(free, bounds={**free.bounds, key: slope * step})
        rise = dual.value(changed) - value
        expected = (slope * slope).flatten(1).sum(1) * step
        assert (rise >= 0.5 * expected - 1e-12).all()
        gained |= bool((rise > 1e-9).any())
        dual.value(free)
    assert gained


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_ascent_never_ends_below_its_start(family: str, activation: str, dtype: torch.dtype) -> None:
    """Nor below the bound with the planes' own lines; and what it says it reached is what its multipliers give."""
    program, box, found, objective = some_question(family, activation, dtype, combined=1)
    plain = bound_rows(program, found, objective.rows, objective.offset, Effort()).minimum(box)[:, 0]
    dual = dual_of(program, box, found, objective)
    start = start_of(dual)
    first = dual.value(start)
    slack = 2e-4 if dtype is torch.float32 else 1e-9
    size = slack * (1 + first.abs())
    assert ((first - plain) >= -size).all()
    optimum = optimise(dual, start, SETTINGS)
    assert (optimum.bound >= first - size).all()
    again = dual_of(program, box, found, objective).value(optimum.multipliers)
    torch.testing.assert_close(again, optimum.bound, rtol=slack, atol=slack)
    proved = certain(dual, found, optimum.multipliers)
    assert (proved <= optimum.bound + size).all() and (proved >= optimum.bound - 20 * size).all()
    assert (optimum.minimiser >= box.lower).all() and (optimum.minimiser <= box.upper).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_ascent_gains_something(family: str) -> None:
    program, box, found, objective = some_question(family, "relu")
    dual = dual_of(program, box, found, objective)
    start = start_of(dual)
    first = dual.value(start)
    optimum = optimise(dual, start, SETTINGS)
    assert (optimum.bound > first + 1e-3).any()


def test_proved_rows_leave_and_the_others_are_not_mixed_up() -> None:
    """Some rows are positive at once and others never: as if each were alone, up to when an ascent ends."""
    program, box, found, objective = some_question("residual", "relu")
    dual = dual_of(program, box, found, objective)
    base = dual.value(start_of(dual, bounded=False))
    shift = torch.tensor([1.0, -50.0, 0.01, -50.0, 1.0, -0.01], dtype=torch.float64) - base
    objective = replace(objective, offset=objective.offset + shift.unsqueeze(1))
    settings = replace(SETTINGS, enough=0.0, iterations=15)
    dual = dual_of(program, box, found, objective)
    together = optimise(dual, start_of(dual, bounded=False), settings)
    for place in range(ROWS):
        index = torch.tensor([place])
        alone = optimise(dual.select(index), start_of(dual.select(index), bounded=False), settings)
        torch.testing.assert_close(alone.bound, together.bound[index], rtol=0.05, atol=1e-6)
        again = dual.select(index).value(pick(together.multipliers, index))
        torch.testing.assert_close(again, together.bound[index])


def test_an_ascent_whose_time_is_up_keeps_its_start() -> None:
    program, box, found, objective = some_question("dense", "relu")
    dual = dual_of(program, box, found, objective)
    start = start_of(dual)
    first = dual.value(start)
    optimum = optimise(dual, start, SETTINGS, deadline=0.0)
    torch.testing.assert_close(optimum.bound, first)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_domain_for_all_rows_is_the_same_as_one_each(family: str) -> None:
    program, box, found, objective = some_question(family, "sigmoid")
    index = torch.zeros(1, dtype=torch.long)
    one, wide = found.select(index), found.select(index.repeat(ROWS))
    narrow = dual_of(program, box.select(index), one, objective)
    broad = dual_of(program, box.select(index.repeat(ROWS)), wide, objective)
    free, _ = random_multipliers(narrow, seed=8)
    torch.testing.assert_close(narrow.value(free), broad.value(free))
    torch.testing.assert_close(certain(narrow, one, free), certain(broad, wide, free))


@pytest.mark.parametrize("activation", ["relu", "leaky", "abs"])
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gated"}))  # products are never settled
def test_settled_elements_cost_nothing(family: str, activation: str) -> None:
    """The bound is the same where settled elements have multipliers as well: their planes leave nothing to choose."""
    program, box, _, objective = some_question(family, activation)
    box = Interval(box.lower[:1], box.lower[:1] + 0.3)
    found = bound_nodes(program, box, "crown")
    dual = dual_of(program, box, found, objective)
    every = dual_of(program, box, found, objective, all_elements(program, found))
    some = sum(len(index) for index in dual.undecided.index.values())
    assert some < sum(len(index) for index in every.undecided.index.values())
    torch.testing.assert_close(dual.value(start_of(dual)), every.value(start_of(every)))
    one, other = dual.minimiser(), every.minimiser()
    for position, value in one.items():
        torch.testing.assert_close(value, other[position])


def test_what_is_not_a_number_proves_nothing() -> None:
    """Infinite bounds of a neuron: no bound, or a valid one, and never an error."""
    program, box, found, objective = some_question("dense", "relu", torch.float32)
    source = next(source for source in program.splittable if source > 0)
    known = found.intervals[source]
    for lower, upper in ((-torch.inf, torch.inf), (torch.nan, 1.0), (0.0, torch.inf)):
        intervals = {**found.intervals, source: Interval(known.lower.clone(), known.upper.clone())}
        intervals[source].lower[0, 0, 0], intervals[source].upper[0, 0, 0] = lower, upper
        planes = dict(found.planes)
        for position, node in enumerate(program.graph.nodes):
            if isinstance(node.op, Elementwise):
                planes[position] = node.op.relax(*(intervals[s] for s in node.inputs))
        loose = NodeBounds(intervals, planes)
        dual = dual_of(program, box, loose, objective)
        optimum = optimise(dual, start_of(dual), SETTINGS)
        bound = certain(dual, loose, optimum.multipliers)
        sampled = box.lower + torch.rand(200, *box.lower.shape) * (box.upper - box.lower)
        best = torch.full((ROWS,), torch.inf, dtype=torch.float64)
        for x in sampled:
            values = program.graph.to(torch.float64).evaluate_all(x.double())
            margins = objective.offset.double()
            for node, rows in objective.rows.items():
                margins = margins + torch.einsum("nk...,n...->nk", rows.double(), values[node])
            best = torch.minimum(best, margins.amax(1))
        assert not (bound.double() > best).any()


def test_an_ascent_starts_from_the_row_that_proves_most_alone() -> None:
    """The row is found by brute force. Here the others hold hardly anywhere, or everywhere: equal weights are worse."""
    program, box, found, objective = some_question("dense", "relu", combined=4)
    objective = replace(objective, offset=3 * objective.offset)
    dual = dual_of(program, box, found, objective)
    start = dual.projected(start_of(dual, bounded=False))
    alone = []
    for row in range(4):
        part = Objective({k: v[:, [row]] for k, v in objective.rows.items()}, objective.offset[:, [row]])
        one = dual_of(program, box, found, part)
        alone.append(one.value(one.projected(start_of(one, bounded=False))))
    best = torch.stack(alone, 1)
    before = dual.value(start)
    free = focused(dual, clone(start))
    assert torch.equal(free.weights.argmax(1), best.argmax(1)) and len(best.argmax(1).unique()) > 1
    torch.testing.assert_close(free.weights.sum(1), torch.ones_like(free.weights[:, 0]))
    assert bool((free.weights > 0).all()), "a weight of 0 could not grow"
    assert bool((dual.value(free) > before).all())
