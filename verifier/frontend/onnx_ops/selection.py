"""Softmax, LogSoftmax, ArgMax, ArgMin, Hardmax.

The logarithm of a softmax is x - logsumexp(x), which is at most 0: bounds of exp need not look further, so that nothing
overflows. Of two elements the softmax is the sigmoid of their difference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verifier.frontend.onnx_ops.lowering import (
    along,
    broadcast,
    elements_along,
    move,
    positions,
    reshape,
    scale,
    select,
)
from verifier.frontend.onnx_ops.registry import Call, normalise, operator
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import (
    Add,
    ArgMax,
    Clip,
    Concat,
    Exp,
    LogRatio,
    LogSumExp,
    Maximum,
    Minimum,
    Positive,
    Round,
    Share,
    Sigmoid,
    Softmax,
    Softplus,
)

MOST_ELEMENTS = 1024
MOST_POSITIONS = 64
WHOLE = np.dtype(np.int64)


@operator("Softmax", "LogSoftmax")
def softmax_of_matrix(call: Call) -> Value:
    """Before opset 13: over all axes from `axis` on, taken together."""
    value = call.variable(0)
    axis = call.axis(len(value.shape), 1)
    columns = int(np.prod(value.shape[axis:], dtype=np.int64))
    matrix = reshape(call, value, (int(np.prod(value.shape[:axis], dtype=np.int64)), columns))
    return reshape(call, shares(call, matrix, 1, call.node.op_type == "LogSoftmax"), value.shape)


@operator("Softmax", "LogSoftmax", since=13)
def softmax(call: Call) -> Value:
    value = call.variable(0)
    return shares(call, value, call.axis(len(value.shape), -1), call.node.op_type == "LogSoftmax")


def shares(call: Call, value: Variable, axis: int, logarithm: bool) -> Variable:
    """Softmax or its logarithm along the axis."""
    count = value.shape[axis]
    if not 2 <= count <= MOST_ELEMENTS:
        return call.emit(Softmax(axis, logarithm), value)
    if count == 2:
        if not logarithm:
            return call.emit(Sigmoid(), along(call, value, axis, np.array([[1.0, -1.0], [-1.0, 1.0]])))
        behind = along(call, value, axis, np.array([[-1.0, 1.0], [1.0, -1.0]]))
        return scale(call, call.emit(Softplus(), behind), -1.0)
    total = call.emit(LogSumExp(), *elements_along(call, value, [axis]))
    share = call.emit(Add((1, -1)), value, broadcast(call, total, value.shape))
    return share if logarithm else call.emit(Exp(most=0.0), share)


def power_shares(call: Call, value: Variable, exponent: float, total: Variable, axis: int) -> Variable:
    """x_i^p / sum_j x_j^p along the axis, for x that are never negative: minus its logarithm is a logsumexp over all j
    of p log(x_j / x_i). (Turned by k, x_(i + k) is at position i.) `total` is the divisor."""
    index, count = positions(value.shape), value.shape[axis]
    turned = [select(call, value, np.roll(index, -k, axis)) for k in range(1, count)]
    ratios = [call.emit(LogRatio(exponent), other, value) for other in turned]
    itself = call.materialise(Known(np.zeros(value.shape), value.dtype))
    logarithm = scale(call, call.emit(LogSumExp(), itself, *ratios), -1.0)
    return call.emit(Share(), logarithm, broadcast(call, total, value.shape))


@operator("ArgMax", "ArgMin")
def argmax(call: Call) -> Value:
    value = call.variable(0)
    axis = normalise(call.attribute("axis", 0), len(value.shape))
    last = bool(call.attribute("select_last_index", 0))
    if call.node.op_type == "ArgMin":
        value = scale(call, value, -1.0)
    if 2 <= value.shape[axis] <= MOST_POSITIONS:
        position = replace(_position_of_largest(call, elements_along(call, value, [axis]), last), dtype=WHOLE)
    else:
        position = call.emit(ArgMax(axis, last), value, dtype=WHOLE)
    return position if call.attribute("keepdims", 1) else move(call, position, lambda array: array.squeeze(axis))


@operator("Hardmax", since=13)
def hardmax(call: Call) -> Value:
    """1 at the first of the largest elements along an axis, 0 elsewhere."""
    value = call.variable(0)
    axis = call.axis(len(value.shape), -1)
    elements = elements_along(call, value, [axis])
    if len(elements) == 1:
        return scale(call, value, 0.0, 1.0)
    wins = _wins(call, elements, last=False)
    return call.emit(Concat(axis, (1,) * len(wins)), *wins)


def _position_of_largest(call: Call, elements: list[Variable], last: bool) -> Variable:
    """The sum of i times whether i wins."""
    wins = _wins(call, elements, last)
    terms = [win if place == 1 else scale(call, win, float(place)) for place, win in enumerate(wins[1:], start=1)]
    if len(terms) == 1:
        return terms[0]
    total = call.emit(Clip(0.0, len(elements) - 1.0), call.emit(Add((1,) * len(terms)), *terms))
    return call.emit(Round(), total)  # so that rounded bounds of a decided position are that integer


def _wins(call: Call, elements: list[Variable], last: bool) -> list[Variable]:
    """1 for the element that exceeds all before it and is not exceeded behind it, or the other way round where the
    `last` of equals counts; 0 for the others."""
    before, behind = _running_maxima(call, elements), _running_maxima(call, elements[::-1])[::-1]
    found = []
    for place, element in enumerate(elements):
        rivals = [(not last, before[place - 1])] if place else []
        rivals += [(last, behind[place + 1])] if place + 1 < len(elements) else []
        ahead = [call.emit(Positive(strict), call.emit(Add((1, -1)), element, rival)) for strict, rival in rivals]
        found.append(ahead[0] if len(ahead) == 1 else call.emit(Minimum(), *ahead))
    return found


def _running_maxima(call: Call, elements: list[Variable]) -> list[Variable]:
    found = elements[:1]
    for element in elements[1:]:
        found.append(call.emit(Maximum(), found[-1], element))
    return found
