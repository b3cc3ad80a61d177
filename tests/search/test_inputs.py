"""What the search over inputs hands from a domain to its halves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.attack.questions import problem_of, row
from tests.search.questions import ACTIVATIONS, SHAPES, small_graph
from verifier.bounding.program import prepare
from verifier.core.graph import Graph
from verifier.search import inputs
from verifier.search.domains import DomainBatch
from verifier.search.inputs import InputSearch
from verifier.search.task import Limits, Task
from verifier.settings import SearchSettings

BOX = [(-1.0, 1.0), (-0.5, 2.0)]


def search_over(
    graph: Graph, boxes: int = 1, batch: int = 4, memory: int = 1 << 30, most: float = 1000.0
) -> InputSearch:
    """Whether the sum of the outputs is at most `most`; else a question that no bound can answer: all points violate,
    and none is confirmed."""
    precise, program = (prepare(graph, dtype) for dtype in (torch.float64, torch.float32))
    limits, settings = Limits(float("inf"), memory), SearchSettings(batch=batch)
    problem = problem_of([BOX] * boxes, [row({0: 1, 1: 1}, most)])
    return InputSearch(Task(problem, program, lambda: precise, settings, limits, lambda points, which: False))


def after(search: InputSearch, batches: int) -> Iterator[DomainBatch]:
    for _ in range(batches):
        search.run(0.0)
    yield from search.frontier.batches


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_inherited_bounds_hold_over_their_box(activation: str, shape: str) -> None:
    graph = small_graph(activation, shape, 7)
    search, checked = search_over(graph), 0
    with torch.no_grad():
        for batch in after(search, 6):
            place = torch.rand(len(batch), 64, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            lower, upper = (end.double().unsqueeze(1) for end in (batch.box.lower, batch.box.upper))
            values = graph.to(torch.float64, "cpu").evaluate_all((lower + place * (upper - lower)).flatten(0, 1))
            for position, bounds in batch.nodes.items():
                value = values[position].reshape(len(batch), 64, *bounds.shape[1:])
                # the values are rounded too
                assert (value >= bounds.lower.double().unsqueeze(1) - 1e-12).all()
                assert (value <= bounds.upper.double().unsqueeze(1) + 1e-12).all()
                checked += int(bounds.upper.isfinite().sum())
    assert checked or not search.inherited
    assert bool(search.inherited) == (shape != "one layer"), "only what takes backward passes"


def test_halves_start_from_the_bounds_of_the_whole() -> None:
    search = search_over(small_graph("relu", "three layers", 7))
    with torch.no_grad():
        whole = next(after(search, 1))
        parents = {k: v.select(slice(0, 1)) for k, v in whole.nodes.items()}
        halves = list(after(search, 3))
    narrower = 0
    for batch in halves:
        for position, bounds in batch.nodes.items():
            assert (bounds.lower >= parents[position].lower).all() and (bounds.upper <= parents[position].upper).all()
            width, before = (box.upper - box.lower for box in (bounds, parents[position]))
            narrower += int((width < before).any())
    assert narrower


@pytest.mark.parametrize(("boxes", "memory"), [(5, 1 << 30), (1, 256)])
def test_nothing_is_handed_on_where_boxes_are_many_or_room_is_short(boxes: int, memory: int) -> None:
    graph = small_graph("relu", "three layers", 7)
    assert search_over(graph).inherited
    assert not search_over(graph, boxes, memory=memory).inherited


@pytest.mark.parametrize("room", [1 << 30, 8])
def test_in_double_precision_the_search_goes_on_where_it_stands(room: int) -> None:
    """Also where there is room for the bounds of neurons in single precision only."""
    graph = small_graph("relu", "three layers", 7)
    search = search_over(graph)
    search = search_over(graph, memory=room * search._inherited_size(search.inherited))
    with torch.no_grad():
        for _ in range(3):
            search.run(0.0)
        wide = search.in_double()
        assert search.inherited and bool(wide.inherited) == (room > 8)
        assert (wide.open, wide.bounded, wide.proved) == (search.open, search.bounded, search.proved)
        for _ in range(3):
            wide.run(0.0)
    assert wide.bounded > search.bounded and all(
        len(batch.nodes) == len(wide.inherited) for batch in wide.frontier.batches
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rows_that_are_dear_are_proved_by_the_last_neurons_where_these_do(
    activation: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a sample contradicts is proved; what is far away is, at once, and without taking a row back to the
    input."""
    monkeypatch.setattr(inputs, "DEAR", -1.0)
    graph = small_graph(activation, shape, 7)
    x = torch.rand(4096, 1, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.tensor([-1.0, -0.5]) + x * torch.tensor([2.0, 2.5])
    least = float(graph.to(torch.float64, "cpu").evaluate(x).flatten(1).sum(1).min())
    search = search_over(graph, most=least + 0.01)
    with torch.no_grad():
        for _ in range(40):
            search.run(0.0)
    assert search.open or search.stuck
    monkeypatch.setattr(inputs, "bound_rows", None)
    search = search_over(graph, most=-1e4)
    with torch.no_grad():
        search.run(0.0)
    assert not search.open and not search.stuck
