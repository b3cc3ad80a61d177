"""Bounds of elements that begin behind their affine node."""

from __future__ import annotations

import pytest
import torch

from verifier.bounding.engine import METHODS, bound_nodes
from verifier.bounding.program import prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.ops import Linear, Near, Relu

SIZE = 4000


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("method", METHODS)
def test_a_neighbourhood_that_reaches_nearly_to_0_does_not_hide_the_rounding_of_the_offset(
    method: str, sign: float
) -> None:
    """The offset b is rounded to single precision, and  b - r  is about as small as that rounding."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.rand(SIZE, dtype=torch.float64, generator=generator)  # noqa: E731
    b = sign * (1 + draw())
    r = b.abs() * (1 - 3e-7 * draw())
    layer = Linear(torch.zeros(SIZE, 1, dtype=torch.float64), b)
    nodes = [Node("x", Input(), (), (1,)), Node("l", layer, (0,), (SIZE,)), Node("n", Near(r), (1,), (SIZE,))]
    program = prepare(Graph((*nodes, Node("y", Relu(), (2,), (SIZE,))), 3), torch.float32)
    found = bound_nodes(program, Interval(torch.zeros(1, 1), torch.ones(1, 1)), method).intervals[2]
    # these differences are exact (Sterbenz)
    assert (found.lower[0].double() <= b - r).all() and (found.upper[0].double() >= b + r).all()
    near = b - r if sign > 0 else b + r
    assert ((found.lower[0] if sign > 0 else found.upper[0]).double() - near).abs().max() < 3e-6
