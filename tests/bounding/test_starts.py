"""Slopes that served over one box serve over the next: they prove there without a step, and row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.bounding.test_tighten import LATE, assert_contains_samples
from tests.soundness.graphs import ACTIVATIONS, Builder
from verifier.bounding.dual import Multipliers
from verifier.bounding.engine import bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.bounding.starts import Starts
from verifier.bounding.tighten import optimised_ends, tighten_nodes
from verifier.bounding.undecided import Undecided, undecided_elements
from verifier.core.interval import Interval
from verifier.settings import AscentSettings

ROOM = 1 << 30


def deep(activation: str, dtype: torch.dtype) -> tuple[Program, Interval]:
    """Four layers, and a box wide enough that most of their neurons are undecided."""
    b, z = Builder(1, 3, seed=3), 0
    for size in (12, 12, 12, 12):
        z = b.same(ACTIVATIONS[activation], b.dense(z, size, 0.3))
    b.dense(z, 1)
    box = Interval(torch.full((1, 1, 3), -0.5, dtype=dtype), torch.full((1, 1, 3), 0.5, dtype=dtype))
    return prepare(b.graph(), dtype), box


def width(program: Program, found: NodeBounds) -> float:
    return float(sum((found.intervals[k].upper - found.intervals[k].lower).sum() for k in program.splittable))


def tightened(program: Program, box: Interval, starts: Starts, iterations: int, again: int) -> NodeBounds:
    starts.turn()
    settings = AscentSettings(iterations=iterations, again=again, enough=float("inf"))
    tightener = optimised_ends(program, prepare(program.graph, torch.float64), box, settings, ROOM, starts)
    return tighten_nodes(program, box, bound_nodes(program, box).without_forms(), tightener, LATE)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_step_they_gain_a_good_part_of_what_an_ascent_does(dtype: torch.dtype, activation: str) -> None:
    program, box = deep(activation, dtype)
    beside = Interval(box.lower * 0.8 + 0.1, box.upper * 0.8 + 0.1)
    plain, best = (width(program, tightened(program, beside, Starts(ROOM), steps, 0)) for steps in (0, 20))
    starts = Starts(ROOM)
    tightened(program, box, starts, 20, 20)
    served = tightened(program, beside, starts, 20, 0)
    assert_contains_samples(program, beside, served)
    assert plain - width(program, served) > 0.3 * (plain - best) > 0


def some_rows() -> tuple[Undecided, Multipliers, Tensor]:
    program, box = deep("relu", torch.float64)
    undecided = undecided_elements(program, bound_nodes(program, box))
    position = max(undecided.readers)
    index = torch.tensor([1, 4, 2])
    values = torch.rand(6, len(undecided.readers[position].index), dtype=torch.float64)
    return undecided, Multipliers({position: values}), index


def test_each_row_and_each_neuron_gets_its_own() -> None:
    undecided, multipliers, index = some_rows()
    ((position, values),) = multipliers.lower.items()
    starts = Starts(ROOM)
    starts.keep(7, index, undecided, multipliers)
    fresh = Multipliers({position: torch.full((4, values.shape[1]), -1.0, dtype=torch.float64)})
    assert not starts.fill(7, torch.tensor([2, 3]), undecided, fresh)  # it serves from the next box on
    starts.turn()
    assert not starts.fill(8, torch.tensor([2, 3]), undecided, fresh)
    assert starts.fill(7, torch.tensor([2, 3]), undecided, fresh)
    got = fresh.lower[position]
    assert torch.allclose(got[[0, 2]], values[[2, 5]], atol=0.01) and bool((got[[1, 3]] == -1.0).all())


def test_parts_share_the_room_and_nothing_else() -> None:
    undecided, multipliers, index = some_rows()
    ((position, values),) = multipliers.lower.items()
    starts = Starts(2 * values.numel())  # half precision: for one of them
    first, second = starts.of("first"), starts.of("second")
    assert starts.of("first") is first
    fresh = lambda: Multipliers({position: torch.zeros_like(values)})  # noqa: E731
    for part in (first, second):
        part.keep(7, index, undecided, multipliers)
    starts.turn()
    assert first.fill(7, index, undecided, fresh()) and not second.fill(7, index, undecided, fresh())
    starts.turn()  # what nobody kept again is forgotten, and its room is free
    assert not first.fill(7, index, undecided, fresh())
    second.keep(7, index, undecided, multipliers)
    starts.turn()
    assert second.fill(7, index, undecided, fresh())
