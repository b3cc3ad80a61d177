"""Over the inputs that vary the question is the same: exactly, but for the neighbourhoods that are admitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.search.questions import SHAPES, Part, margin_of, query_of, random_parts, small_graph
from tests.search.test_neurons import Confirm
from tests.search.test_strategy import FAST, agrees
from tests.soundness.exact import ExactGraph, fractions
from tests.soundness.graphs import Builder
from verifier.bounding.program import prepare
from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.problem import build_problem
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.core.stacked import cast
from verifier.ops import Add, Conv, Linear, Near, Relu, Reshape, Scale, Select
from verifier.ops.window import Window
from verifier.search import varying
from verifier.search.strategy import Strategy
from verifier.search.task import Candidates, Limits, Task
from verifier.search.varying import over_varying

SIZE, WIDE, VARY = 200, 40, (7, 33)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varying, "WORTH", float("inf"))


def task_of(graph: Graph, query: Query, candidates: Candidates = lambda points, which: False) -> Task:
    limits, problem = Limits(time.monotonic() + 30, 1 << 30), build_problem(query, torch.float32, "cpu")
    precise = lambda: prepare(graph, torch.float64)  # noqa: E731
    return Task(problem, prepare(graph, torch.float32), precise, FAST, limits, candidates)


def box_of(values: list[Fraction], vary: tuple[int, ...] = VARY) -> Box:
    """From 0 to 1 at the places `vary`, else these values."""
    ends = [[Fraction(end) if k in vary else own for k, own in enumerate(values)] for end in (0, 1)]
    return Box(tuple(ends[0]), tuple(ends[1]))


def question(box: Box, outputs: int = 2, inputs: tuple[tuple[int, Fraction], ...] = ()) -> Query:
    row = Row(inputs, tuple((k, Fraction(1)) for k in range(outputs)), Fraction(0))
    return Query(len(box.lower), outputs, (Disjunct(box, (row,)),))


def layered(b: Builder, first: int) -> Graph:
    b.dense(b.same(Relu(), b.dense(first, WIDE)), 2)
    return b.graph()


def flattened(b: Builder, position: int) -> int:
    node = b.nodes[position]
    return b.add(Reshape(node.shape, (1, node.size)), [position], (1, node.size))


def plain() -> Graph:
    b = Builder(1, SIZE)
    return layered(b, 0)


def reshaped() -> Graph:
    b = Builder(5, 8, 5)
    return layered(b, b.add(Reshape((5, 8, 5), (1, SIZE)), [0], (1, SIZE)))


def two_at_once() -> Graph:
    b = Builder(1, 2, SIZE // 2)
    layer = b.add(Linear(b.normal(WIDE, SIZE // 2), b.normal(WIDE)), [0], (1, 2, WIDE))
    return layered(b, flattened(b, b.same(Relu(), layer)))


def convolved() -> Graph:
    b = Builder(1, 2, 10, 10)
    window = Window((10, 10), (10, 10), (3, 3), (1, 1), (1, 1), (1, 1))
    layer = b.add(Conv(b.normal(4, 2, 3, 3), window, b.normal(4)), [0], (1, 4, 10, 10))
    return layered(b, flattened(b, b.same(Relu(), layer)))


def behind_a_constant() -> Graph:
    b = Builder(1, SIZE)
    constant = b.add(Constant(b.normal(1, WIDE)), (), (1, WIDE))
    return layered(b, b.same(Add((1, 1)), b.dense(0, WIDE), constant))


def behind_a_moved_constant() -> Graph:
    """Which comes before the layer."""
    b = Builder(1, SIZE)
    constant = b.add(Constant(b.normal(WIDE)), (), (WIDE,))
    moved = b.add(Reshape((WIDE,), (1, WIDE)), [constant], (1, WIDE))
    return layered(b, b.same(Add((1, 1)), b.dense(0, WIDE), moved))


@pytest.mark.parametrize("scale", [1.0, 1e20, 1e-20])
@pytest.mark.parametrize("make", [plain, reshaped, two_at_once, convolved, behind_a_constant, behind_a_moved_constant])
def test_the_layer_is_exactly_within_its_neighbourhoods(make: Callable[[], Graph], scale: float, always: None) -> None:
    """In exact fractions, at points whose fixed inputs are anywhere between the ends of the box, which are rounded."""
    graph, generator = make(), np.random.default_rng(0)
    values = [Fraction(int(k), 10) * Fraction(scale) for k in generator.integers(-30, 30, SIZE)]
    task = task_of(graph, question(box_of(values)))
    own = over_varying(task)
    node, (linear, near) = own.precise().graph.nodes[0], (n.op for n in own.precise().graph.nodes[1:3])
    assert isinstance(linear, Linear) and isinstance(near, Near) and linear.bias is not None and node.size == 2
    assert own.problem.box.lower.tolist() == [[0.0, 0.0]] and own.problem.box.upper.tolist() == [[1.0, 1.0]]
    lower, upper = task.problem.box.lower[0], task.problem.box.upper[0]
    layer, exact = next(k for k, n in enumerate(graph.nodes) if isinstance(n.op, Linear | Conv)), ExactGraph(graph)
    for _ in range(3):
        share = torch.from_numpy(generator.choice([0.0, 0.3, 1.0], SIZE)).float()
        x = torch.where(share == 0.3, torch.lerp(lower, upper, share), torch.where(share == 0, lower, upper))
        assert ((lower <= x) & (x <= upper)).all()
        inputs = fractions(x)
        known = [[Fraction(w) * inputs[p] for w, p in zip(row, VARY, strict=True)] for row in linear.weight.tolist()]
        for k, value in enumerate(exact.affine(layer, [inputs])):
            radius = Fraction(near.radius[k].item())
            assert abs(value - sum(known[k]) - Fraction(linear.bias[k].item())) <= radius <= 1e-5 * max(1.0, scale)
    points = torch.rand(20, 2, dtype=torch.float64)
    whole = cast(task.problem.box, torch.float64).middle().repeat(20, 1).index_copy(1, torch.tensor(VARY), points)
    expected = graph.evaluate(whole.reshape(-1, *graph.input_shape))
    found = own.precise().graph.evaluate(points)
    assert torch.allclose(found, expected, rtol=1e-9)


def two_readers() -> Graph:
    b = Builder(1, SIZE)
    return layered(b, b.same(Add((1, 1)), b.dense(0, WIDE), b.dense(0, WIDE)))


def nonlinear_reader() -> Graph:
    b = Builder(1, SIZE)
    return layered(b, b.same(Relu(), 0))


def scaled() -> Graph:
    b = Builder(1, SIZE)
    return layered(b, b.same(Scale(shift=b.normal(SIZE)), 0))


def some_of_them() -> Graph:
    b = Builder(1, SIZE)
    return layered(b, b.add(Select(torch.arange(SIZE - 1, -1, -1), (1, SIZE)), [0], (1, SIZE)))


def the_input() -> Graph:
    return Graph((Node("x", Input(), (), (1, SIZE)), Node("y", Reshape((1, SIZE), (SIZE,)), (0,), (SIZE,))), 1)


@pytest.mark.parametrize("make", [two_readers, nonlinear_reader, scaled, some_of_them, the_input])
def test_other_networks_stay_as_they_are(make: Callable[[], Graph], always: None) -> None:
    graph = make()
    task = task_of(graph, question(box_of([Fraction(0)] * SIZE), graph.nodes[graph.output].size))
    assert over_varying(task) is task


def test_other_questions_stay_as_they_are() -> None:
    graph, nothing = plain(), [Fraction(0)] * SIZE
    assert over_varying(changed := task_of(graph, question(box_of(nothing)))) is not changed
    few = box_of(nothing, tuple(range(0, SIZE, 2)))  # too many vary
    for query in (question(few), question(box_of(nothing, ())), question(box_of(nothing), 2, ((3, Fraction(1)),))):
        task = task_of(graph, query)
        assert over_varying(task) is task


def test_inputs_that_differ_from_box_to_box_vary() -> None:
    values = [Fraction(1)] * SIZE
    first, second = question(box_of(values)), question(box_of([Fraction(2), *values[1:]]))
    query = replace(first, disjuncts=first.disjuncts + second.disjuncts)
    own = over_varying(task_of(plain(), query))
    assert own.problem.box.lower.tolist() == [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]


def test_candidates_are_in_the_box_where_numbers_are_subnormal() -> None:
    """The middle of 3 times the smallest number and itself is 4 times that."""
    seen = []
    task = task_of(
        plain(), question(box_of([Fraction(3, 2**149)] * SIZE)), lambda points, which: bool(seen.append(points))
    )
    own, box = over_varying(task), task.problem.box
    assert not own.candidates(torch.full((1, 2), 0.5), torch.tensor([0]))
    assert own is not task and ((box.lower <= seen[0]) & (seen[0] <= box.upper)).all()


def test_inputs_with_an_infinite_end_vary() -> None:
    values = [Fraction(10) ** 39, *([Fraction(1)] * (SIZE - 1))]
    assert over_varying(task_of(plain(), question(box_of(values)))).problem.box.shape == (1, 3)


def widened(graph: Graph, fixed: int, generator: np.random.Generator) -> tuple[Graph, Graph, np.ndarray]:
    """A graph of two inputs and further ones, the graph of these two that remains where the others have the values
    that come last."""
    values = generator.integers(-16, 16, fixed) / 8
    layer = graph.nodes[1].op
    assert isinstance(layer, Linear) and layer.bias is not None
    more = torch.from_numpy(generator.integers(-16, 16, (len(layer.weight), fixed)) / 16)
    weight = torch.cat([layer.weight[:, :1], more, layer.weight[:, 1:]], 1)
    left = replace(layer, bias=layer.bias + more @ torch.from_numpy(values))
    wide = (Node("x", Input(), (), (1, fixed + 2)), replace(graph.nodes[1], op=replace(layer, weight=weight)))
    return (
        Graph((*wide, *graph.nodes[2:]), graph.output),
        Graph((graph.nodes[0], replace(graph.nodes[1], op=left), *graph.nodes[2:]), graph.output),
        values,
    )


def wide_part(part: Part, values: np.ndarray) -> Part:
    fill = lambda end: np.concatenate([end[:1], values, end[1:]])  # noqa: E731
    conjunctions = []
    for c, d, b in part[2]:
        none = np.zeros((len(d), len(values)))
        conjunctions.append((c, np.concatenate([d[:, :1], none, d[:, 1:]], 1), b))
    return fill(part[0]), fill(part[1]), conjunctions


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape not in ("joined", "on the input")])
def test_agrees_with_enumeration(shape: str, always: None) -> None:
    """Candidates are whole points, in their boxes."""
    reduced = 0
    for seed in range(6):
        generator = np.random.default_rng(seed)
        wide, left, values = widened(small_graph("relu", shape, 700 + seed), 9, generator)
        parts = random_parts(left, 1 + seed % 2, 2, 2, seed)
        own, query = query_of(parts), query_of([wide_part(part, values) for part in parts])
        confirm, problem = (
            Confirm(left, build_problem(own, torch.float64, "cpu")),
            build_problem(query, torch.float64, "cpu"),
        )

        def confirmed(points: Tensor, which: Tensor, problem=problem, confirm=confirm) -> bool:
            box, points = problem.box.select(which), points.reshape(len(which), 11)
            assert ((box.lower <= points) & (points <= box.upper)).all()
            return confirm(points[:, [0, -1]], which)

        with torch.no_grad():
            found = Strategy(task_of(wide, query, confirmed))
            reduced += found.problem.box.shape[1] == 2
            agrees(found.run(), margin_of(left, parts))
    assert reduced
