"""When a task goes on over a condensed network, and what it knows there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from tests.soundness.graphs import Builder
from verifier.bounding.engine import bound_nodes
from verifier.bounding.program import prepare
from verifier.core.graph import Graph
from verifier.core.problem import build_problem
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.ops import Concat, Exp, Linear, Relu, Scale, Sigmoid
from verifier.search.condensing import Smaller, condense
from verifier.search.inputs import InputSearch
from verifier.search.task import Limits, Task
from verifier.settings import SearchSettings

ROOM = 1 << 30
ONE = Fraction(1)
SIZE = 40


def task_of(graph: Graph, *rows: tuple[Fraction, ...]) -> Task:
    """A disjunct for each row of coefficients of the outputs, over inputs from -1 to 1."""
    inputs = graph.nodes[0].size
    box = Box((-ONE,) * inputs, (ONE,) * inputs)
    parts = [tuple((k, factor) for k, factor in enumerate(row) if factor) for row in rows]
    query = Query(inputs, len(rows[0]), tuple(Disjunct(box, (Row((), part, Fraction(0)),)) for part in parts))
    problem = build_problem(query, torch.float32, "cpu")
    programs = {dtype: prepare(graph, dtype).asked(problem.output_rows) for dtype in (torch.float32, torch.float64)}
    limits, precise = Limits(time.monotonic() + 1000, ROOM), lambda: programs[torch.float64]
    return Task(problem, programs[torch.float32], precise, SearchSettings(), limits, lambda *points: False)


def smaller_of(task: Task) -> Smaller | None:
    box = task.problem.box.reshape(-1, *task.program.graph.input_shape)
    with torch.no_grad():
        return condense(task, bound_nodes(task.program, box, "crown"), task.problem.real)


def mostly_decided(b: Builder, outputs: int = 2) -> int:
    """Two layers of neurons, of which few are undecided."""
    first = b.same(Scale(shift=torch.linspace(-0.5, 12.0, SIZE, dtype=torch.float64)), b.dense(0, SIZE, bias=0.0))
    return b.dense(b.same(Relu(), b.dense(b.same(Relu(), first), SIZE, bias=20.0)), outputs)


def test_where_little_is_undecided_a_row_costs_less() -> None:
    b = Builder(1, 2)
    mostly_decided(b)
    task = task_of(b.graph(), (ONE, Fraction(0)), (Fraction(0), ONE))
    smaller = smaller_of(task)
    assert smaller is not None
    assert smaller.ratio < 0.5
    x = 2 * torch.rand(50, 1, 2, dtype=torch.float64) - 1
    expected, found = (program.graph.evaluate(x) for program in (task.precise(), smaller.task.precise()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)


def test_only_open_disjuncts_are_known() -> None:
    b = Builder(1, 2)
    mostly_decided(b)
    task = task_of(b.graph(), (ONE, Fraction(0)), (Fraction(0), ONE))
    box = task.problem.box.reshape(-1, *task.program.graph.input_shape)
    smaller = condense(task, bound_nodes(task.program, box, "crown"), torch.tensor([[False, True]]))
    assert smaller is not None
    x = 2 * torch.rand(50, 1, 2, dtype=torch.float64) - 1
    expected, found = (program.graph.evaluate(x) for program in (task.precise(), smaller.task.precise()))
    torch.testing.assert_close(found[..., 1], expected[..., 1], rtol=1e-12, atol=1e-10)
    assert not found[..., 0].any()


def test_a_coefficient_that_was_rounded_to_0_is_read() -> None:
    """In double precision it is not 0."""
    b = Builder(1, 2)
    mostly_decided(b)
    task = task_of(b.graph(), (Fraction(1, 10**50), ONE))
    assert not task.problem.exact
    assert not task.problem.output_rows[0, 0]
    smaller = smaller_of(task)
    assert smaller is not None
    x = 2 * torch.rand(50, 1, 2, dtype=torch.float64) - 1
    expected, found = (program.graph.evaluate(x) for program in (task.precise(), smaller.task.precise()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("most", "made"), [(1.0, True), (60.0, False), (800.0, False)])
def test_neighbourhoods_that_matter_are_refused(most: float, made: bool) -> None:
    """The exponential's rounding is all that the sigmoid sees, over the whole box and in the condensed network for
    good."""
    b = Builder(1, 2)
    rest = mostly_decided(b, 1)
    large = b.same(Exp(), b.add(Linear(torch.tensor([[most, 0.0]]).double()), [0], (1, 1)))
    bent = b.same(Sigmoid(), b.add(Linear(torch.tensor([[-1.0]]).double()), [large], (1, 1)))
    b.add(Concat(1, (1, 1)), [bent, rest], (1, 2))
    assert (smaller_of(task_of(b.graph(), (ONE, ONE))) is not None) == made


def test_no_time_and_no_room() -> None:
    b = Builder(1, 2)
    mostly_decided(b)
    task = task_of(b.graph(), (ONE, ONE))
    assert smaller_of(task) is not None
    assert smaller_of(replace(task, limits=Limits(time.monotonic() - 1, ROOM))) is None
    assert smaller_of(replace(task, limits=Limits(time.monotonic() + 1000, 100))) is None


def identity() -> Graph:
    return Builder(1, 2).graph()


def linear() -> Graph:
    b = Builder(1, 2)
    b.dense(0, 2)
    return b.graph()


@pytest.mark.parametrize("make", [identity, linear])
def test_networks_with_nothing_to_condense(make: Callable[[], Graph]) -> None:
    assert smaller_of(task_of(make(), (ONE, -ONE))) is None


def test_stuck_boxes_are_not_asked_about_what_was_closed_before() -> None:
    """The condensed network says nothing about it."""
    b = Builder(1, 2)
    mostly_decided(b)
    task = task_of(b.graph(), (ONE, Fraction(0)), (Fraction(0), ONE))
    search, still = InputSearch(task), torch.tensor([[False, True]])
    search.frontier.batches = [batch.replace(open=still) for batch in search.frontier.batches]
    box = task.problem.box.reshape(-1, *task.program.graph.input_shape)
    with torch.no_grad():
        search.whole = bound_nodes(task.program, box, "crown")
        smaller = condense(task, search.whole, search.still)
        assert smaller is not None
        later = search.over(smaller)
        later.stuck = 1
        assert later.still.equal(still) and later.in_double().still.equal(still)
    search.stuck = 1
    assert search.still.all()
