"""Stand-ins change slopes, never values."""

from __future__ import annotations

import pytest
import torch

from tests.attack.questions import network
from verifier.attack.surrogate import STEPS, with_slopes
from verifier.core.graph import Graph
from verifier.core.operator import Op
from verifier.ops import Ceil, Exp, Floor, Positive, Relu, Reshape, Round, Sigmoid, Sign, Softmax, Tanh, Truncate


def slopes(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(graph.evaluate(x).sum(), x)[0]


@pytest.mark.parametrize(
    "op", [Floor(), Ceil(), Round(), Sign(), Positive(), Truncate(-9.0, 9.0)], ids=lambda op: op.name
)
def test_steps_get_slopes_and_keep_their_values(op: Op) -> None:
    assert type(op) in STEPS
    graph = network(2, op)
    x = torch.linspace(-3, 3, 26).reshape(13, 2)
    assert torch.equal(with_slopes(graph).evaluate(x), graph.evaluate(x))
    assert (slopes(with_slopes(graph), x) > 0).all()


@pytest.mark.parametrize("op", [Softmax(1), Exp(), Sigmoid(), Tanh()], ids=lambda op: op.name)
def test_only_an_end_keeps_a_slope_where_it_is_flat(op: Op) -> None:
    assert with_slopes(network(2, op, Relu())).nodes[2].op is op
    graph, x = network(2, op, Reshape((1, 1), (1,))), torch.full((1, 2), -200.0)
    assert torch.equal(with_slopes(graph).evaluate(x), graph.evaluate(x))
    assert (slopes(graph, x) == 0).all() and (slopes(with_slopes(graph), x) > 0).all()


def test_what_can_flip_counts_most() -> None:
    """A sign whose argument varies across zero has a steeper slope than one that is far from it."""
    x = torch.tensor([[0.4, 0.5], [0.6, 0.5]])
    near, far = slopes(with_slopes(network(2, Sign())), x), slopes(with_slopes(network(2, Sign())), x + 10)
    assert (near > 100 * far).all()


def test_a_value_without_end_stays() -> None:
    assert with_slopes(network(2, Exp())).evaluate(torch.full((1, 2), 1e9)).item() == torch.inf
