"""Random small piecewise-linear networks of two inputs, and questions near to where their answer changes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from tests.soundness.graphs import Builder
from tests.soundness.polygons import Conjunction, least_margin
from verifier.core.graph import Graph
from verifier.core.operator import Op
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.ops import Abs, Add, Clip, Concat, LeakyRelu, Linear, Maximum, Relu

ACTIVATIONS: dict[str, Op] = {
    "relu": Relu(),
    "leaky": LeakyRelu(torch.tensor([0.125], dtype=torch.float64)),
    "steep": LeakyRelu(torch.tensor([-1.75], dtype=torch.float64)),
    "abs": Abs(),
    "clip": Clip(-0.25, 1.0),
}
SHAPES = ("one layer", "two layers", "three layers", "residual", "joined", "shared", "on the input")

Part = tuple[np.ndarray, np.ndarray, list[Conjunction]]
"""An input box, lower and upper ends, and its disjuncts."""


class Small(Builder):
    """Weights are multiples of 1/16: exact in every precision."""

    def dense(self, source: int, size: int, bias: float = 1.0) -> int:
        weight = (self.normal(size, self.nodes[source].size) * 16).round() / 16
        return self.add(Linear(weight, (self.normal(size) * 8 * bias).round() / 16), [source], (1, size))


def small_graph(activation: str, shape: str, seed: int) -> Graph:
    """At most 14 neurons, two outputs."""
    b, op = Small(1, 2, seed=seed), ACTIVATIONS[activation]
    if shape == "residual":
        first = b.dense(0, 4)
        total = b.same(Add((1, -1)), b.dense(b.same(op, first), 4), first)
        z = b.same(op, total)
    elif shape == "joined":
        z = b.add(Concat(1, (3, 2)), [b.same(op, b.dense(0, 3)), b.dense(0, 2)], (1, 5))
        z = b.same(Maximum(), b.dense(z, 3), b.dense(z, 3))
    elif shape == "shared":  # a neuron that two activations read, whose kinks differ
        first = b.dense(0, 4)
        z = b.add(Concat(1, (4, 4)), [b.same(op, first), b.same(Clip(0.5, 1.5), first)], (1, 8))
        z = b.same(op, b.dense(z, 3))
    elif shape == "on the input":
        z = b.same(op, b.dense(b.same(op, 0), 5))
    else:
        z = 0
        for size in {"one layer": (12,), "two layers": (6, 4), "three layers": (4, 4, 3)}[shape]:
            z = b.same(op, b.dense(z, size))
    b.dense(z, 2)
    return b.graph()


def random_box(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    lower = np.round(generator.uniform(-2, 1, 2) * 8) / 8
    return lower, lower + np.round(generator.uniform(0, 2, 2) * 8) / 8


def random_disjunct(
    graph: Graph, box: tuple[np.ndarray, np.ndarray], rows: int, generator: np.random.Generator
) -> Conjunction:
    """A conjunction that the best sample misses by a little, or does not."""
    x = generator.uniform(*box, (500, 2))
    y = graph.evaluate(torch.from_numpy(x).reshape(-1, 1, 2)).flatten(1).numpy()
    c = np.round(generator.normal(size=(rows, 2)) * 4) / 4
    c[~c.any(1)] = 1.0
    d = np.round(generator.normal(size=(rows, 2)) * 4) / 4 * (generator.random() < 0.3)
    values = y @ c.T + x @ d.T
    start = np.round(values[int(generator.integers(len(values)))] * 64) / 64
    miss = generator.choice([-0.5, -0.05, 0.05, 0.2, 0.5, 1.0, 2.0])
    return c, d, np.round((start + (values - start).max(1).min() - miss) * 256) / 256


def random_parts(graph: Graph, boxes: int, most_disjuncts: int, most_rows: int, seed: int) -> list[Part]:
    generator, parts = np.random.default_rng(seed), []
    for _ in range(boxes):
        box = random_box(generator)
        count = int(generator.integers(1, most_disjuncts + 1))
        rows = generator.integers(1, most_rows + 1, count).tolist()
        parts.append((*box, [random_disjunct(graph, box, n, generator) for n in rows]))
    return parts


def query_of(parts: list[Part]) -> Query:
    disjuncts = []
    for lower, upper, conjunctions in parts:
        box = Box(tuple(map(Fraction, lower.tolist())), tuple(map(Fraction, upper.tolist())))
        for c, d, b in conjunctions:
            terms = [
                tuple(tuple((i, Fraction(w)) for i, w in enumerate(row) if w) for row in rows.tolist())
                for rows in (d, c)
            ]
            rows = tuple(Row(x, y, Fraction(end)) for x, y, end in zip(*terms, b.tolist(), strict=True))
            disjuncts.append(Disjunct(box, rows))
    return Query(len(parts[0][0]), len(parts[0][2][0][0][0]), tuple(disjuncts))


def margin_of(graph: Graph, parts: list[Part]) -> float:
    """The least margin over all boxes, by enumeration: at most zero iff there is a violation."""
    return min(least_margin(graph, lower, upper, disjuncts) for lower, upper, disjuncts in parts)


def values_at(graph: Graph, x: Tensor) -> Tensor:
    """Outputs `[n, outputs]` at points `[n, 2]`."""
    return graph.evaluate(x.double().reshape(-1, *graph.input_shape)).flatten(1)
