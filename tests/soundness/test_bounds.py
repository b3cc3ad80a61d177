"""Bounds of whole networks contain the real function: exactly, at sampled points and corners, without tolerance."""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.soundness.exact import ExactGraph, fractions
from tests.soundness.graphs import ACTIVATIONS, FAMILIES, Builder
from verifier.bounding import account, backward, dots, engine, forward, interval, reach
from verifier.bounding.engine import METHODS, Effort, bound_nodes, output_interval
from verifier.bounding.program import Program, prepare
from verifier.bounding.specification import bound_rows
from verifier.core import rounding
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.rounding import gamma
from verifier.core.sums import total_depth
from verifier.ops import Add, Concat, Linear, Relu

DTYPES = {"float32": torch.float32, "float64": torch.float64}
CORNERS = 6
INNER = 3

Values = list[list[list[list[Fraction]]]]
"""By box, point and node: the exact elements."""


def some_boxes(graph: Graph, dtype: torch.dtype, seed: int) -> Interval:
    """Around the origin and off it; degenerate in all inputs or one; large; a few ulps wide around large numbers."""
    generator = np.random.default_rng(seed)
    kind: Any = np.float32 if dtype is torch.float32 else np.float64
    size = graph.nodes[0].size
    lower, upper = [], []
    for center, width in ((0, 1), (0.3, 0.2), (-1, 4), (0.1, 0), (1e3, 0), (1e6, 1e6), (0, 1e6), (0, 1e-7)):
        low = (center + generator.normal(size=size) * max(width, 1e-3)).astype(kind)
        lower.append(low)
        upper.append((low + kind(width) * generator.random(size)).astype(kind))
    upper[0][0] = lower[0][0]
    for center in (1.0, 300.0, 1e6):
        low = (generator.normal(size=size) * center).astype(kind)
        lower.append(low)
        upper.append((low + np.abs(low) * 1e-7).astype(kind))
    box = Interval(torch.from_numpy(np.stack(lower)), torch.from_numpy(np.stack(upper)))
    return Interval(box.lower, torch.maximum(box.lower, box.upper)).reshape(-1, *graph.input_shape)


def points_of(box: Interval, seed: int) -> list[list[list[Fraction]]]:
    """Corners and rational points inside of each box."""
    generator = np.random.default_rng(seed)
    found = []
    for low, high in zip(box.lower.flatten(1), box.upper.flatten(1), strict=True):
        ends = list(zip(fractions(low), fractions(high), strict=True))
        corners = [
            [pair[k] for pair, k in zip(ends, c, strict=True)] for c in generator.integers(0, 2, (CORNERS, len(ends)))
        ]
        inner = [
            [a + (b - a) * Fraction(int(k), 64) for (a, b), k in zip(ends, weights, strict=True)]
            for weights in generator.integers(0, 65, (INNER, len(ends)))
        ]
        found.append(corners + inner)
    return found


def exact_values(graph: Graph, points: list[list[list[Fraction]]]) -> Values:
    exact = ExactGraph(graph)
    return [[exact.values(x) for x in row] for row in points]


def assert_inside(values: list[list[list[Fraction]]], bounds: Interval, what: object) -> None:
    """`values` by box and point: the elements of one node; `bounds` `[boxes, *shape]`."""
    for place, points in enumerate(values):
        low, high = fractions(bounds.lower[place]), fractions(bounds.upper[place])
        for element, value in ((e, v) for point in points for e, v in enumerate(point)):
            assert low[element] <= value <= high[element], (
                f"{what}, box {place}, element {element}: {float(value)!r} not in"
                f" [{float(low[element])!r}, {float(high[element])!r}]"
            )


def of_node(values: Values, position: int) -> list[list[list[Fraction]]]:
    return [[point[position] for point in points] for points in values]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_node_of_a_random_network(family: str, activation: str, dtype: str) -> None:
    graph = FAMILIES[family](activation, seed=sum(map(ord, family + activation)))
    program = prepare(graph, DTYPES[dtype])
    box = some_boxes(graph, DTYPES[dtype], seed=5)
    values = exact_values(graph, points_of(box, seed=6))
    for method in METHODS:
        found = bound_nodes(program, box, method)
        for position, bounds in found.intervals.items():
            assert_inside(of_node(values, position), bounds, (method, str(graph.nodes[position])))
        output = output_interval(program, box, method, Effort())
        assert_inside(of_node(values, graph.output), output, (method, "output"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "abs", "sigmoid"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_over_output_and_input(family: str, activation: str, dtype: str) -> None:
    """The linear form is below the row at every point, not only its minimum below the row's minimum."""
    graph = FAMILIES[family](activation, seed=sum(map(ord, family + activation)))
    program = prepare(graph, DTYPES[dtype])
    box = some_boxes(graph, DTYPES[dtype], seed=7)
    points = points_of(box, seed=8)
    values = exact_values(graph, points)
    generator = torch.Generator().manual_seed(9)
    count, rows = len(box.lower), 4
    start = {
        node: torch.randn(count, rows, *graph.nodes[node].shape, generator=generator).to(DTYPES[dtype])
        for node in (graph.output, 0)
    }
    bias = torch.randn(count, rows, generator=generator).to(DTYPES[dtype])
    found = bound_nodes(program, box, "crown")
    form = bound_rows(program, found, start, bias, Effort())
    minimum = form.minimum(box)
    for place, row in itertools.product(range(count), range(rows)):
        c, d = fractions(start[graph.output][place, row]), fractions(start[0][place, row])
        slopes = fractions(form.coefficients[place, row])
        constant = Fraction(float(form.bias[place, row])) - Fraction(float(form.debt[place, row]))
        for x, value in zip(points[place], values[place], strict=True):
            exact = dot(c, value[graph.output]) + dot(d, x) + Fraction(float(bias[place, row]))
            assert dot(slopes, x) + constant <= exact, (place, row)
            assert Fraction(float(minimum[place, row])) <= exact, (place, row)


def dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))


def cancelling(center: Tensor, seed: int) -> Graph:
    """Large terms that nearly cancel at `center`, in the first layer and in a later difference, so that rounding is far
    above the last digit of the result."""
    b = Builder(1, len(center), seed=seed)
    weight = b.normal(12, len(center))
    weight = weight - (weight @ center).unsqueeze(1) * center / center.square().sum()
    z = b.same(Relu(), b.add(Linear(weight, b.normal(12) * 1e-6), [0], (1, 12)))
    large = b.same(Relu(), b.dense(0, 12))
    weight = b.normal(12, 12)
    first = b.add(Linear(weight, b.normal(12)), [large], (1, 12))
    second = b.add(Linear(weight + b.normal(12, 12) * 1e-6, b.normal(12)), [large], (1, 12))
    difference = b.same(Add((1, -1)), first, second)
    b.add(Concat(1, (12, 6)), [z, b.dense(difference, 6)], (1, 18))
    return b.graph()


def rounding_case(dtype: torch.dtype, seed: int) -> tuple[Program, Interval, list[list[list[Fraction]]]]:
    """A box 1e-7 wide, relative to the numbers in it, or a point: bounds are rounding and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    center = (torch.randn(10, generator=generator) * 300).to(dtype)
    graph = cancelling(center.double(), seed)
    lower = center.expand(4, 1, 10)
    width = lower.abs() * 1e-7 * torch.tensor([0.0, 0.0, 0.5, 1.0]).reshape(4, 1, 1).to(dtype)
    box = Interval(lower, lower + width)
    values = exact_values(graph, points_of(box, seed))
    return prepare(graph, dtype), box, of_node(values, graph.output)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_where_rounding_dominates(method: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound with the error accounting and, so that this test says something, not without it."""
    cases = [rounding_case(DTYPES[dtype], seed) for seed in range(4)]
    for program, box, values in cases:
        assert_inside(values, output_interval(program, box, method, Effort()), method)
    for module in (rounding, interval, forward, account, backward, reach):
        monkeypatch.setattr(module, "gamma", lambda count, dtype: 0.0)
    with pytest.raises(AssertionError, match="not in"):
        for program, box, values in cases:
            assert_inside(values, output_interval(program, box, method, Effort()), method)


def lowest(program: Program, found: engine.NodeBounds, start: Tensor, bias: Tensor, box: Interval) -> Tensor:
    return bound_rows(program, found, {program.graph.output: start}, bias, Effort()).minimum(box)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_backward_pass_alone_where_rounding_dominates(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The debt by itself: node bounds are right, and the backward pass without its gamma is not."""
    failures = 0
    for seed in range(4):
        program, box, values = rounding_case(DTYPES[dtype], seed)
        found = bound_nodes(program, box, "crown")
        size = program.graph.nodes[program.graph.output].size
        start = torch.eye(size, dtype=DTYPES[dtype]).expand(len(box.lower), size, size).unflatten(2, (1, size))
        bias = torch.zeros(len(box.lower), size, dtype=DTYPES[dtype])

        minimum = partial(lowest, program, start=start, bias=bias, box=box)
        sound = minimum(found)
        least = [[[min(point[e] for point in points) for e in range(size)]] for points in values]
        for place, row in enumerate(least):
            assert all(low <= v for low, v in zip(fractions(sound[place]), row[0], strict=True))
        with monkeypatch.context() as patch:
            for module in (rounding, account, backward, reach):
                patch.setattr(module, "gamma", lambda count, dtype: 0.0)
            careless = minimum(engine.NodeBounds(found.intervals, found.planes))  # nothing kept from before
        for place, row in enumerate(least):
            failures += sum(low > v for low, v in zip(fractions(careless[place]), row[0], strict=True))
    assert failures


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_bounds_are_useful(family: str, dtype: str) -> None:
    """On a point all that is left is rounding, and the dearer method is never worse: infinite bounds are sound too."""
    graph = FAMILIES[family]("relu", seed=3)
    program = prepare(graph, DTYPES[dtype])
    point = torch.linspace(-1, 1, graph.nodes[0].size).to(DTYPES[dtype]).reshape(1, *graph.input_shape)
    limit = 1e-4 if dtype == "float32" else 1e-12
    for method in METHODS:
        result = output_interval(program, Interval(point, point), method, Effort())
        assert float((result.upper - result.lower).max()) < limit, method
    wide = Interval(point - 0.5, point + 0.5)
    results = {method: output_interval(program, wide, method, Effort()) for method in METHODS}
    for method in ("forward", "crown"):
        assert float((results[method].upper - results["interval"].upper).max()) <= limit
        assert float((results["interval"].lower - results[method].lower).max()) <= limit


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_child_is_inside_of_its_parent(family: str, method: str) -> None:
    """With what it inherits, at every node and exactly; and still sound."""
    graph = FAMILIES[family]("relu", seed=11)
    program = prepare(graph, torch.float32)
    box = some_boxes(graph, torch.float32, seed=12)
    parent = bound_nodes(program, box, method)
    middle = box.lower / 2 + box.upper / 2
    child_box = Interval(box.lower, torch.maximum(middle, box.lower))
    child = bound_nodes(program, child_box, method, parent.intervals)
    values = exact_values(graph, points_of(child_box, seed=13))
    for position, bounds in child.intervals.items():
        outer = parent.intervals[position]
        assert (bounds.lower >= outer.lower).all() and (bounds.upper <= outer.upper).all()
        assert_inside(of_node(values, position), bounds, method)


@pytest.mark.parametrize("family", FAMILIES)
def test_intervals_shrink_with_the_box(family: str) -> None:
    """Interval arithmetic is inclusion monotone, up to its own rounding."""
    graph = FAMILIES[family]("tanh", seed=14)
    program = prepare(graph, torch.float64)
    box = some_boxes(graph, torch.float64, seed=15)
    middle = box.lower / 2 + box.upper / 2
    parent = output_interval(program, box, "interval", Effort())
    child = output_interval(program, Interval(middle, torch.maximum(middle, box.upper)), "interval", Effort())
    slack = 1e-11 * (1 + parent.magnitude())
    assert (child.lower >= parent.lower - slack).all() and (child.upper <= parent.upper + slack).all()


@pytest.mark.parametrize("memory", [1, 4000, 1 << 20])
def test_blocks_do_not_matter(memory: int) -> None:
    """However the rows are cut into blocks, every element gets its bounds."""
    graph = FAMILIES["joined"]("relu", seed=16)
    program = prepare(graph, torch.float32)
    box = some_boxes(graph, torch.float32, seed=17).select(slice(0, 4))  # one size: they share a rounding debt
    values = exact_values(graph, points_of(box, seed=18))
    small = output_interval(program, box, "crown", Effort(memory=memory))
    assert_inside(of_node(values, graph.output), small, memory)
    whole = output_interval(program, box, "crown", Effort())
    size = 1 + whole.magnitude()
    assert ((small.lower - whole.lower).abs() <= 1e-3 * size).all()
    assert ((small.upper - whole.upper).abs() <= 1e-3 * size).all()


def test_a_late_deadline_only_loosens() -> None:
    graph = FAMILIES["dense"]("relu", seed=19)
    program = prepare(graph, torch.float32)
    box = some_boxes(graph, torch.float32, seed=20)
    values = exact_values(graph, points_of(box, seed=21))
    result = output_interval(program, box, "crown", Effort(deadline=0.0))
    assert_inside(of_node(values, graph.output), result, "deadline in the past")


def test_copies_of_a_number_have_its_bounds() -> None:
    """And these are as good as if each copy had been bounded by itself."""
    program = prepare(FAMILIES["attention"]("relu", seed=2), torch.float64)
    center = torch.randn(3, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    box = Interval(center - 0.4, center + 0.4)
    found = bound_nodes(program, box, "crown")
    shared = 0
    for position, node in enumerate(program.graph.nodes):
        origin = program.origins[position]
        if origin == position:
            continue
        assert isinstance(node.op, Affine) and program.moves_to(position)[-1] == position
        assert set(map(tuple, zip(*ends(found.intervals[position]), strict=True))) <= set(
            map(tuple, zip(*ends(found.intervals[origin]), strict=True))
        )
        shared += 1
        if program.bent[position] and position in program.splittable:
            start = torch.eye(node.size, dtype=torch.float64).expand(3, node.size, node.size)
            start = start.unflatten(2, node.shape)
            own = bound_rows(program, found, {position: start}, start.new_zeros(3, node.size), Effort()).minimum(box)
            assert (flat(found.intervals[position].lower) >= own - 1e-9).all()
    assert shared > 5


def ends(box: Interval) -> tuple[list[float], list[float]]:
    return box.lower[0].flatten().tolist(), box.upper[0].flatten().tolist()


def test_sums_in_parts_err_no_more_than_their_terms_say() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (5, 1024, 1025, 5000):
        rows, vector = (torch.randn(1, 2, size, generator=generator).abs() for _ in range(2))
        for given in (vector[:, 0], vector):
            sums = dots.times(rows, given)
            for spec in range(2):
                own = fractions(given[0] if given.ndim == 2 else given[0, spec])
                exact = dot(fractions(rows[0, spec]), own)
                error = abs(Fraction(float(sums[0, spec])) - exact)
                assert error <= Fraction(gamma(total_depth(size), torch.float32)) * exact


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_integers_are_exact_and_others_are_rounded_outward(dtype: str) -> None:
    generator, signs = torch.Generator().manual_seed(0), (1, -1, 1)
    most = 2.0 / torch.finfo(DTYPES[dtype]).eps
    whole = torch.randint(-1000, 1000, (3, 1, 200), generator=generator).to(DTYPES[dtype])
    large = (torch.rand(3, 1, 200, generator=generator).to(DTYPES[dtype]) * most).round()
    fraction = torch.randn(3, 1, 200, generator=generator).to(DTYPES[dtype])
    for values, exact in ((whole, True), (large, False), (fraction, False)):
        found = interval.sum_interval(Add(signs), tuple(Interval(x, x + 1) for x in values))
        rows = zip(*(fractions(x) for x in values), *(fractions(x + 1) for x in values), strict=True)
        for place, (a, b, c, above_a, above_b, above_c) in enumerate(rows):
            low, high = Fraction(found.lower[0, place].item()), Fraction(found.upper[0, place].item())
            assert low <= a - above_b + c and above_a - b + above_c <= high
            assert not exact or (low, high) == (a - above_b + c, above_a - b + above_c)
