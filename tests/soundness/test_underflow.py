"""Coefficients that underflow on the way back, and multiply huge values: errors that are not relative to anything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward
from verifier.bounding.dual import Objective
from verifier.bounding.engine import METHODS, Effort, bound_nodes, output_interval
from verifier.bounding.optimise import _certain_start
from verifier.bounding.program import Program, prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.ops import Add, Elu, LeakyRelu, Linear, Multiply, Relu, Scale, Select, Sigmoid
from verifier.search.rows import clip_by, combine

HUGE = 1e30
TRIALS = 400
OPERATORS: dict[str, Elementwise] = {
    "simple planes": Relu(),
    "two planes": LeakyRelu(torch.tensor(1e-6, dtype=torch.float64)),
    "no lower intercept": LeakyRelu(torch.tensor(0.3, dtype=torch.float64)),
    "curve": Sigmoid(),
}


def coefficients(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """`[count]` numbers of both signs whose decimal exponents lie between `low` and `high`."""
    size = 10 ** (low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64))
    return (size * (2 * torch.randint(0, 2, (count,), generator=generator) - 1)).float()


def domains(generator: torch.Generator, share: float) -> Interval:
    """`[TRIALS, 1]` boxes whose upper ends are about `share` of minus their lower ones."""
    lower = -0.5 - torch.rand((TRIALS, 1), generator=generator)
    return Interval(lower, share * (0.5 + torch.rand((TRIALS, 1), generator=generator)))


def points(box: Interval) -> Tensor:
    """`[5, TRIALS, 1]`, both ends among them."""
    share = torch.linspace(0, 1, 5, dtype=torch.float64).reshape(-1, 1, 1)
    return box.lower.double() + share * (box.upper.double() - box.lower.double())


def bounded(program: Program, row: Tensor, box: Interval) -> Tensor:
    """`[TRIALS]`: lower bounds of one coefficient `[TRIALS]` times the output, over a box for each."""
    found = bound_nodes(program, box, "interval")
    start = {program.graph.output: row.reshape(-1, 1, 1)}
    return backward(program, start, torch.zeros(len(row), 1), found).minimum(box)[:, 0].double()


def assert_below(graph: Graph, row: Tensor, box: Interval) -> None:
    """The bounds, what the coefficients `[TRIALS]` make of the output at points of their boxes."""
    bound = bounded(prepare(graph, torch.float32), row, box)
    for x in points(box):
        assert bool((bound <= row.double() * graph.evaluate(x)[:, 0]).all())


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("share", [1e-6, 1.0])
def test_products_with_slopes(name: str, share: float) -> None:
    """Behind a factor that makes the argument huge."""
    factor = torch.tensor([HUGE], dtype=torch.float64)
    nodes = Node("x", Input(), (), (1,)), Node("z", Scale(factor), (0,), (1,)), Node("y", OPERATORS[name], (1,), (1,))
    graph = Graph(nodes, 2)
    generator = torch.Generator().manual_seed(3)
    box = domains(generator, share)
    for low, high in ((-39, -37), (-45, -38)):
        assert_below(graph, coefficients(generator, TRIALS, low, high), box)


def test_products_with_inputs() -> None:
    graph = Graph((Node("x", Input(), (), (1,)), Node("y", Scale(), (0,), (1,))), 1)
    generator = torch.Generator().manual_seed(4)
    size = coefficients(generator, TRIALS, -24, -20).abs().reshape(-1, 1)
    box = Interval(-size, 2 * size)
    assert_below(graph, coefficients(generator, TRIALS, -24, -20), box)


def test_rows_that_meet_again_behind_their_slopes() -> None:
    """Parts sent to one node are added up: what they are off by must not be lost before."""
    factor = torch.tensor([HUGE], dtype=torch.float64)
    first, second = (LeakyRelu(torch.tensor(slope, dtype=torch.float64)) for slope in (1e-5, 3e-6))
    shape = (1,)
    graph = Graph(
        (
            Node("x", Input(), (), shape),
            Node("z", Scale(factor), (0,), shape),
            Node("a", first, (1,), shape),
            Node("b", second, (1,), shape),
            Node("y", Add((1, -1)), (2, 3), shape),
        ),
        4,
    )
    generator = torch.Generator().manual_seed(8)
    box = domains(generator, -0.1)
    assert_below(graph, coefficients(generator, TRIALS, -41, -37), box)


def test_products_of_two_arguments() -> None:
    factors = torch.tensor([HUGE, 1e-9], dtype=torch.float64)
    nodes = (
        Node("x", Input(), (), (2,)),
        Node("z", Scale(factors), (0,), (2,)),
        Node("a", Select(torch.tensor([0]), (2,)), (1,), (1,)),
        Node("b", Select(torch.tensor([1]), (2,)), (1,), (1,)),
        Node("y", Multiply(), (2, 3), (1,)),
    )
    graph = Graph(nodes, 4)
    generator = torch.Generator().manual_seed(9)
    lower = torch.rand((TRIALS, 2), generator=generator) + 0.5
    box = Interval(lower, lower * 1.0001)
    assert_below(graph, coefficients(generator, TRIALS, -34, -30), box)


def test_weighted_rows_at_the_start() -> None:
    """Weights times coefficients underflow, too."""
    graph = Graph((Node("x", Input(), (), (3,)), Node("y", Scale(), (0,), (3,))), 1)
    generator = torch.Generator().manual_seed(10)
    box = Interval(torch.full((TRIALS, 3), -HUGE), torch.full((TRIALS, 3), HUGE))
    found = bound_nodes(prepare(graph, torch.float32), box, "interval")
    rows = coefficients(generator, TRIALS * 6, -41, -37).reshape(TRIALS, 2, 3)
    weights = coefficients(generator, TRIALS * 2, -3, 0).abs().reshape(TRIALS, 2)
    start, bias = _certain_start(Objective({1: rows}, torch.zeros(TRIALS, 2)), weights, found)
    exact = (weights.double().unsqueeze(2) * rows.double()).sum(1)
    off = ((start[1].double() - exact).abs() * HUGE).sum(1)
    assert bool((bias.double() <= -off).all())


@pytest.mark.parametrize("method", METHODS)
def test_subnormal_inputs_of_huge_weights(method: str) -> None:
    """Products cancel but for their roundings, and a share of a subnormal number is 0."""
    generator = torch.Generator().manual_seed(11)
    weight = coefficients(generator, TRIALS * 2, 37.5, 38.4).double().reshape(TRIALS, 2)
    program = prepare(
        Graph((Node("x", Input(), (), (2,)), Node("y", Linear(weight), (0,), (TRIALS,))), 1), torch.float32
    )
    point = coefficients(generator, 2, -40, -39).reshape(1, 2)
    found = output_interval(program, Interval(point, point), method, Effort())
    value = point.double() @ weight.T
    assert bool((found.lower.double() <= value).all()) and bool((value <= found.upper.double()).all())


NEGLIGIBLE = LeakyRelu(torch.tensor(9e-46, dtype=torch.float64))


@pytest.mark.parametrize("op", [Elu(1e-38, 1e38), Elu(1e38, 1.0, 1e38), Elu(1.0, 1e-44), NEGLIGIBLE])
def test_curves_with_factors_that_underflow(op: Elementwise) -> None:
    """Values and planes, of factors and arguments that are small before something large."""
    generator = torch.Generator().manual_seed(12)
    graph = Graph((Node("x", Input(), (), (1,)), Node("y", op, (0,), (1,))), 1)
    program, wide = prepare(graph, torch.float32), graph.to(torch.float64)
    for low, high in ((-6, -3), (-44, -38), (36, 38)):
        size = coefficients(generator, TRIALS, low, high).abs().reshape(TRIALS, 1)
        box = Interval(-size, 0.5 * size)
        for row in (torch.ones(TRIALS), -torch.ones(TRIALS)):
            bound = bounded(program, row, box)
            for x in points(box):
                value = row.double() * wide.evaluate(x)[:, 0]
                assert not bool((bound > value + 1e-14 * value.abs()).any())  # what overflows has no bound


def forms(generator: torch.Generator, rows: int) -> tuple[LinearForm, Interval]:
    """Linear forms `[TRIALS, rows, 3]` and boxes with which all products underflow."""
    inputs = coefficients(generator, TRIALS * rows * 3, -25, -20).reshape(TRIALS, rows, 3)
    size = coefficients(generator, TRIALS * 3, -25, -20).abs().reshape(TRIALS, 3)
    zero = torch.zeros(TRIALS, rows)
    return LinearForm(inputs, zero, zero), Interval(-size, 2 * size)


def test_combinations_of_rows() -> None:
    """No combination is proved to be larger than the largest row is at any point."""
    generator = torch.Generator().manual_seed(5)
    form, box = forms(generator, 2)
    bound = combine(form, box, torch.zeros(TRIALS, 2, dtype=torch.long)).double()
    for share in torch.rand((50, TRIALS, 3), generator=generator, dtype=torch.float64):
        x = box.lower.double() + share * (box.upper.double() - box.lower.double())
        values = (form.coefficients.double() @ x.unsqueeze(2))[..., 0]
        assert bool((bound.amax(1) <= values.amax(1)).all())


def test_clipped_boxes() -> None:
    """Points where the row is not positive stay inside."""
    generator = torch.Generator().manual_seed(6)
    form, box = forms(generator, 1)
    left = clip_by(form, box)
    for share in torch.rand((50, TRIALS, 3), generator=generator, dtype=torch.float64).round(decimals=1):
        x = (box.lower.double() + share * (box.upper.double() - box.lower.double())).float()
        value = (form.coefficients.double() @ x.double().unsqueeze(2))[:, 0, 0]
        inside = ((left.lower <= x) & (x <= left.upper)).all(1)
        assert bool(inside[value <= 0].all())
