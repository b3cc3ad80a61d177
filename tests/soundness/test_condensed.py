"""A condensed network is the real one: exactly, at points of its boxes, but for the neighbourhoods that it admits."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.soundness.exact import ExactGraph, Reals, apply, fractions
from tests.soundness.graphs import ACTIVATIONS, FAMILIES, Builder
from tests.soundness.test_bounds import DTYPES, assert_inside, exact_values, of_node, points_of, some_boxes
from verifier.bounding.condensed import Condensed, Maker, plans
from verifier.bounding.engine import Effort, bound_nodes, output_interval
from verifier.bounding.fields import follow
from verifier.bounding.lines import decided_lines
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.core.graph import Constant, Graph
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.regions import Regions
from verifier.ops import Abs, Add, Concat, Linear, Maximum, Near, Relu, Reshape, Scale, Select

MIDDLE, SMALL, POINT = 1, 7, 4  # numbers of `some_boxes`


def all_condensed(program: Program, precise: Program, found: NodeBounds, outputs: Tensor) -> list[Condensed]:
    """With each cut there is."""
    lines, made = decided_lines(program, found), []
    for plan in plans(program, found, lines, len(outputs)):
        made.append(Maker(precise, found, lines, plan, Effort()).made(outputs))
    assert made
    return [network for network in made if network is not None]


def check(graph: Graph, network: Condensed, outputs: Tensor, values: list[list[list[Fraction]]]) -> int:
    """`values` of the real network's nodes at some points. How many elements were only nearly known."""
    exact, real = ExactGraph(network.graph), network.parts
    near = 0
    for known in values:
        own: list[Reals] = [known[0]]
        for place, node in enumerate(network.graph.nodes[1:], 1):
            arguments = [own[source] for source in node.inputs]
            if isinstance(node.op, Constant):
                found: Reals = fractions(node.op.value.expand(node.shape))
            elif isinstance(node.op, Affine):
                found = exact.affine(place, arguments)
            elif not isinstance(node.op, Near):
                found = [apply(node.op, term, k) for k, term in enumerate(zip(*arguments, strict=True))]
            if place in real:
                position, index = real[place]
                there = known[position] if index is None else [known[position][k] for k in index.tolist()]
                if isinstance(node.op, Near):
                    near += assert_near(node.op, arguments[0], there)
                else:
                    assert list(found) == there
                found = there
            elif isinstance(node.op, Near):  # the output
                there = [known[graph.output][k] for k in outputs.tolist()]
                near += assert_near(node.op, arguments[0], there)
                found = there
            own.append(found)
        assert all(own[-1][k] == known[graph.output][k] for k in outputs.tolist())
    return near


def assert_near(op: Near, argument: Reals, real: Reals) -> int:
    radii = fractions(op.radius)
    for value, there, radius in zip(argument, real, radii, strict=True):
        assert abs(value - there) <= radius, (float(value - there), float(radius))
    return sum(value != there for value, there in zip(argument, real, strict=True))


def uncertain(activation: str, seed: int) -> Graph:
    """What is condensed may be condensed again. Numbers that are moved before a nonlinear node reads them."""
    b = Builder(1, 3, seed=seed)
    z = b.add(Reshape((1, 6), (2, 3)), [b.same(Near(b.normal(6).abs() * 1e-6), b.dense(0, 6))], (2, 3))
    z = b.add(Reshape((2, 3), (1, 6)), [b.same(ACTIVATIONS[activation], z)], (1, 6))
    z = b.same(ACTIVATIONS[activation], b.same(Near(b.normal(4).abs() * 1e-6), b.dense(z, 4)))
    b.dense(z, 2)
    return b.graph()


CONDENSED = {**FAMILIES, "uncertain": uncertain}
each_family = pytest.mark.parametrize("family", [family for family in CONDENSED if family != "attention"])
each_type = pytest.mark.parametrize("dtype", DTYPES)


class Asked:
    """A random network, boxes for it, and exact values of all nodes at points in them."""

    def __init__(self, family: str, activation: str, dtype: str) -> None:
        self.graph = CONDENSED[family](activation, seed=sum(map(ord, family + activation)))
        self.program, self.precise = (prepare(self.graph, kind) for kind in (DTYPES[dtype], torch.float64))
        self.boxes = some_boxes(self.graph, DTYPES[dtype], seed=5)
        self.points = [each[:1] + each[-2:] for each in points_of(self.boxes, seed=6)]
        self.values = exact_values(self.graph, self.points)
        self.outputs = torch.arange(self.graph.nodes[self.graph.output].size)

    def known(self) -> Iterator[tuple[list[int], NodeBounds]]:
        """Boxes, alone and together, and finite bounds over them."""
        for which in (*([k] for k in range(0, len(self.boxes.lower), 2)), [MIDDLE, SMALL], [0, POINT]):
            found = bound_nodes(self.program, self.boxes.select(torch.tensor(which)), "crown")
            if all(bool(bounds.magnitude().isfinite().all()) for bounds in found.intervals.values()):
                yield which, found


@each_type
@pytest.mark.parametrize("activation", ["relu", "steep", "clip", "sigmoid"])
@each_family
def test_every_cut_of_a_random_network(family: str, activation: str, dtype: str) -> None:
    asked, near = Asked(family, activation, dtype), 0
    outputs = asked.outputs[-1:]
    for which, found in asked.known():
        points = [point for k in which for point in asked.values[k]]
        for network in all_condensed(asked.program, asked.precise, found, outputs):
            near += check(asked.graph, network, outputs, points)
    assert near or activation == "sigmoid"


@each_type
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@each_family
def test_bounds_hold_for_the_whole_network(family: str, activation: str, dtype: str) -> None:
    asked = Asked(family, activation, dtype)
    for which, found in asked.known():
        box, values = asked.boxes.select(torch.tensor(which)), [asked.values[k] for k in which]
        for network in all_condensed(asked.program, asked.precise, found, asked.outputs):
            own = prepare(network.graph, DTYPES[dtype])
            for start in (None, network.inherited(found.intervals)):
                bounds = bound_nodes(own, box, "crown", start).intervals
                for place, (position, index) in network.parts.items():
                    every = torch.arange(asked.graph.nodes[position].size) if index is None else index
                    real = [[[point[position][k] for k in every.tolist()] for point in points] for points in values]
                    assert_inside(real, bounds[place], (which, place, position))
            output = output_interval(own, box, "crown", Effort())
            assert_inside(of_node(values, asked.graph.output), output, (which, "output"))


def beside(weight: float) -> Graph:
    """y_0 and, with some weight, a neuron of its own that is as large."""
    b = Builder(1, 2)
    double = lambda *rows: torch.tensor(rows, dtype=torch.float64)  # noqa: E731
    z = b.add(Linear(double([1.0, 1.0], [1e38, 1e38]), double(0.0, 0.0)), [0], (1, 2))
    b.add(Linear(double([1.0, weight], [1.0, 1e39]), double(0.0, 0.0)), [b.same(Relu(), z)], (1, 2))
    return b.graph()


def reader_of_both() -> Graph:
    """What the question reads shares an argument with what it does not read, which has another one."""
    b = Builder(1, 2)
    z, v = b.add(Linear(torch.tensor([[1.0, 1.0]]).double()), [0], (1, 1)), b.dense(0, 1, bias=0.0)
    a, w = b.same(Relu(), z), b.same(Relu(), b.add(Scale(shift=torch.tensor([9.0]).double()), [v], (1, 1)))
    b.add(Concat(1, (1, 1)), [a, b.same(Maximum(), z, w)], (1, 2))
    return b.graph()


def padded() -> Graph:
    """The question reads what is 0 of a node whose other elements are from what it does not read."""
    b = Builder(1, 2)
    a, u = b.same(Relu(), b.dense(0, 1)), b.same(Abs(), b.dense(0, 1, bias=20.0))
    moved = b.add(Select(torch.tensor([[-1, 0]]), (1, 1)), [b.dense(u, 1)], (1, 2))
    first = b.add(Select(torch.tensor([[0]]), (1, 2)), [b.same(Abs(), moved)], (1, 1))
    b.add(Concat(1, (1, 1)), [b.same(Add((1, 1)), a, first), u], (1, 2))
    return b.graph()


def with_constant() -> Graph:
    """A nonlinear node reads a constant that stands before others."""
    b = Builder(1, 2)
    half = b.add(Constant(torch.tensor([[0.5, -0.25]]).double()), [], (1, 2))
    z = b.same(Maximum(), b.dense(b.same(Relu(), b.dense(0, 3)), 2), half)
    b.dense(b.same(Relu(), b.dense(z, 3)), 2)
    return b.graph()


PARTLY_READ = {
    "tiny weight": beside(1e-40),
    "no weight": beside(0.0),
    "shared": reader_of_both(),
    "padded": padded(),
    "constant": with_constant(),
}


@each_type
@pytest.mark.parametrize("name", PARTLY_READ)
def test_what_the_question_does_not_read(name: str, dtype: str) -> None:
    """It is asked about the first output alone."""
    graph, rows = PARTLY_READ[name], torch.tensor([[1.0, 0.0]])
    program, precise = (prepare(graph, kind).asked(rows.to(kind)) for kind in (DTYPES[dtype], torch.float64))
    box = Interval(-torch.ones(1, 1, 2, dtype=DTYPES[dtype]), torch.ones(1, 1, 2, dtype=DTYPES[dtype]))
    (values,) = exact_values(graph, points_of(box, seed=1))
    found = bound_nodes(program, box, "crown")
    for network in all_condensed(program, precise, found, torch.tensor([0])):
        check(graph, network, torch.tensor([0]), values)


def test_no_tiles_of_what_is_nearly_known() -> None:
    """Their parts would have radii of their own."""
    b = Builder(1, 2)
    near = b.same(Near(torch.ones(6)), b.dense(0, 6))
    last = b.same(Relu(), near)
    fields = follow(b.graph(), last, Regions.whole((1, 6), 1))
    assert fields is not None
    assert fields.cut == near
