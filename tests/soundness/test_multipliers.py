"""Bounds with any slopes, multipliers and weights hold exactly, at points that satisfy the neurons' bounds."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.soundness.exact import fractions
from tests.soundness.graphs import ACTIVATIONS, FAMILIES
from tests.soundness.test_bounds import DTYPES, Values, cancelling, dot, exact_values, points_of, some_boxes
from tests.soundness.test_elementwise import ONE_ARGUMENT, Checker, points_in
from tests.soundness.test_elementwise import some_boxes as some_intervals
from verifier.bounding import account, backward, optimise, reach
from verifier.bounding.dual import Multipliers, Objective
from verifier.bounding.engine import bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import certain_bound, initial_multipliers
from verifier.bounding.program import Program, prepare
from verifier.bounding.undecided import Reader, Undecided, undecided_elements
from verifier.core import rounding
from verifier.core.adjustable import Adjustable, Sloped
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.rounding import narrow_down, narrow_up
from verifier.ops import Relu

KEPT = 3  # points of each box that the tightened bounds keep
HUGE_SHARE = 0.1  # of the multipliers that are far too large


def rational_ends(values: list[list[Fraction]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Least and greatest of each element, outward. (A double is within half an ulp of a rational.)"""
    low = torch.tensor([float(min(column)) for column in zip(*values, strict=True)], dtype=torch.float64)
    high = torch.tensor([float(max(column)) for column in zip(*values, strict=True)], dtype=torch.float64)
    low, high = (torch.nextafter(end, torch.full_like(end, far)) for end, far in ((low, -np.inf), (high, np.inf)))
    return narrow_down(low, dtype), narrow_up(high, dtype)


def split_bounds(program: Program, box: Interval, values: Values, generator: torch.Generator) -> NodeBounds:
    """Bounds of the nodes as after many splits: one end of half of the neurons is as tight as the first `KEPT` points
    of each box allow."""
    found = bound_nodes(program, box, "crown")
    intervals = dict(found.intervals)
    for source in program.splittable:
        old = intervals[source]
        ends = [rational_ends([point[source] for point in points[:KEPT]], program.dtype) for points in values]
        low, high = (torch.stack([end[side] for end in ends]).reshape(old.shape) for side in (0, 1))
        side = torch.randint(4, old.shape, generator=generator)
        lower = torch.where(side == 0, torch.maximum(low, old.lower), old.lower)
        upper = torch.where(side == 1, torch.minimum(high, old.upper), old.upper)
        intervals[source] = Interval(lower, upper)
    return with_planes(program, intervals)


def with_planes(program: Program, intervals: dict[int, Interval]) -> NodeBounds:
    planes = {}
    for position, node in enumerate(program.graph.nodes):
        if isinstance(node.op, Elementwise):
            planes[position] = node.op.relax(*(intervals[source] for source in node.inputs))
    return NodeBounds(intervals, planes)


def some_objective(program: Program, count: int, combined: int, generator: torch.Generator) -> Objective:
    graph, dtype = program.graph, program.dtype
    rows = {
        node: torch.randn(count, combined, *graph.nodes[node].shape, generator=generator).to(dtype)
        for node in (graph.output, 0)
    }
    return Objective(rows, torch.randn(count, combined, generator=generator).to(dtype))


def all_elements(program: Program, found: NodeBounds) -> Undecided:
    """As if nothing were decided: multipliers of any elements are valid."""
    readers, index = {}, {}
    for position in found.planes:
        node = program.graph.nodes[position]
        assert isinstance(node.op, Elementwise)
        every, unused = torch.arange(node.size), tuple(torch.zeros(1, node.size) for _ in node.inputs)
        readers[position] = Reader(node.op.elements(every, node.shape), node.inputs, every, node.size, unused, None)
        index.update(dict.fromkeys(node.inputs, every))
    return Undecided(program, readers, index)


def wild_multipliers(
    undecided: Undecided, found: NodeBounds, objective: Objective, generator: torch.Generator
) -> Multipliers:
    """Parameters anywhere in their ranges and, but for a Relu, beyond; multipliers of either sign, a few of them huge;
    weights that add up to anything."""
    neurons = undecided.neurons(found)
    start = initial_multipliers(undecided, neurons, objective, bounded=True)
    for group, side in ((start.lower, 0), (start.upper, 1)):
        for position, value in group.items():
            reader = undecided.readers[position]
            op = reader.op
            assert isinstance(op, Adjustable)
            span = op.ranges(*(neurons[source] for source in reader.sources))[side]
            assert span is not None
            share = torch.rand(value.shape, generator=generator).to(value.dtype)
            if not isinstance(op, Relu):
                share = share * 1.5 - 0.25
            value.copy_(span.lower + share * (span.upper - span.lower))
            if isinstance(op, Relu):
                value.clamp_(0, 1)
    for value in start.bounds.values():
        size = torch.where(torch.rand(value.shape, generator=generator) < HUGE_SHARE, 1e4, 0.5)
        size = size * (torch.rand(value.shape, generator=generator) < 0.7)
        value.copy_(torch.randn(value.shape, generator=generator) * size)
    start.weights.copy_(torch.rand(start.weights.shape, generator=generator) * 2)
    return start


def check(program: Program, box: Interval, values: Values, points: list[list[list[Fraction]]], seed: int) -> int:
    """Compares at the points that satisfy the bounds; how many did."""
    generator = torch.Generator().manual_seed(seed)
    found = split_bounds(program, box, values, generator)
    compared = 0
    for combined in (1, 3):
        objective = some_objective(program, len(box.lower), combined, generator)
        undecided = all_elements(program, found) if combined == 1 else undecided_elements(program, found)
        free = wild_multipliers(undecided, found, objective, generator)
        form = certain_bound(program, box, found, undecided.index, objective, free)
        minimum = form.minimum(box)
        for place in range(len(box.lower)):
            ends = {s: [fractions(e[place]) for e in (i.lower, i.upper)] for s, i in found.intervals.items()}
            usable = form.debt[place].isfinite().all() and form.bias[place].isfinite().all()
            for x, value in zip(points[place], values[place], strict=True):
                if not all(inside(value[source], *ends[source]) for source in program.splittable):
                    continue
                exact = margin(objective, free.weights, place, value)
                what = (place, float(exact), float(minimum[place, 0]))
                compared += 1
                if minimum[place, 0].isfinite():
                    assert Fraction(float(minimum[place, 0])) <= exact, what
                assert minimum[place, 0] < torch.inf
                if usable and form.coefficients[place].isfinite().all():
                    constant = Fraction(float(form.bias[place, 0])) - Fraction(float(form.debt[place, 0]))
                    assert dot(fractions(form.coefficients[place, 0]), x) + constant <= exact, what
    return compared


def inside(value: list[Fraction], lower: list[Fraction], upper: list[Fraction]) -> bool:
    return all(low <= v <= high for low, v, high in zip(lower, value, upper, strict=True))


def margin(objective: Objective, weights: Tensor, place: int, value: list[list[Fraction]]) -> Fraction:
    total = Fraction(0)
    for row in range(objective.offset.shape[1]):
        weight = Fraction(1) if objective.offset.shape[1] == 1 else Fraction(float(weights[place, row]))
        parts = [dot(fractions(rows[place, row]), value[node]) for node, rows in objective.rows.items()]
        total += weight * (sum(parts, Fraction(0)) + Fraction(float(objective.offset[place, row])))
    return total


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_any_multipliers(family: str, activation: str, dtype: str) -> None:
    graph = FAMILIES[family](activation, seed=sum(map(ord, family + activation)))
    program = prepare(graph, DTYPES[dtype])
    box = some_boxes(graph, DTYPES[dtype], seed=5)
    points = [each[:KEPT] + each[-2:] for each in points_of(box, seed=6)]
    compared = check(program, box, exact_values(graph, points), points, seed=7)
    assert compared >= 2 * KEPT * len(box.lower), "every kept point satisfies the bounds"


def rounding_case(dtype: torch.dtype, seed: int) -> tuple[Graph, Interval]:
    center = (torch.randn(10, generator=torch.Generator().manual_seed(seed)) * 300).to(dtype)
    lower = center.expand(2, 1, 10)
    return cancelling(center.double(), seed), Interval(lower, lower + lower.abs() * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_rounding_dominates(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound with the error accounting and, in single precision, not without it. (In double precision, what else is
    rounded outward is as large.)"""
    failures = 0
    for seed in range(12):
        graph, box = rounding_case(DTYPES[dtype], seed)
        program = prepare(graph, DTYPES[dtype])
        points = [each[:KEPT] for each in points_of(box, seed)]
        values = exact_values(graph, points)
        assert check(program, box, values, points, seed)
        with monkeypatch.context() as patch:
            for module in (rounding, account, backward, optimise, reach):
                patch.setattr(module, "gamma", lambda count, dtype: 0.0)
            try:
                check(program, box, values, points, seed)
            except AssertionError:
                failures += 1
    assert failures or dtype == "float64"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_charge_alone_where_rounding_dominates(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipliers near 1e6 on an affine network's hidden values: nothing but the charges' own rounding."""
    program = prepare(FAMILIES["dense"]("relu", seed=1), DTYPES[dtype])
    box = Interval(torch.ones(1, 1, 3).to(DTYPES[dtype]), torch.ones(1, 1, 3).to(DTYPES[dtype]))
    points = [[[Fraction(1)] * 3]]
    ((value,),) = exact_values(FAMILIES["dense"]("relu", seed=1), points)
    found = bound_nodes(program, box, "crown")
    count = 200
    generator = torch.Generator().manual_seed(2)
    objective = some_objective(program, count, 1, generator)
    undecided = all_elements(program, found)
    free = initial_multipliers(undecided, undecided.neurons(found), objective, bounded=True)
    for multiplier in free.bounds.values():
        multiplier.copy_(torch.randn(multiplier.shape, generator=generator) * 1e6)

    def wrong() -> int:
        bound = certain_bound(program, box, found, undecided.index, objective, free).minimum(box)[:, 0]
        exact = [margin(objective, free.weights, place, value) for place in range(count)]
        return sum(Fraction(float(b)) > e for b, e in zip(bound, exact, strict=True))

    assert wrong() == 0
    for module, name in (
        (rounding, "gamma"),
        (account, "gamma"),
        (backward, "gamma"),
        (backward, "unit"),
        (reach, "gamma"),
    ):
        monkeypatch.setattr(module, name, lambda *_: 0.0)
    # tightening the hidden bounds to their exact values leaves a charge no room but its rounding
    for source in program.splittable:
        low, high = rational_ends([value[source]], DTYPES[dtype])
        found.intervals[source] = Interval(low.reshape(1, 1, -1), high.reshape(1, 1, -1))
    found = NodeBounds(found.intervals, found.planes)  # nothing kept from before
    assert wrong() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_lines_of_any_slope(name: str, dtype: str) -> None:
    """Several for each box `[batch, spec]`: within the range worth trying and, but for a Relu's, far outside of it."""
    op, box = ONE_ARGUMENT[name], some_intervals(DTYPES[dtype], seed=9)
    box = box.select(torch.arange(0, len(box.lower), 6))
    checker = Checker(op, (box,))
    cast = op.to(DTYPES[dtype], "cpu")
    assert isinstance(cast, Sloped)
    wide = Interval(box.lower.unsqueeze(1), box.upper.unsqueeze(1))
    generator = torch.Generator().manual_seed(len(name))
    below, above = cast.slope_ranges(wide)
    share = torch.tensor([0.0, 1.0, 0.3, 0.9]).to(DTYPES[dtype])
    far = torch.randn(len(box.lower), 3, generator=generator).to(DTYPES[dtype]) * torch.tensor([1.0, 30.0, 1e10])
    far = far.to(DTYPES[dtype])
    sides = [(below, cast.lower_line, -1)] + ([] if above is None else [(above, cast.upper_line, +1)])
    points = points_in((box,), op, seed=3)
    for span, line, side in sides:
        slopes = span.lower + share * (span.upper - span.lower)
        slopes = slopes.clamp(0, 1) if isinstance(op, Relu) else torch.cat([slopes, far], 1)
        intercepts = line(wide, slopes).intercept.expand_as(slopes)
        for place, spec in itertools.product(range(len(box.lower)), range(slopes.shape[1])):
            slope, intercept = float(slopes[place, spec]), float(intercepts[place, spec])
            if not np.isfinite([slope, intercept]).all():
                assert intercept != -side * np.inf, (place, slope)
                continue
            checker.lines = lambda _, a=slope, t=intercept, s=side: [("line", s, [Fraction(a)], Fraction(t))]  # type: ignore
            checker.check([points[place]])
