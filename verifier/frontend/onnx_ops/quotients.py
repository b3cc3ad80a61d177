"""Quotients by the root of a sum of squares in which the numerator's own square is.

Layer normalisations before opset 17, and norms, are exported in such pieces. Numerator and root move together, which
bounds of the two apart do not see:  |x_i| / sqrt(a sum_j x_j^2 + b)  is at most  1 / sqrt(a).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from torch import Tensor

from verifier.core.graph import Node
from verifier.frontend.onnx_ops.lowering import positions, together
from verifier.frontend.onnx_ops.registry import Call
from verifier.frontend.onnx_ops.values import Variable
from verifier.ops import Clip, Multiply, Power, Reciprocal, Scale, Select, Sqrt, Sum

ROOM = 1 + 1e-6  # for a largest number's own rounding
LARGEST = 1e60  # squares of limits, and their inverses


def within(call: Call, value: Variable, most: float) -> Variable:
    """The same numbers: they are never larger than `most`, which their bounds do not see."""
    return call.emit(Clip(-most * ROOM, most * ROOM), value)


def inverse(call: Call, value: Variable) -> Variable:
    """1 / value, in one step where that is a square root."""
    node = call.builder.nodes[value.position]
    if isinstance(node.op, Sqrt):
        return call.emit(Power(-0.5), Variable(node.inputs[0], value.shape, value.dtype))
    return call.emit(Reciprocal(), value)


def product(call: Call, left: Variable, right: Variable) -> Variable:
    """left * right, kept within what is known of it where one factor is the inverse of such a root."""
    result = call.emit(Multiply(), *together(call, (left, right)))
    for part, other in ((left, right), (right, left)):
        if part.shape == result.shape and 0 not in result.shape:
            limit = _most(call.builder.nodes, part, other)
            if limit is not None:
                return within(call, result, limit)
    return result


def _most(nodes: Sequence[Node], part: Variable, other: Variable) -> float | None:
    """At least |part * other|, where `other` is c / root for a root of a sum of squares, `part`'s own among them."""
    position, size = _unscaled(nodes, other.position)
    node, outside, above = nodes[position], Fraction(1), False
    if isinstance(node.op, Reciprocal):
        position, outside, above = _beneath(nodes, node.inputs[0])
        node = nodes[position]
        root = isinstance(node.op, Sqrt)
    else:
        root = isinstance(node.op, Power) and node.op.exponent == -0.5
    if not root:
        return None
    position, inside, positive = _beneath(nodes, node.inputs[0])
    total = nodes[position]
    square = nodes[total.inputs[0]] if isinstance(total.op, Sum) else total
    own = isinstance(square.op, Power) and square.op.exponent == 2 and square.inputs == (part.position,)
    squared = (size / outside) ** 2 / inside
    ordinary = 1 / LARGEST < squared < LARGEST  # so that its root is off by a rounding and no more
    return math.sqrt(squared) if own and ordinary and (above or positive) else None


def _unscaled(nodes: Sequence[Node], position: int) -> tuple[int, Fraction]:
    """Behind repetitions and factors, and how large these are at most."""
    size, node = Fraction(1), nodes[position]
    while _repeats(node) or (isinstance(node.op, Scale) and node.op.shift is None and _finite(node.op.scale)):
        if isinstance(node.op, Scale) and node.op.scale is not None:
            size *= Fraction(float(node.op.scale.abs().max()))
        position = node.inputs[0]
        node = nodes[position]
    return position, size


def _beneath(nodes: Sequence[Node], position: int) -> tuple[int, Fraction, bool]:
    """Of a value that is at least f times another one, if that is nowhere negative: the node of the other one, f > 0,
    and whether the value is surely above 0."""
    factor, positive = Fraction(1), False
    while True:
        node = nodes[position]
        if isinstance(node.op, Clip) and node.op.maximum == math.inf:
            positive = positive or node.op.minimum > 0
        elif isinstance(node.op, Scale) and _rises(node.op):
            factor *= 1 if node.op.scale is None else Fraction(float(node.op.scale.min()))
            positive = positive or (node.op.shift is not None and bool((node.op.shift > 0).all()))
        elif not _repeats(node):
            return position, factor, positive
        position = node.inputs[0]


def _rises(op: Scale) -> bool:
    """Whether it is a factor above 0 and a shift that is not below, in every place."""
    steep = op.scale is None or bool((op.scale > 0).all())
    lifted = op.shift is None or bool((op.shift >= 0).all())
    return steep and lifted and _finite(op.scale) and _finite(op.shift)


def _finite(constant: Tensor | None) -> bool:
    return constant is None or bool(constant.isfinite().all())


def _repeats(node: Node) -> bool:
    """Whether it is its argument, repeated along axes of size 1."""
    if not isinstance(node.op, Select) or len(node.op.source) != len(node.shape):
        return False
    sizes = zip(node.op.source, node.shape, strict=True)
    if any(own not in (1, size) for own, size in sizes):
        return False
    return np.array_equal(node.op.index.numpy(), np.broadcast_to(positions(node.op.source), node.shape))
