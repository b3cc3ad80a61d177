"""Comparisons, logic on booleans, Where. And, Or and Not are Minimum, Maximum and 1 - x on zeros and ones."""

from __future__ import annotations

import numpy as np

from verifier.frontend.onnx_ops.lowering import broadcast, positions, scale, select, together
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Abs, Add, IsNonzero, Maximum, Minimum, Positive, Where

BOOLEAN = np.dtype(np.bool_)


@operator("Less", "Greater", "LessOrEqual", "GreaterOrEqual")
def compare(call: Call) -> Value:
    """The sign of a difference; of integers, which are at least 1 apart, at a half."""
    name, whole = call.node.op_type, call.value(0).dtype.kind != "f"
    strict = not name.endswith("OrEqual")
    difference = _difference(call, 1 if name.startswith("Greater") else -1)
    if whole:
        difference = scale(call, difference, None, -0.5 if strict else 0.5)
    return call.emit(Positive(strict), difference, dtype=BOOLEAN)


@operator("Equal")
def equal(call: Call) -> Value:
    margin = 0.0 if call.value(0).dtype.kind == "f" else 0.5
    differ = call.emit(IsNonzero(margin), _difference(call, 1), dtype=BOOLEAN)
    return scale(call, differ, -1.0, 1.0)


def _difference(call: Call, sign: int) -> Variable:
    """Input 0 less input 1, or the other way round."""
    left, right = call.value(0), call.value(1)
    if isinstance(right, Known):
        return scale(call, call.variable(0), None if sign > 0 else -1.0, -sign * right.array.astype(np.float64))
    if isinstance(left, Known):
        return scale(call, call.variable(1), None if sign < 0 else -1.0, sign * left.array.astype(np.float64))
    return call.emit(Add((sign, -sign)), *together(call, (left, right)))


@operator("Not")
def negate(call: Call) -> Value:
    return scale(call, call.variable(0), -1.0, 1.0)


@operator("And", "Or")
def connect(call: Call) -> Value:
    choice = Minimum() if call.node.op_type == "And" else Maximum()
    return call.emit(choice, *together(call, (call.value(0), call.value(1))))


@operator("Xor")
def exclusive_or(call: Call) -> Value:
    return call.emit(Abs(), call.emit(Add((1, -1)), *together(call, (call.value(0), call.value(1)))))


@operator("Where", since=9)
def where(call: Call) -> Value:
    condition, chosen, other = (call.value(index) for index in range(3))
    shape = np.broadcast_shapes(condition.shape, chosen.shape, other.shape)
    if isinstance(condition, Variable):
        nodes = [broadcast(call, call.materialise(value), shape) for value in (condition, chosen, other)]
        return call.emit(Where(), *nodes, dtype=chosen.dtype)
    mask = np.broadcast_to(condition.array, shape)
    parts = [_masked(call, chosen, mask), _masked(call, other, ~mask)]
    if isinstance(parts[0], Known) or isinstance(parts[1], Known):
        constant, variable = parts if isinstance(parts[0], Known) else parts[::-1]
        assert isinstance(constant, Known) and isinstance(variable, Variable)
        return scale(call, variable, None, constant.array)
    return call.emit(Add((1, 1)), *(call.materialise(part) for part in parts))


def _masked(call: Call, value: Value, mask: np.ndarray) -> Value:
    """`value` broadcast to the shape of `mask`, and 0 where that is False."""
    if isinstance(value, Known):
        return Known(np.where(mask, value.array, 0), value.dtype)
    return select(call, value, np.where(mask, np.broadcast_to(positions(value.shape), mask.shape), -1))
