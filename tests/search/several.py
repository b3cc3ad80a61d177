"""Random small networks of two inputs with operators of several arguments."""

from __future__ import annotations

import torch

from tests.search.questions import Small
from verifier.core.graph import Graph
from verifier.ops import (
    Add,
    Clip,
    Exp,
    LogRatio,
    LogSumExp,
    Maximum,
    Minimum,
    Multiply,
    Positive,
    Relu,
    Reshape,
    Select,
    Share,
    Sum,
    Where,
)


def product_of_branches(seed: int) -> Graph:
    b = Small(1, 2, seed=seed)
    b.dense(b.same(Multiply(), b.same(Relu(), b.dense(0, 4)), b.dense(0, 4)), 2)
    return b.graph()


def softmax(seed: int) -> Graph:
    """Shares of three, times values."""
    b = Small(1, 2, seed=seed)
    scores = [b.dense(b.same(Relu(), b.dense(0, 3)), 2) for _ in range(3)]
    total = b.same(LogSumExp(), *scores)
    shares = [b.same(Exp(most=0.0), b.same(Add((1, -1)), score, total)) for score in scores]
    b.dense(b.same(Add((1, 1, 1)), *(b.same(Multiply(), share, b.dense(0, 2)) for share in shares)), 2)
    return b.graph()


def squares(seed: int) -> Graph:
    """A product of one value by itself, whose arguments are not independent."""
    b = Small(1, 2, seed=seed)
    z = b.dense(0, 3)
    b.dense(b.same(Multiply(), z, z), 2)
    return b.graph()


def matrices(seed: int) -> Graph:
    """A product of matrices `[2, 3]` and `[3, 2]`, the second of which is affine: every number has two copies."""
    b = Small(1, 2, seed=seed)
    left, right = b.same(Relu(), b.dense(0, 6)), b.dense(0, 6)
    rows = torch.arange(6).reshape(2, 1, 3).expand(2, 2, 3).reshape(1, 12)
    columns = torch.arange(6).reshape(3, 2).T.expand(2, 2, 3).reshape(1, 12)
    copies = [b.add(Select(index, (1, 6)), [z], (1, 12)) for z, index in ((left, rows), (right, columns))]
    products = b.add(Reshape((1, 12), (1, 4, 3)), [b.same(Multiply(), *copies)], (1, 4, 3))
    b.dense(b.add(Reshape((1, 4, 1), (1, 4)), [b.add(Sum((2,), (1, 4, 3)), [products], (1, 4, 1))], (1, 4)), 2)
    return b.graph()


def largest(seed: int) -> Graph:
    """Largest and least of three, one of them twice."""
    b = Small(1, 2, seed=seed)
    parts = [b.dense(b.same(Relu(), b.dense(0, 4)), 3) for _ in range(3)]
    b.dense(b.same(Add((1, -1)), b.same(Maximum(), *parts), b.same(Minimum(), parts[0], parts[2])), 2)
    return b.graph()


def choice(seed: int) -> Graph:
    b = Small(1, 2, seed=seed)
    b.dense(b.same(Where(), b.same(Positive(), b.dense(0, 4)), b.dense(0, 4), b.same(Relu(), b.dense(0, 4))), 2)
    return b.graph()


def ratios(seed: int) -> Graph:
    """Shares of two numbers above 0, by the logarithm of their ratio."""
    b = Small(1, 2, seed=seed)
    x, y = (b.same(Clip(0.25, torch.inf), b.dense(0, 3)) for _ in range(2))
    share = b.same(Clip(-torch.inf, 0.0), b.same(LogRatio(1.0), x, b.same(Add((1, 1)), x, y)))
    b.dense(b.same(Share(), share, y), 2)
    return b.graph()


GRAPHS = {
    "product": product_of_branches,
    "softmax": softmax,
    "squares": squares,
    "matrices": matrices,
    "largest": largest,
    "choice": choice,
    "ratios": ratios,
}
