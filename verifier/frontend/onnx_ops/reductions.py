"""Reductions over axes, CumSum, and pooling over everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verifier.core.operator import Op
from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import along, elements_along, reshape, scale
from verifier.frontend.onnx_ops.registry import Call, normalise, operator
from verifier.frontend.onnx_ops.values import Value, Variable
from verifier.ops import Abs, Clip, Log, LogSumExp, Maximum, Minimum, Multiply, Power, Sqrt, Sum

MOST_ARGUMENTS = 4096
BEFORE: dict[str, Op] = {"ReduceL1": Abs(), "ReduceL2": Power(2.0), "ReduceSumSquare": Power(2.0)}


def add_up(call: Call, value: Variable, axes: Sequence[int]) -> Variable:
    """Sum over `axes`, which stay with size 1."""
    return call.emit(Sum(tuple(axes), value.shape), value)


@operator("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
def reduce_sum(call: Call) -> Value:
    value, name, axes = call.variable(0), call.node.op_type, _axes(call)
    if axes is None:
        return value
    if name in BEFORE:
        value = call.emit(BEFORE[name], value)
    total = add_up(call, value, axes)
    if name == "ReduceMean":
        total = scale(call, total, 1 / np.prod([value.shape[axis] for axis in axes], dtype=np.float64))
    if name == "ReduceL2":
        total = call.emit(Sqrt(), call.emit(Clip(0.0, np.inf), total))  # a sum of squares, whatever its bounds say
    if name == "ReduceLogSum":
        total = call.emit(Log(), total)
    return _without(call, total, axes)


@operator("ReduceMax", "ReduceMin", "ReduceLogSumExp")
def reduce_together(call: Call) -> Value:
    value, axes = call.variable(0), _axes(call)
    choice = {"ReduceMax": Maximum(), "ReduceMin": Minimum(), "ReduceLogSumExp": LogSumExp()}[call.node.op_type]
    return value if axes is None else _without(call, together_over(call, value, axes, choice), axes)


@operator("ReduceProd")
def reduce_product(call: Call) -> Value:
    """Products of two, of two of these, and so on."""
    value, axes = call.variable(0), _axes(call)
    if axes is None:
        return value
    factors = _few_elements(call, value, axes)
    while len(factors) > 1:
        pairs = zip(factors[::2], factors[1::2], strict=False)
        factors = [call.emit(Multiply(), *pair) for pair in pairs] + factors[len(factors) // 2 * 2 :]
    return _without(call, factors[0], axes)


@operator("GlobalAveragePool")
def global_average(call: Call) -> Value:
    value = call.variable(0)
    axes = range(2, len(value.shape))
    share = 1 / np.prod([value.shape[axis] for axis in axes], dtype=np.float64)
    return scale(call, add_up(call, value, axes), share)


@operator("GlobalMaxPool")
def global_maximum(call: Call) -> Value:
    value = call.variable(0)
    return together_over(call, value, range(2, len(value.shape)), Maximum())


def together_over(call: Call, value: Variable, axes: Sequence[int], function: Op) -> Variable:
    """A function of several arguments applied over `axes`, which stay with size 1; it leaves a single one as it is."""
    elements = _few_elements(call, value, axes)
    return call.emit(function, *elements) if len(elements) > 1 else elements[0]


def _few_elements(call: Call, value: Variable, axes: Sequence[int]) -> list[Variable]:
    count = int(np.prod([value.shape[axis] for axis in axes], dtype=np.int64))
    if not 0 < count <= MOST_ARGUMENTS:
        raise UnsupportedError(f"it reduces {count} elements at once; 1 to {MOST_ARGUMENTS} are supported")
    return elements_along(call, value, axes)


def _axes(call: Call) -> list[int] | None:
    """The axes to reduce, None for no reduction at all."""
    rank = len(call.value(0).shape)
    axes = call.integers("axes", 1)
    if not axes:
        return None if call.attribute("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(normalise(axis, rank) for axis in axes)


def _without(call: Call, value: Variable, axes: Sequence[int]) -> Variable:
    if call.attribute("keepdims", 1):
        return value
    return reshape(call, value, [size for axis, size in enumerate(value.shape) if axis not in axes])


@operator("CumSum", since=11)
def cumulative_sum(call: Call) -> Value:
    value = call.variable(0)
    axis = normalise(int(call.constant(1, "axis").reshape(())), len(value.shape))
    size = value.shape[axis]
    matrix = np.tril(np.ones((size, size)), -1 if call.attribute("exclusive", 0) else 0)
    return along(call, value, axis, matrix.T if call.attribute("reverse", 0) else matrix)
