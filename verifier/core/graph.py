"""A network as a value: nodes in topological order, static shapes, constants inside the operators."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from verifier.core.operator import Op


@dataclass(frozen=True)
class Input(Op):
    """The one variable of the network; never evaluated."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        raise AssertionError("the input node has a value already")


@dataclass(frozen=True, eq=False)
class Constant(Op):
    """A tensor that does not depend on the input: `value` of the node's shape."""

    value: Tensor

    def evaluate(self, *inputs: Tensor) -> Tensor:
        raise AssertionError("a constant has a value already")


@dataclass(frozen=True, eq=False)
class Node:
    """One operator applied: `inputs` are positions of earlier nodes, `shape` is the ONNX shape of the value.

    `name` is the ONNX tensor this node computes (helpers of a lowered operator append a suffix to it),
    `origin` the ONNX operator it came from, for messages.
    """

    name: str
    op: Op
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    origin: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.origin or self.op.name} (tensor '{self.name}', shape {list(self.shape)})"


@dataclass(frozen=True, eq=False)
class Graph:
    """`nodes[0]` is the input, `nodes[output]` the output. Immutable; `to` casts it."""

    nodes: tuple[Node, ...]
    output: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.nodes[0].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.nodes[self.output].shape

    @cached_property
    def size(self) -> int:
        """Elements of all nodes together: the numbers that one point takes."""
        return sum(node.size for node in self.nodes)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the positions of the nodes that read it."""
        lists: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for source in node.inputs:
                lists[source].append(position)
        return tuple(tuple(found) for found in lists)

    def evaluate(self, x: Tensor) -> Tensor:
        """`x` `[batch, *input_shape]` to `[batch, *output_shape]`, differentiable."""
        return self.evaluate_all(x, keep=False)[self.output]

    def evaluate_all(self, x: Tensor, keep: bool = True) -> dict[int, Tensor]:
        """The value of every node by position; with `keep=False` values are freed after their last reader."""
        values: dict[int, Tensor] = {0: x.reshape(-1, *self.input_shape)}
        for position, node in enumerate(self.nodes[: self.output + 1]):
            if isinstance(node.op, Constant):
                values[position] = node.op.value.to(x.dtype).expand(x.shape[0], *node.shape)
            elif position > 0:
                values[position] = node.op.evaluate(*(values[source] for source in node.inputs))
            if not keep:
                for source in node.inputs:
                    if self.consumers[source][-1] == position and source != self.output:
                        values.pop(source, None)
        return values

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Graph:
        """Constants in `dtype` on `device`. Casting to a narrower type rounds each constant once."""
        return Graph(tuple(replace(node, op=node.op.to(dtype, device)) for node in self.nodes), self.output)
