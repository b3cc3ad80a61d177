"""Weights below the smallest normal number are dropped; what they do to large values is covered all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from verifier.bounding.backward import backward
from verifier.bounding.elements import picked
from verifier.bounding.engine import METHODS, Effort, bound_nodes, output_interval
from verifier.bounding.program import Program, prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.rounding import tiny, without_subnormals
from verifier.ops import Conv, ConvTranspose, Linear, Relu, Scale
from verifier.ops.window import Window

LARGE = 1e36
WINDOW = Window(wide=(4, 4), narrow=(3, 3), kernel=(2, 2), stride=(1, 1), dilation=(1, 1), begin=(0, 0))

OPERATORS: dict[str, tuple[Callable[[Tensor], Affine], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "linear": (lambda weight: Linear(weight), (3, 5), (1, 5), (1, 3)),
    "conv": (lambda weight: Conv(weight, WINDOW), (3, 2, 2, 2), (1, 2, 4, 4), (1, 3, 3, 3)),
    "conv transpose": (lambda weight: ConvTranspose(weight, WINDOW), (2, 3, 2, 2), (1, 2, 3, 3), (1, 3, 4, 4)),
    "scale": (lambda weight: Scale(weight), (1, 6), (1, 6), (1, 6)),
}  # from weights, their shape, that of the input and that of the output


def network(name: str, weight: Tensor, behind: bool) -> Graph:
    """The operator, and `behind` it a Relu and a large factor."""
    make, _, shape, out = OPERATORS[name]
    nodes = [Node("x", Input(), (), shape), Node("y", make(weight), (0,), out)]
    if behind:
        factor = torch.full((1,) * len(out), 1e3, dtype=torch.float64)
        nodes += [Node("z", Relu(), (1,), out), Node("w", Scale(factor), (2,), out)]
    return Graph(tuple(nodes), len(nodes) - 1)


def asked(name: str, behind: bool) -> tuple[Graph, Program, Interval, Tensor]:
    """A network whose weights are subnormal numbers in single precision, a program for it without them, a box and
    values that the output takes there."""
    generator = torch.Generator().manual_seed(5)
    weight = tiny(torch.float32) * torch.rand(OPERATORS[name][1], generator=generator, dtype=torch.float64)
    graph = network(name, weight, behind)
    program = prepare(graph, torch.float32)
    assert not any(bool(value.any()) for value in vars(program.graph.nodes[1].op).values() if isinstance(value, Tensor))
    lower = LARGE * (1 + torch.rand((1, *graph.input_shape), generator=generator))
    box = Interval(lower, lower * 1.5)
    share = torch.rand((200, *graph.input_shape), generator=generator, dtype=torch.float64)
    share[0], share[1] = 0.0, 1.0
    values = graph.evaluate(box.lower.double() + share * (box.upper.double() - box.lower.double()))
    assert bool((values.abs() > 1e-3).any())  # else nothing would be asked
    return graph, program, box, values


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OPERATORS)
def test_bounds_hold_for_the_weights_as_they_are(name: str, method: str, behind: bool) -> None:
    _, program, box, values = asked(name, behind)
    found = output_interval(program, box, method, Effort())
    assert bool((found.lower.double() <= values).all()) and bool((values <= found.upper.double()).all())


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_hold_for_the_weights_as_they_are(name: str) -> None:
    graph, program, box, values = asked(name, behind=False)
    found = bound_nodes(program, box, "interval")
    size = graph.nodes[graph.output].size
    rows = -1e3 * torch.eye(size).reshape(1, size, *graph.output_shape)
    crossed = backward(program, {graph.output: rows}, torch.zeros(1, size), found).minimum(box)
    assert bool((crossed.double() <= -1e3 * values.flatten(1)).all())
    rest = picked(program, graph.output, torch.arange(size).unsqueeze(0)).both_sides.bounded(program, found)
    low, high = rest.minimum(box).double().split(size, 1)
    assert bool((low <= values.flatten(1)).all()) and bool((values.flatten(1) <= -high).all())


def test_normal_numbers_stay_and_subnormal_ones_go() -> None:
    least = tiny(torch.float32)
    value = torch.tensor([least * 1.5, -least * 1.5, least * 0.5, -least * 0.5, 1e-45, 0.0, -3.0])
    assert without_subnormals(value).tolist() == [value[0].item(), value[1].item(), 0.0, 0.0, 0.0, 0.0, -3.0]
    normal = torch.tensor([1.0, -2.0, 0.0])
    assert without_subnormals(normal) is normal
    numbers = torch.tensor([1, 2])
    assert without_subnormals(numbers) is numbers
