"""Small networks and questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch

from verifier.core.graph import Graph, Input, Node
from verifier.core.operator import Op
from verifier.core.problem import Problem, build_problem
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.ops import Linear


def network(inputs: int, *ops: Op) -> Graph:
    """y_0 = op(... op(sum of the inputs - 1))."""
    weight, bias = torch.ones(1, inputs), torch.tensor([-1.0])
    nodes = [Node("x", Input(), (), (1, inputs)), Node("z", Linear(weight, bias), (0,), (1, 1))]
    nodes += [Node(f"y{place}", op, (place + 1,), (1, 1)) for place, op in enumerate(ops)]
    return Graph(tuple(nodes), len(nodes) - 1)


def row(outputs: dict[int, float], bound: float) -> Row:
    """sum of c y <= bound."""
    return Row((), tuple((index, Fraction(c)) for index, c in outputs.items()), Fraction(bound))


def query_of(boxes: Sequence[Sequence[tuple[float, float]]], *disjuncts: Sequence[Row]) -> Query:
    """Each box with each of the disjuncts."""
    found = []
    for ends in boxes:
        box = Box(tuple(Fraction(low) for low, _ in ends), tuple(Fraction(high) for _, high in ends))
        found += [Disjunct(box, tuple(rows)) for rows in disjuncts]
    outputs = 1 + max(index for rows in disjuncts for one in rows for index, _ in one.outputs)
    return Query(len(boxes[0]), outputs, tuple(found))


def problem_of(boxes: Sequence[Sequence[tuple[float, float]]], *disjuncts: Sequence[Row]) -> Problem:
    return build_problem(query_of(boxes, *disjuncts), torch.float32, "cpu")
