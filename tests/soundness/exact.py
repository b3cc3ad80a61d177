"""Exact values to compare bounds with: functions and whole graphs in rational arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import Tensor

from tests.soundness.functions import FUNCTIONS, PRECISION
from verifier.core.graph import Constant, Graph
from verifier.core.operator import Affine, Op
from verifier.ops import Abs, Clip, LeakyRelu, Maximum, Minimum, Multiply, Near, Relu, Sigmoid, Sign, Tanh, Where

FAR = 2000  # beyond it they are closer to their limits than 2^-2800

Reals = Sequence[Fraction]


def fractions(tensor: Tensor) -> list[Fraction]:
    """The elements of a finite tensor, flat, as the rationals they are."""
    return [Fraction(value) for value in tensor.flatten().tolist()]


def _rational(value: mpmath.mpf) -> Fraction:
    """The number itself; beyond 2^+-20000, which no float comes near to, one of that size."""
    sign, mantissa, exponent, _ = value._mpf_
    if mantissa == 0:
        return Fraction(0)
    size = Fraction(int(mantissa)) * Fraction(2) ** min(max(int(exponent), -20000), 20000)
    return -size if sign else size


def _smooth(function: Callable[[mpmath.mpf], mpmath.mpf], x: Fraction, low: int) -> Fraction:
    if abs(x) > FAR:
        rest = Fraction(1, 2**2500)
        return 1 - rest if x > 0 else low + rest
    with mpmath.workprec(PRECISION):
        return _rational(function(mpmath.mpf(x.numerator) / mpmath.mpf(x.denominator)))


def apply(op: Op, arguments: Reals, position: int = 0) -> Fraction:
    """One element of an elementwise operator; `position`: which (for a PRelu). Of a neighbourhood one of its ends."""
    x = arguments[0]
    if isinstance(op, Relu):
        return max(x, Fraction(0))
    if isinstance(op, LeakyRelu):
        slopes = fractions(op.slope)
        return x if x >= 0 else x * slopes[position % len(slopes)]
    if isinstance(op, Abs):
        return abs(x)
    if isinstance(op, Near):
        radii = fractions(op.radius)
        return x + radii[position % len(radii)] * (-1) ** position
    if isinstance(op, Clip):
        low = x if op.minimum == -np.inf else max(x, Fraction(op.minimum))
        return low if op.maximum == np.inf else min(low, Fraction(op.maximum))
    if isinstance(op, Sign):
        return Fraction((x > 0) - (x < 0))
    if isinstance(op, Sigmoid):
        return _smooth(lambda v: 1 / (1 + mpmath.exp(-v)), x, 0)
    if isinstance(op, Tanh):
        return _smooth(mpmath.tanh, x, -1)
    if isinstance(op, Multiply):
        return arguments[0] * arguments[1]
    if isinstance(op, Where):
        return arguments[1] if x else arguments[2]
    if type(op) in FUNCTIONS:
        with mpmath.workprec(PRECISION):
            values = [mpmath.mpf(v.numerator) / mpmath.mpf(v.denominator) for v in arguments]
            return _rational(mpmath.mpf(FUNCTIONS[type(op)](op, *values)))
    if isinstance(op, Maximum):
        return max(arguments)
    assert isinstance(op, Minimum), op
    return min(arguments)


class ExactGraph:
    """Values of every node of a float64 graph at rational points."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.matrices = {p: self._matrices(p) for p, n in enumerate(graph.nodes) if isinstance(n.op, Affine)}

    def _matrices(self, position: int) -> tuple[list[list[list[tuple[int, Fraction]]]], list[Fraction]]:
        """Sparse rows for each argument, and the constant term. A unit vector meets one weight at a time, exactly."""
        node = self.graph.nodes[position]
        assert isinstance(node.op, Affine)
        shapes = [self.graph.nodes[source].shape for source in node.inputs]
        sizes = [self.graph.nodes[source].size for source in node.inputs]
        found = []
        for place, size in enumerate(sizes):
            units = [torch.zeros(size, *shape, dtype=torch.float64) for shape in shapes]
            units[place] = torch.eye(size, dtype=torch.float64).reshape(size, *shapes[place])
            columns = node.op.linear(*units).reshape(size, -1).T.tolist()
            found.append([[(i, Fraction(w)) for i, w in enumerate(row) if w] for row in columns])
        offset = node.op.offset()
        full = torch.zeros(node.shape, dtype=torch.float64) if offset is None else offset.expand(node.shape)
        return found, fractions(full)

    def values(self, x: Reals) -> list[list[Fraction]]:
        values: list[list[Fraction]] = [list(x)]
        for position, node in enumerate(self.graph.nodes[1:], 1):
            arguments = [values[source] for source in node.inputs]
            if isinstance(node.op, Constant):
                values.append(fractions(node.op.value.expand(node.shape)))
            elif isinstance(node.op, Affine):
                values.append(self.affine(position, arguments))
            else:
                terms: Iterable[tuple[Fraction, ...]] = zip(*arguments, strict=True)
                values.append([apply(node.op, term, place) for place, term in enumerate(terms)])
        return values

    def affine(self, position: int, arguments: Sequence[Reals]) -> list[Fraction]:
        """The value of an affine node."""
        matrices, total = self.matrices[position]
        total = list(total)
        for rows, argument in zip(matrices, arguments, strict=True):
            for place, row in enumerate(rows):
                total[place] += sum((w * argument[i] for i, w in row), Fraction(0))
        return total
