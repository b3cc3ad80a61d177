"""Double precision is chosen where rounding alone leaves neurons undecided, and only there."""

from __future__ import annotations

import torch

from verifier.bounding.engine import Effort
from verifier.bounding.precision import rounding_prevails
from verifier.bounding.program import prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.ops import Linear, Relu

WIDTH = 40


def deep(layers: int, tie: bool = False) -> Graph:
    """Layers that keep the size of what passes them, nearly; with `tie`, half of the first one is exactly 0 at 0."""
    generator = torch.Generator().manual_seed(0)
    nodes, size = [Node("x", Input(), (), (1, 3))], 3
    for layer in range(layers):
        weight = torch.randn(WIDTH, size, generator=generator, dtype=torch.float64) * (2 / size) ** 0.5
        bias = torch.randn(WIDTH, generator=generator, dtype=torch.float64) / 10
        if tie and layer == 0:
            bias[::2] = 0
        nodes.append(Node(f"z{layer}", Linear(weight.float().double(), bias), (len(nodes) - 1,), (1, WIDTH)))
        nodes.append(Node(f"y{layer}", Relu(), (len(nodes) - 1,), (1, WIDTH)))
        size = WIDTH
    return Graph(tuple(nodes), len(nodes) - 1)


def prevails(graph: Graph, memory: int = 1 << 30) -> bool:
    box = Interval(torch.tensor([[-0.5, -0.5, -1.0]]), torch.tensor([[0.5, 0.5, 1.0]]))
    narrow = prepare(graph, torch.float32)
    return rounding_prevails(narrow, lambda: prepare(graph, torch.float64), box.point(), Effort(memory))


def test_rounding_prevails_in_deep_networks_only() -> None:
    assert not prevails(deep(2))
    assert prevails(deep(14))


def test_neurons_that_are_undecided_in_any_precision_do_not_count() -> None:
    assert not prevails(deep(2, tie=True))


def test_rounding_is_little_beside_a_large_box() -> None:
    graph, box = deep(14), Interval(torch.full((1, 3), -0.5), torch.full((1, 3), 0.5))
    narrow, precise = (prepare(graph, dtype) for dtype in (torch.float32, torch.float64))
    assert rounding_prevails(narrow, lambda: precise, box.point(), Effort())
    assert not rounding_prevails(narrow, lambda: precise, box, Effort())


def test_networks_without_forward_bounds_are_not_looked_at() -> None:
    assert not prevails(deep(14), memory=1 << 12)
