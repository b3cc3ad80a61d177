"""Optimised bounds of neurons contain the values, are never wider than what they start from, and gain something."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.soundness.graphs import ACTIVATIONS, FAMILIES, Builder
from verifier.bounding.engine import bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.bounding.starts import Starts
from verifier.bounding.tighten import Tightener, in_order, only, optimised_ends, tighten_nodes
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.ops import Relu
from verifier.search.ends import searched_ends
from verifier.settings import AscentSettings, SearchSettings

SETTINGS = AscentSettings(iterations=10, enough=float("inf"))
ROOM = 1 << 30
LATE = float("inf")


def by_slopes(program: Program, box: Interval, memory: int = ROOM) -> Tightener:
    return optimised_ends(program, prepare(program.graph, torch.float64), box, SETTINGS, memory, Starts(memory))


def by_splits(program: Program, box: Interval, memory: int = ROOM) -> Tightener:
    origins = {program.origins[s] for s in program.splittable}
    influence = {k: torch.ones(program.graph.nodes[k].size, dtype=program.dtype) for k in origins}
    return searched_ends(program, box, influence, SearchSettings(ends=SETTINGS), memory, 0.01)


TIGHTENERS = {"slopes": by_slopes, "splits": by_splits}


def some_program(family: str, activation: str, dtype: torch.dtype, seed: int) -> tuple[Program, Interval, NodeBounds]:
    graph = FAMILIES[family](activation, seed)
    program = prepare(graph, dtype)
    generator = torch.Generator().manual_seed(seed)
    lower = torch.randn(1, *graph.input_shape, generator=generator).to(dtype) - 0.5
    box = Interval(lower, lower + torch.rand(lower.shape, generator=generator).to(dtype))
    found = bound_nodes(program, box, "crown")
    return program, box, NodeBounds(found.intervals, found.planes)


def assert_contains_samples(program: Program, box: Interval, found: NodeBounds) -> None:
    """In double precision, at corners and inside; planes too."""
    share = torch.rand(200, *box.lower.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share[:50] = share[:50].round()
    low, high = box.lower.double(), box.upper.double()
    values = program.graph.to(torch.float64).evaluate_all(low + share * (high - low))
    slack = 1e-12
    for position, interval in found.intervals.items():
        value = values[position]
        assert (value >= interval.lower.double() - slack).all() and (value <= interval.upper.double() + slack).all()
    for position, planes in found.planes.items():
        arguments = [values[source] for source in program.graph.nodes[position].inputs]
        below = at(planes.lower_slopes, arguments) + (
            0.0 if planes.lower_intercept is None else planes.lower_intercept.double()
        )
        above = at(planes.upper_slopes, arguments) + planes.upper_intercept.double()
        assert (below <= values[position] + slack).all() and (above >= values[position] - slack).all()


def at(slopes: tuple[Tensor, ...], arguments: list[Tensor]) -> Tensor:
    return torch.stack([s.double() * x for s, x in zip(slopes, arguments, strict=True)]).sum(0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tightener", TIGHTENERS)
def test_contains_the_values_and_is_inside_of_what_it_started_from(
    tightener: str, family: str, activation: str
) -> None:
    program, box, found = some_program(family, activation, torch.float32, seed=5)
    better = tighten_nodes(program, box, found, TIGHTENERS[tightener](program, box), LATE)
    assert better.intervals.keys() == found.intervals.keys() and better.planes.keys() == found.planes.keys()
    for position, interval in better.intervals.items():
        old = found.intervals[position]
        assert interval.shape == old.shape
        assert (interval.lower >= old.lower).all() and (interval.upper <= old.upper).all()
        assert (interval.lower <= interval.upper).all()
    assert_contains_samples(program, box, better)


@pytest.mark.parametrize("tightener, least", [("slopes", 0.95), ("splits", 0.85)])
def test_gains_something(tightener: str, least: float) -> None:
    """In the third layer of a dense network."""
    b = Builder(1, 3, seed=0)
    third = b.dense(b.same(Relu(), b.dense(b.same(Relu(), b.dense(0, 8)), 8)), 8)
    b.dense(b.same(Relu(), third), 2)
    program = prepare(b.graph(), torch.float64)
    box = Interval(-torch.ones(1, 1, 3, dtype=torch.float64), torch.ones(1, 1, 3, dtype=torch.float64))
    found = bound_nodes(program, box, "crown")
    found = NodeBounds(found.intervals, found.planes)
    better = tighten_nodes(program, box, found, TIGHTENERS[tightener](program, box), LATE)
    old, new = found.intervals[third], better.intervals[third]
    assert int(((new.upper - new.lower) < least * (old.upper - old.lower)).sum()) >= 4


@pytest.mark.parametrize("deadline, memory", [(0.0, ROOM), (LATE, 1), (LATE, 3000)])
@pytest.mark.parametrize("tightener", TIGHTENERS)
def test_without_time_or_memory_it_stays_sound(tightener: str, deadline: float, memory: int) -> None:
    for family in FAMILIES:
        program, box, found = some_program(family, "relu", torch.float32, seed=6)
        better = tighten_nodes(program, box, found, TIGHTENERS[tightener](program, box, memory), deadline)
        assert_contains_samples(program, box, better)
        whole = tighten_nodes(program, box, found, TIGHTENERS[tightener](program, box), LATE)
        for position, interval in better.intervals.items():
            expected = whole.intervals[position] if deadline > 0 else found.intervals[position]
            torch.testing.assert_close(interval.lower, expected.lower, rtol=0.2, atol=0.05)


def test_a_point_has_no_undecided_neurons_left_to_tighten() -> None:
    program, box, _ = some_program("joined", "relu", torch.float32, seed=7)
    point = Interval(box.lower, box.lower)
    found = bound_nodes(program, point, "crown")
    better = tighten_nodes(program, point, NodeBounds(found.intervals, found.planes), by_slopes(program, point), LATE)
    assert_contains_samples(program, point, better)
    assert all(isinstance(program.graph.nodes[position].op, Elementwise) for position in better.planes)


def test_in_order() -> None:
    """The largest weights are asked about first, and every element gets its own bounds."""
    asked: list[int] = []

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        asked.extend(index.tolist())
        return -index.double(), index.double()

    weights, index = {3: torch.tensor([5.0, 1.0, 9.0, 7.0, 2.0])}, torch.tensor([4, 0, 2, 1])
    low, high = in_order(weights, tighten)(NodeBounds(), 3, index, LATE)
    assert asked == [2, 0, 4, 1]
    assert high.tolist() == index.tolist() and low.tolist() == (-index).tolist()


def test_only_what_is_chosen_gets_new_bounds() -> None:
    program, box, found = some_program("dense", "relu", torch.float64, 3)
    whole, source = by_slopes(program, box), program.splittable[-1]
    index = torch.arange(program.graph.nodes[source].size)
    chosen = index % 3 == 1
    lower, upper = only({source: chosen}, whole)(found, source, index, LATE)
    expected = whole(found, source, index[chosen], LATE)
    torch.testing.assert_close((lower[chosen], upper[chosen]), expected)
    assert bool((lower[~chosen] == -torch.inf).all()) and bool((upper[~chosen] == torch.inf).all())
    none = only({source: torch.zeros_like(chosen)}, whole)(found, source, index, LATE)
    assert not any(bool(end.isfinite().any()) for end in none)
