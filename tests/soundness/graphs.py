"""Random small networks, built directly as graphs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.core.graph import Graph, Input, Node
from verifier.core.operator import Op
from verifier.ops import (
    Abs,
    Add,
    Clip,
    Concat,
    Conv,
    Exp,
    LeakyRelu,
    Linear,
    LogSumExp,
    Maximum,
    Minimum,
    Multiply,
    Power,
    Relu,
    Reshape,
    Select,
    Sigmoid,
    Sign,
    Sin,
    Softplus,
    Sum,
    Tanh,
)
from verifier.ops.window import Window

ACTIVATIONS: dict[str, Op] = {
    "relu": Relu(),
    "leaky": LeakyRelu(torch.tensor([0.1], dtype=torch.float64)),
    "steep": LeakyRelu(torch.tensor([-1.7], dtype=torch.float64)),
    "abs": Abs(),
    "clip": Clip(-0.3, 1.1),
    "sign": Sign(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "softplus": Softplus(),
    "sin": Sin(),
    "square": Power(2.0),
}


class Builder:
    """Appends nodes; each method returns the new node's position."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.nodes = [Node("x", Input(), (), shape)]
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def add(self, op: Op, inputs: Sequence[int], shape: Sequence[int]) -> int:
        self.nodes.append(Node(f"n{len(self.nodes)}", op, tuple(inputs), tuple(shape)))
        return len(self.nodes) - 1

    def dense(self, source: int, size: int, bias: float = 1.0) -> int:
        width = self.nodes[source].size
        weight = self.normal(size, width) / width**0.5
        return self.add(Linear(weight, self.normal(size) * bias), [source], (1, size))

    def same(self, op: Op, *sources: int) -> int:
        return self.add(op, sources, self.nodes[sources[0]].shape)

    def graph(self) -> Graph:
        return Graph(tuple(self.nodes), len(self.nodes) - 1)


def dense(activation: str, seed: int) -> Graph:
    b = Builder(1, 3, seed=seed)
    z = b.same(ACTIVATIONS[activation], b.dense(0, 5))
    z = b.same(ACTIVATIONS[activation], b.dense(z, 4))
    b.dense(z, 2)
    return b.graph()


def residual(activation: str, seed: int) -> Graph:
    """Two paths that meet with opposite signs, and the input joining again."""
    b = Builder(1, 3, seed=seed)
    first = b.dense(0, 3)
    z = b.same(ACTIVATIONS[activation], first)
    total = b.same(Add((1, -1)), b.dense(z, 3), first)
    z = b.same(ACTIVATIONS[activation], total)
    total = b.same(Add((1, 1, -1)), z, 0, first)
    b.dense(total, 2)
    return b.graph()


def joined(activation: str, seed: int) -> Graph:
    """Concat of two branches, maximum and minimum of several, a nonlinear output."""
    b = Builder(1, 2, seed=seed)
    left, right = b.dense(0, 3), b.dense(0, 3)
    z = b.add(Concat(1, (3, 3)), [b.same(ACTIVATIONS[activation], left), right], (1, 6))
    parts = [b.dense(z, 4) for _ in range(3)]
    high, low = b.same(Maximum(), *parts), b.same(Minimum(), *parts[:2])
    b.dense(b.same(Add((1, -1)), high, low), 3)
    b.same(Maximum(), len(b.nodes) - 1, left)
    return b.graph()


def convolution(activation: str, seed: int) -> Graph:
    b = Builder(1, 1, 3, 3, seed=seed)
    window = Window((3, 3), (2, 2), (2, 2), (2, 2), (1, 1), (1, 1))
    z = b.add(Conv(b.normal(2, 1, 2, 2), window, b.normal(2)), [0], (1, 2, 2, 2))
    z = b.same(ACTIVATIONS[activation], z)
    b.dense(b.add(Reshape((1, 2, 2, 2), (1, 8)), [z], (1, 8)), 3)
    return b.graph()


def gated(activation: str, seed: int) -> Graph:
    """A product of two branches, the logarithm of a sum of exponentials, and a product with the input."""
    b = Builder(1, 3, seed=seed)
    left, right = b.dense(0, 3), b.dense(0, 3)
    product = b.same(Multiply(), b.same(ACTIVATIONS[activation], left), right)
    total = b.same(LogSumExp(), b.dense(product, 3), right, left)
    b.dense(b.same(Add((1, -1)), b.same(Multiply(), total, 0), product), 2)
    return b.graph()


def attention(activation: str, seed: int) -> Graph:
    """Two tokens of two features: products of copies, and their softmax by the logarithm of the sum of exponentials."""
    b = Builder(1, 3, seed=seed)
    query, key, value = b.same(ACTIVATIONS[activation], b.dense(0, 4)), b.dense(0, 4), b.dense(0, 4)

    def matrix_product(left: int, right: int) -> int:
        """`[2, 2]` by the transpose of `[2, 2]`, both flat."""
        first = b.add(Select(torch.tensor([0, 1, 0, 1, 2, 3, 2, 3]).reshape(2, 2, 2), (1, 4)), [left], (2, 2, 2))
        second = b.add(Select(torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]).reshape(2, 2, 2), (1, 4)), [right], (2, 2, 2))
        return b.add(Sum((2,), (2, 2, 2)), [b.same(Multiply(), first, second)], (2, 2, 1))

    scores = b.add(Reshape((2, 2, 1), (2, 2)), [matrix_product(query, key)], (2, 2))
    columns = [b.add(Select(torch.tensor([[j], [j + 2]]), (2, 2)), [scores], (2, 1)) for j in range(2)]
    total = b.same(LogSumExp(), *columns)
    total = b.add(Select(torch.tensor([[0, 0], [1, 1]]), (2, 1)), [total], (2, 2))
    shares = b.same(Exp(most=0.0), b.same(Add((1, -1)), scores, total))
    mixed = matrix_product(b.add(Reshape((2, 2), (1, 4)), [shares], (1, 4)), value)
    b.dense(b.add(Reshape((2, 2, 1), (1, 4)), [mixed], (1, 4)), 2)
    return b.graph()


FAMILIES = {
    "dense": dense,
    "residual": residual,
    "joined": joined,
    "gated": gated,
    "attention": attention,
    "convolution": convolution,
}
