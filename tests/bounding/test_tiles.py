"""Networks of single tiles are parts of the whole one, and what tighteners prove on them holds there."""

from __future__ import annotations

import time
from collections.abc import Hashable

import pytest
import torch

from tests.bounding.test_crop import SHAPES, always, boxes, graph_of
from tests.bounding.test_tighten import assert_contains_samples
from verifier.bounding import tiles
from verifier.bounding.crop import lone_patches
from verifier.bounding.engine import bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.bounding.starts import Starts
from verifier.bounding.tighten import Tightener, optimised_ends, tighten_nodes
from verifier.bounding.tiles import in_tiles
from verifier.core.interval import Interval
from verifier.settings import AscentSettings

__all__ = ["always"]  # the fixture
LATE, ROOM = float("inf"), 1 << 30


@pytest.fixture(autouse=True)
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are cheap enough wherever there are any."""
    monkeypatch.setattr(tiles, "WORTH", float("inf"))


def never(found: NodeBounds, source: int, index: torch.Tensor, deadline: float) -> tuple[torch.Tensor, torch.Tensor]:
    raise AssertionError("there are tiles")


def tiled(program: Program) -> int:
    """The last node that has tiles."""
    return [source for source in program.splittable if lone_patches(program, program, source, 1.0)[0]][-1]


def by_slopes(program: Program, precise: Program, box: Interval, iterations: int) -> Tightener:
    settings = AscentSettings(iterations=iterations, enough=float("inf"))
    return optimised_ends(program, precise, box, settings, ROOM, Starts(ROOM))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", list(SHAPES))
def test_networks_of_tiles_compute_parts_of_the_whole(name: str) -> None:
    graph = graph_of(name)
    program = prepare(graph, torch.float64)
    box, seen = boxes(graph, 1, torch.float64), 0
    values, found = graph.evaluate_all(box.lower), bound_nodes(program, box)
    for source in program.splittable:
        every = torch.arange(graph.nodes[source].size)
        for tile, same, own in tiles._tiles(program, program, source, every):
            network, known = tile.network(program), tile.bounds(found)
            parts = network.graph.evaluate_all(box.lower)
            torch.testing.assert_close(
                parts[network.graph.output][0].flatten(), values[source].flatten()[tile.positions]
            )
            assert torch.equal(same.positions, tile.positions) and len(own) == len(tile.positions)
            for position, value in parts.items():
                bounds = known.intervals[position]
                assert (bounds.lower <= value + 1e-9).all() and (bounds.upper >= value - 1e-9).all()
            seen += len(own)
    assert seen >= graph.nodes[tiled(program)].size


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", list(SHAPES))
def test_without_steps_ascents_give_the_bounds_of_whole_passes(name: str) -> None:
    graph = graph_of(name)
    program = prepare(graph, torch.float64)
    box = boxes(graph, 1, torch.float64)
    found, source = bound_nodes(program, box, "interval"), tiled(program)
    index = torch.arange(graph.nodes[source].size)[::2]
    make = lambda network, same, key: by_slopes(network, same, box, 0)  # noqa: E731
    got = in_tiles(program, program, never, make)(found, source, index, LATE)
    expected = make(program, program, None)(found, source, index, LATE)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("always", [1, 3], ids=["small", "large"], indirect=True)
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", list(SHAPES))
def test_ascents_on_tiles_contain_the_values_and_gain_something(name: str) -> None:
    graph = graph_of(name)
    program, precise = (prepare(graph, dtype) for dtype in (torch.float32, torch.float64))
    box = boxes(graph, 1, torch.float32)
    found = bound_nodes(program, box).without_forms()
    make = lambda network, same, key: by_slopes(network, same, box, 10)  # noqa: E731
    better = tighten_nodes(program, box, found, in_tiles(program, precise, make(program, precise, None), make), LATE)
    assert_contains_samples(precise, box, better)  # single precision rounds the weights, which bounds allow for
    assert all((better.intervals[k].lower >= old.lower).all() for k, old in found.intervals.items())
    assert all((better.intervals[k].upper <= old.upper).all() for k, old in found.intervals.items())
    output = graph.output
    widths = [(bounds.intervals[output].upper - bounds.intervals[output].lower).sum() for bounds in (found, better)]
    assert widths[1] < widths[0]


@pytest.mark.usefixtures("always")
def test_nothing_is_known_of_tiles_that_time_does_not_reach() -> None:
    graph = graph_of("plain")
    program = prepare(graph, torch.float64)
    box = boxes(graph, 1, torch.float64)
    found, source = bound_nodes(program, box, "interval"), tiled(program)
    index, asked = torch.arange(graph.nodes[source].size), []

    def make(network: Program, same: Program, key: Hashable) -> Tightener:
        asked.append(network)
        return by_slopes(network, same, box, 0)

    low, high = in_tiles(program, program, never, make)(found, source, index, time.monotonic() - 1)
    assert not asked and bool((low == -torch.inf).all()) and bool((high == torch.inf).all())


def test_tiles_that_are_not_cheaper_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WORTH", 0.0)
    graph = graph_of("plain")
    program = prepare(graph, torch.float64)
    box = boxes(graph, 1, torch.float64)
    found, source = bound_nodes(program, box, "interval"), program.splittable[-1]
    ends = torch.zeros(1), torch.ones(1)
    nothing = lambda network, same, key: never  # noqa: E731
    assert in_tiles(program, program, lambda *what: ends, nothing)(found, source, torch.zeros(1).long(), LATE) is ends
