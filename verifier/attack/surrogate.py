"""A network to descend on: the same values, but steps and saturated ends have slopes (straight-through, Bengio 2013).

Descent learns nothing from a step. Here its value stays and its slope is that of a smooth stand-in: of x itself for a
rounding, and for a threshold of a sigmoid that is as wide as its argument varies over the points, so that what can flip
counts most. What ends in a softmax or a sigmoid loses its slopes where that saturates; a little of its argument, which
rises with it, is added there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.core.graph import Graph, Node
from verifier.core.operator import Op
from verifier.ops import (
    Ceil,
    Exp,
    Floor,
    Permute,
    Positive,
    Reshape,
    Round,
    Select,
    Sigmoid,
    Sign,
    Softmax,
    Tanh,
    Truncate,
)

LEAST_WIDTH = 1e-3  # of the sigmoid, relative to its arguments
LEAST_SLOPE = 1e-6  # of an end


def _itself(op: Op, x: Tensor) -> Tensor:
    return x


def _sigmoid(op: Op, x: Tensor) -> Tensor:
    values = x.detach()
    width = values.std(0, correction=0, keepdim=True) + LEAST_WIDTH * values.abs().mean()
    return torch.atan(x / (width + torch.finfo(x.dtype).tiny))


def _never_flat(op: Op, x: Tensor) -> Tensor:
    return op.evaluate(x) + LEAST_SLOPE * x


StandIn = Callable[[Op, Tensor], Tensor]
STEPS: dict[type[Op], StandIn] = {
    Floor: _itself,
    Ceil: _itself,
    Round: _itself,
    Truncate: _itself,
    Sign: _sigmoid,
    Positive: _sigmoid,
}
ENDS = (Softmax, Exp, Sigmoid, Tanh)  # an exponential ends what was a softmax
MOVES = (Reshape, Permute, Select)


@dataclass(frozen=True, eq=False)
class StraightThrough(Op):
    """The values of `op`, of one argument, with the slopes of `stand_in`."""

    op: Op
    stand_in: StandIn

    def evaluate(self, *inputs: Tensor) -> Tensor:
        smooth = self.stand_in(self.op, inputs[0])
        return self.op.evaluate(inputs[0]).detach() + torch.nan_to_num(smooth - smooth.detach())


def with_slopes(graph: Graph) -> Graph:
    """`graph`, on its device and in its precision, with stand-ins where it has no useful slopes."""
    end = graph.output
    while isinstance(graph.nodes[end].op, MOVES):
        end = graph.nodes[end].inputs[0]
    return Graph(tuple(_softened(node, place == end) for place, node in enumerate(graph.nodes)), graph.output)


def _softened(node: Node, end: bool) -> Node:
    stand_in = _never_flat if end and isinstance(node.op, ENDS) else STEPS.get(type(node.op))
    return node if stand_in is None else replace(node, op=StraightThrough(node.op, stand_in))
