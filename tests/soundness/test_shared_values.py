"""A value that several nodes read keeps its bounds, whatever its readers do with it."""

from __future__ import annotations

import pytest
import torch

from verifier.bounding.engine import METHODS, Effort, output_interval
from verifier.bounding.program import prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.ops import Add, Linear, Relu, Scale

FLOAT64 = torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_a_shift_does_not_move_its_argument(method: str) -> None:
    """relu(x + 100) - x summed over two inputs in [-1, 1]: 200, of which rounding and lost correlation leave 196 to 204
    at most."""
    ones = Linear(torch.ones(1, 2, dtype=FLOAT64))
    nodes = (
        Node("x", Input(), (), (1, 2)),
        Node("z", Linear(torch.eye(2, dtype=FLOAT64)), (0,), (1, 2)),
        Node("shifted", Scale(None, torch.full((2,), 100.0, dtype=FLOAT64)), (1,), (1, 2)),
        Node("relu", Relu(), (2,), (1, 2)),
        Node("first", ones, (3,), (1, 1)),
        Node("second", ones, (1,), (1, 1)),
        Node("y", Add((1, -1)), (4, 5), (1, 1)),
    )
    box = Interval(-torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    result = output_interval(prepare(Graph(nodes, 6), torch.float32), box, method, Effort())
    assert 195.9 < float(result.lower) <= 200 <= float(result.upper) < 204.1
