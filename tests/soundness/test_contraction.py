"""Products of variable matrices crossed in one step, and rows that meet in some elements of a node."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.soundness.exact import ExactGraph, fractions
from tests.soundness.graphs import FAMILIES, Builder
from tests.soundness.test_bounds import DTYPES, assert_inside, dot, exact_values, of_node, points_of, some_boxes
from verifier.bounding import account, backward, contraction, reach
from verifier.bounding.backward import LinearForm
from verifier.bounding.contraction import Contracted, contraction_at
from verifier.bounding.engine import bound_nodes
from verifier.bounding.program import Program, prepare
from verifier.core import rounding
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.ops import Add, Concat, Crop, Linear, Multiply, Permute, Relu, Reshape, Select, Sum

GROUPS, M, N, K = 2, 9, 8, 4


def sums(b: Builder, sources: tuple[int, int], copies: Sequence[Tensor]) -> int:
    """Products of elements of two nodes, `copies` of these `[g, m, n, k]`, added up over k."""
    shape = (GROUPS, M, N, K)
    pairs = zip(copies, sources, strict=True)
    moved = [b.add(Select(copy, b.nodes[source].shape), [source], shape) for copy, source in pairs]
    return b.add(Sum((3,), shape), [b.same(Multiply(), *moved)], (GROUPS, M, N, 1))


def in_order() -> tuple[Tensor, Tensor]:
    """The elements of x `[g, m, k]` and y `[g, n, k]` for all products."""
    shape = (GROUPS, M, N, K)
    x, y = torch.arange(GROUPS * M * K).reshape(GROUPS, M, 1, K), torch.arange(GROUPS * N * K).reshape(GROUPS, 1, N, K)
    return x.expand(shape), y.expand(shape)


def of_matrices(seed: int, spoiled: bool = False) -> Graph:
    """Products of matrices whose elements are in any order, some of them more than once, and a Relu of combinations of
    these. `spoiled`: one copy is of another element."""
    b = Builder(1, 3, seed=seed)
    x, y = b.same(Relu(), b.dense(0, GROUPS * M * K - 5)), b.dense(0, GROUPS * N * K)
    first = torch.randint(0, GROUPS * M * K - 5, (GROUPS, M, 1, K), generator=b.generator)
    second = torch.randperm(GROUPS * N * K, generator=b.generator).reshape(GROUPS, 1, N, K)
    copies = [index.expand(GROUPS, M, N, K).clone() for index in (first, second)]
    if spoiled:
        copies[1][1, 3, 2, 1] = (copies[1][1, 3, 2, 1] + 1) % (GROUPS * N * K)
    total = sums(b, (x, y), copies)
    flat = b.add(Reshape((GROUPS, M, N, 1), (1, GROUPS * M * N)), [total], (1, GROUPS * M * N))
    b.same(Relu(), b.dense(flat, 5))
    return b.graph()


def sums_of(graph: Graph) -> int:
    (position,) = (k for k, node in enumerate(graph.nodes) if isinstance(node.op, Sum))
    return position


def form_of(program: Program, box: Interval, start: Tensor, node: int, found: backward.NodeBounds) -> LinearForm:
    return backward.backward(program, {node: start}, start.new_zeros(start.shape[:2]), found)


def assert_below(form: LinearForm, start: Tensor, values: list[list[list[Fraction]]], points: list) -> None:
    """The form, what the rows `start` make of a node's exact `values`, by box and point."""
    for place, row in itertools.product(range(start.shape[0]), range(start.shape[1])):
        slopes, weights = fractions(form.coefficients[place, row]), fractions(start[place, row])
        constant = Fraction(float(form.bias[place, row])) - Fraction(float(form.debt[place, row]))
        for x, value in zip(points[place], values[place], strict=True):
            assert dot(slopes, x) + constant <= dot(weights, value), "not below"


def test_a_contraction_is_what_the_graph_computes() -> None:
    graph = of_matrices(seed=1)
    position = sums_of(graph)
    found = contraction_at(graph, position)
    assert found is not None and found.summed == K
    values = graph.evaluate_all(torch.randn(5, 3, dtype=torch.float64))
    x, y = (move.linear(values[source]) for source, move in zip(found.sources, found.moves, strict=True))
    torch.testing.assert_close(values[position], torch.einsum("bgmk,bgnk->bgmn", x, y).unsqueeze(4))
    assert [contraction_at(graph, other) for other in range(len(graph.nodes)) if other != position] == [None] * (
        len(graph.nodes) - 1
    )


def test_one_other_copy_is_no_contraction() -> None:
    graph = of_matrices(seed=1, spoiled=True)
    assert contraction_at(graph, sums_of(graph)) is None


def test_few_copies_are_no_contraction() -> None:
    graph = FAMILIES["attention"]("relu", seed=2)
    assert not prepare(graph, torch.float64).contractions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "abs"])
def test_attention_by_contractions(activation: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node of a small attention network, at corners and inner points, exactly."""
    monkeypatch.setattr(contraction, "WORTH", 0)
    graph = FAMILIES["attention"](activation, seed=3)
    program = prepare(graph, DTYPES[dtype])
    assert len(program.contractions) == 2
    box = some_boxes(graph, DTYPES[dtype], seed=5)
    values = exact_values(graph, points_of(box, seed=6))
    found = bound_nodes(program, box, "crown")
    assert len(found.contracted) == 2
    for position, bounds in found.intervals.items():
        assert_inside(of_node(values, position), bounds, str(graph.nodes[position]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_over_sums_are_bounded_everywhere(dtype: str) -> None:
    """The linear form is below the rows at points of all kinds of boxes, and of some of the boxes alone."""
    graph = of_matrices(seed=4)
    program, position = prepare(graph, DTYPES[dtype]), sums_of(graph)
    box = some_boxes(graph, DTYPES[dtype], seed=7)
    points = points_of(box, seed=8)
    exact = ExactGraph(graph)
    values = [[exact.values(x)[position] for x in row] for row in points]
    generator = torch.Generator().manual_seed(9)
    start = torch.randn(len(box.lower), 2, *graph.nodes[position].shape, generator=generator).to(DTYPES[dtype])
    found = bound_nodes(program, box, "crown")
    assert_below(form_of(program, box, start, position, found), start, values, points)
    some = torch.tensor([5, 1, 8])
    part = form_of(program, box.select(some), start[some], position, found.select(some))
    assert_below(part, start[some], [values[k] for k in some], [points[k] for k in some])


def test_as_tight_as_products_of_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = of_matrices(seed=5)
    center = torch.randn(3, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    box = Interval(center - 0.3, center + 0.3)
    short = bound_nodes(prepare(graph, torch.float64), box, "crown")
    monkeypatch.setattr(contraction, "WORTH", torch.inf)
    long = bound_nodes(prepare(graph, torch.float64), box, "crown")
    assert short.contracted and not long.contracted
    for position, bounds in long.intervals.items():
        torch.testing.assert_close(short.intervals[position].lower, bounds.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(short.intervals[position].upper, bounds.upper, rtol=1e-9, atol=1e-9)


def of_inputs() -> Graph:
    """Products of two matrices that are parts of the input: x, then y."""
    b = Builder(1, GROUPS * (M + N) * K)
    first, second = in_order()
    sums(b, (0, 0), (first, second + GROUPS * M * K))
    return b.graph()


def nearly_points(lower: Tensor) -> Interval:
    """Boxes `[4, ...]` that are points or a few roundings wide."""
    width = lower.abs() * 1e-7 * torch.tensor([0.0, 0.0, 0.5, 1.0]).to(lower).reshape(4, *(1,) * (lower.ndim - 1))
    return Interval(lower, lower + width)


def wrong(form: LinearForm, start: Tensor, values: list[list[list[Fraction]]], box: Interval) -> int:
    """How many lower bounds of rows are above some value."""
    low, count = form.minimum(box), 0
    for place, row in itertools.product(*map(range, start.shape[:2])):
        weights = fractions(start[place, row])
        count += Fraction(float(low[place, row])) > min(dot(weights, value) for value in values[place])
    return count


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_whose_terms_cancel(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of x and y are multiples of one, and what the rows over z make of them is nearly 0: what is left is what
    crossing the products has lost, and it is accounted for. (Sums of products of integers, z itself, lose nothing.)"""
    monkeypatch.setattr(contraction, "roundoff", lambda size, count: torch.zeros_like(size))
    graph, kind = of_inputs(), DTYPES[dtype]
    program, generator = prepare(graph, kind), torch.Generator().manual_seed(3)
    integers = lambda *shape: torch.randint(1, 30, shape, generator=generator).double()  # noqa: E731
    down, along = integers(4, GROUPS, M, 1), integers(4, GROUPS, N, 1)
    x, y = down * integers(4, GROUPS, 1, K), along * integers(4, GROUPS, 1, K)
    point = torch.cat([x.flatten(1), y.flatten(1)], 1).unsqueeze(1).to(kind)
    rows = torch.randn(4, 6, GROUPS, M, N, dtype=torch.float64, generator=generator)
    rows = without(without(rows, down, 3), along.transpose(2, 3), 4)
    start = rows.unsqueeze(5).to(kind)
    box, exact = Interval(point, point), ExactGraph(graph)
    values = [[exact.values(fractions(own))[graph.output]] for own in point]
    found = bound_nodes(program, box, "crown")
    assert graph.output in found.contracted
    assert not wrong(form_of(program, box, start, graph.output, found), start, values, box)
    for module in (rounding, backward, account):
        monkeypatch.setattr(module, "gamma", lambda count, dtype: 0.0)
    assert wrong(form_of(program, box, start, graph.output, found), start, values, box)


@pytest.mark.parametrize("dtype", DTYPES)
def test_coefficients_that_cancel_over_a_wide_box(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """x is between -1 and 1, and y a point: rows over z are rows over x, and there are no constant terms at all."""
    graph, kind = of_inputs(), DTYPES[dtype]
    program, generator = prepare(graph, kind), torch.Generator().manual_seed(3)
    along = torch.randint(1, 30, (4, GROUPS, N, 1), generator=generator).double()
    y = (along * torch.randn(4, GROUPS, 1, K, dtype=torch.float64, generator=generator)).to(kind)
    ones, point = torch.ones(4, GROUPS * M * K, dtype=kind), y.flatten(1)
    box = Interval(torch.cat([-ones, point], 1).unsqueeze(1), torch.cat([ones, point], 1).unsqueeze(1))
    rows = torch.randn(4, 36, GROUPS, M, N, dtype=torch.float64, generator=generator)
    rows = rows * torch.eye(GROUPS * M, dtype=torch.float64).repeat(2, 1).reshape(36, GROUPS, M, 1)  # of one m each
    start = without(rows, along.transpose(2, 3), 4).unsqueeze(5).to(kind)
    found = bound_nodes(program, box, "crown")

    def failures() -> int:
        low = form_of(program, box, start, graph.output, found).minimum(box)
        return sum(
            Fraction(float(low[place, row])) > least_over_cube(start[place, row], y[place])
            for place, row in itertools.product(range(4), range(36))
        )

    assert not failures()
    for module in (rounding, backward, account):
        monkeypatch.setattr(module, "gamma", lambda count, dtype: 0.0)
    assert failures()


def least_over_cube(row: Tensor, y: Tensor) -> Fraction:
    """Of  sum_gmn a_gmn sum_k x_gmk y_gnk  over all x between -1 and 1."""
    total = Fraction(0)
    for g, m, k in itertools.product(range(GROUPS), range(M), range(K)):
        total -= abs(dot(fractions(row[g, m]), fractions(y[g, :, k])))
    return total


def without(rows: Tensor, direction: Tensor, axis: int) -> Tensor:
    """What is left of rows `[4, spec, g, m, n]` without their part along `[4, g, ...]` directions of one axis."""
    direction = direction.unsqueeze(1)
    return rows - (rows * direction).sum(axis, keepdim=True) * direction / direction.square().sum(axis, keepdim=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_within_the_planes(dtype: str) -> None:
    """Exactly, also where there is nothing but rounding between these, which is more than nothing."""
    graph, kind = of_inputs(), DTYPES[dtype]
    program, generator = prepare(graph, kind), torch.Generator().manual_seed(3)
    wide = torch.randn(4, 1, GROUPS * (M + N) * K, generator=generator, dtype=torch.float64).to(kind)
    for box in (nearly_points(wide * 300), Interval(wide, wide + 0.4), nearly_points(wide * 1e-22)):
        points = points_of(box, 5)
        exact = ExactGraph(graph)
        values = [[exact.values(point)[graph.output] for point in own] for own in points]
        known = bound_nodes(program, box, "crown").contracted[graph.output]
        assert not beyond(known, points, values)
        assert beyond(replace(known, half=torch.zeros_like(known.half)), points[:1], values)


def beyond(known: Contracted, points: list[list[list[Fraction]]], values: list[list[list[Fraction]]]) -> int:
    """How many sums of products of two parts of the input are not between their planes."""
    count = 0
    for place, own in enumerate(points):
        p, q = (fractions(part[place]) for part in (known.p, known.q))
        middle, half = (fractions(part[place]) for part in (known.middle, known.half))
        for point, z in zip(own, values[place], strict=True):
            x, y = point[: GROUPS * M * K], point[GROUPS * M * K :]
            for e, (g, m, n) in enumerate(itertools.product(range(GROUPS), range(M), range(N))):
                i, j = (g * M + m) * K, (g * N + n) * K
                plane = dot(q[j : j + K], x[i : i + K]) + dot(p[i : i + K], y[j : j + K]) + middle[e]
                count += abs(z[e] - plane) > half[e]
    return count


def test_coefficients_that_underflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of 1e-22 over products of 1e-22 and 1e30: its coefficients lose most of their digits."""
    generator = torch.Generator().manual_seed(8)
    b = Builder(1, 2, seed=7)
    x = b.add(Linear(b.normal(GROUPS * M * K, 2), b.normal(GROUPS * M * K)), [0], (1, GROUPS * M * K))
    y = b.add(Linear(b.normal(GROUPS * N * K, 2) * 1e-22, b.normal(GROUPS * N * K) * 1e-22), [0], (1, GROUPS * N * K))
    x = b.add(Linear(torch.eye(GROUPS * M * K, dtype=torch.float64) * 1e30), [x], (1, GROUPS * M * K))
    sums(b, (x, y), in_order())
    graph = b.graph()
    lower = torch.randn(6, 1, 2, generator=generator)
    box = Interval(lower, lower + 0.1 * torch.rand(6, 1, 2, generator=generator))
    points, exact = points_of(box, 3), ExactGraph(graph)
    values = [[exact.values(x)[graph.output] for x in row] for row in points]
    start = 1e-22 * torch.randn(6, 5, GROUPS, M, N, 1, generator=generator)
    program = prepare(graph, torch.float32)
    assert program.contractions
    found = bound_nodes(program, box, "crown")
    assert_below(form_of(program, box, start, graph.output, found), start, values, points)
    monkeypatch.setattr(reach.Reach, "underflow", lambda self, program, position: torch.zeros(()))
    monkeypatch.setattr(rounding, "tiny", lambda dtype: 0.0)
    with pytest.raises(AssertionError, match="not below"):
        assert_below(form_of(program, box, start, graph.output, found), start, values, points)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_meet_in_some_elements(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large coefficients that come from several selections of the input cancel, which small ones do not survive."""
    b, kind, generator = Builder(1, 12), DTYPES[dtype], torch.Generator().manual_seed(4)
    indices = [[0, 3, 6, 9], [3, 1, 0], [6, 11, 9, 0, 3, 1], [1, 11]]
    nodes = [b.add(Select(torch.tensor([index]), (1, 12)), [0], (1, len(index))) for index in indices]
    graph = b.graph()
    assert all(graph.nodes[node].op.columns is not None for node in nodes)  # type: ignore[attr-defined]
    program = prepare(graph, kind)
    box = nearly_points((torch.randn(4, 1, 12, generator=generator) * 300).to(kind))
    rows, left = [], torch.zeros(4, 5, 12, dtype=kind)
    for number, index in enumerate(indices):
        own = torch.randn(4, 5, len(index), generator=generator, dtype=kind)
        last = torch.tensor([all(i not in other for other in indices[number + 1 :]) for i in index])
        own = torch.where(last, -left[..., index] + 1e-4 * own, own)
        left[..., index] += own
        rows.append(own)
    start = {node: own.unsqueeze(2) for node, own in zip(nodes, rows, strict=True)}
    every = torch.cat(rows, 2)
    values = [[[point[i] for index in indices for i in index] for point in own] for own in points_of(box, 5)]
    found = bound_nodes(program, box, "interval")

    def failures() -> int:
        form = backward.backward(program, start, every.new_zeros(4, 5), found)
        return wrong(form, every, values, box)

    assert not failures()
    for module in (rounding, backward):
        monkeypatch.setattr(module, "gamma", lambda count, dtype: 0.0)
    assert failures()


def moving(seed: int) -> Graph:
    """Nodes of three axes that are read in many ways at once: permuted, reshaped, added up, cut, a few elements."""
    b, draw = Builder(1, 2, 3, 4, seed=seed), random.Random(seed)
    nodes = [0]
    for _ in range(draw.randint(4, 12)):
        source = draw.choice(nodes[:4])
        shape = b.nodes[source].shape
        kind = draw.choice(["permute", "reshape", "select", "add", "bend", "sum", "concat", "repeat"])
        if kind == "permute":
            axes = (0, *draw.sample([1, 2, 3], 3))
            nodes.append(b.add(Permute(axes), [source], tuple(shape[axis] for axis in axes)))
        elif kind == "reshape":
            moved = (1, *draw.sample(shape[1:], 3))
            nodes.append(b.add(Reshape(shape, moved), [source], moved))
        elif kind == "add":
            nodes.append(b.same(Add((1, -1)), source, draw.choice([k for k in nodes if b.nodes[k].shape == shape])))
        elif kind == "bend":
            nodes.append(b.same(Relu(), source))
        elif kind == "concat":
            twice = (1, 2 * shape[1], *shape[2:])
            whole = b.add(Concat(1, (shape[1], shape[1])), [source, source], twice)
            nodes.append(b.add(Crop((0, 1, 0, 0), shape, twice), [whole], shape))
        elif kind == "sum":
            total = b.add(Sum((2,), shape), [source], (1, shape[1], 1, shape[3]))
            back = torch.arange(shape[1] * shape[3]).reshape(1, shape[1], 1, shape[3]).expand(shape)
            nodes.append(b.add(Select(back, (1, shape[1], 1, shape[3])), [total], shape))
        else:
            size = math.prod(shape)
            index = torch.tensor(draw.sample(range(size), size // 4) * (4 if kind == "repeat" else 1))
            few = b.add(Select(index, shape), [source], tuple(index.shape))
            grown = b.add(Linear(b.normal(size, len(index))), [few], (size,))
            nodes.append(b.add(Reshape((size,), shape), [grown], shape))
    read = {source for node in b.nodes for source in node.inputs}
    flat = [b.add(Reshape(b.nodes[k].shape, (1, 24)), [k], (1, 24)) for k in nodes if k not in read]
    b.same(Add((1,) * len(flat)), *(b.dense(k, 3) for k in flat))
    return b.graph()


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_a_point_bounds_are_the_value(dtype: str) -> None:
    """Whatever way the rows take through memory: none of their coefficients may be lost, or counted twice."""
    kind = DTYPES[dtype]
    some = 0
    for seed in range(150):
        graph = moving(seed)
        some += sum(node.op.columns is not None for node in graph.nodes if isinstance(node.op, Affine))
        program = prepare(graph, kind)
        point = torch.randn(2, *graph.input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        box = Interval(point.to(kind), point.to(kind))
        value = graph.evaluate(box.lower.double())[:, 0]
        start = torch.eye(3, dtype=kind).reshape(1, 3, 1, 3).expand(2, 3, 1, 3)
        low = form_of(program, box, start, graph.output, bound_nodes(program, box, "interval")).minimum(box)
        scale = 1 + value.abs().max()
        assert bool((low <= value).all()), seed
        assert bool((low >= value - scale * (1e-9 if kind is torch.float64 else 0.1)).all()), seed
    assert some > 100


def test_what_others_read_is_left_alone() -> None:
    """Rows that are sent to two places at once are in the same memory: one of them gets columns added, not both."""
    b = Builder(1, 3, seed=1)
    x, y = b.dense(0, 6), b.dense(0, 6)
    column = b.add(Select(torch.tensor([[0, 4]]), (1, 6)), [x], (1, 2))
    whole = b.same(Add((1, 1)), x, y)
    b.same(Add((1, 1)), b.dense(column, 4), b.dense(whole, 4))
    graph = b.graph()
    program = prepare(graph, torch.float64)
    point = torch.randn(5, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    box = Interval(point, point)
    start = torch.eye(4, dtype=torch.float64).reshape(1, 4, 1, 4).expand(5, 4, 1, 4)
    low = form_of(program, box, start, graph.output, bound_nodes(program, box, "interval")).minimum(box)
    torch.testing.assert_close(low, graph.evaluate(point)[:, 0], rtol=1e-9, atol=1e-9)
