"""BatchNormalization with stored statistics, and normalisations that compute theirs: over instances, groups, layers,
neighbouring channels, or by a norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import along, broadcast, reshape, scale
from verifier.frontend.onnx_ops.quotients import product, within
from verifier.frontend.onnx_ops.reductions import add_up
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Value, Variable, known
from verifier.ops import Abs, Add, IsNonzero, Multiply, Power, Reciprocal, Where


@operator("BatchNormalization", since=7)
def batch_normalization(call: Call) -> Value:
    """Two steps, x - mean and the rest, so that no cancellation is hidden in a constant."""
    if call.attribute("training_mode", 0) or len(call.node.output) > 1:
        raise UnsupportedError("it is in training mode; export the network for inference")
    value = call.variable(0)
    shape = (-1, *(1,) * (len(value.shape) - 2))
    gamma, beta, mean, variance = (
        call.constant(index, what).reshape(shape)
        for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    factor = gamma / np.sqrt(variance + call.attribute("epsilon", 1e-5))
    return scale(call, scale(call, value, None, -mean), factor, beta)


@operator("InstanceNormalization", since=6)
def instance_normalization(call: Call) -> Value:
    value = call.variable(0)
    shape = (-1, *(1,) * (len(value.shape) - 2))
    gamma, beta = (call.constant(index, what).reshape(shape) for index, what in ((1, "scale"), (2, "bias")))
    normal = _standardised(call, value, range(2, len(value.shape)), _epsilon(call))
    return scale(call, normal, gamma, beta)


@operator("LayerNormalization", since=17)
def layer_normalization(call: Call) -> Value:
    value = call.variable(0)
    axes = range(call.axis(len(value.shape), -1), len(value.shape))
    normal = _standardised(call, value, axes, _epsilon(call))
    bias = call.constant(2, "bias") if call.has(2) else None
    return scale(call, normal, call.constant(1, "scale"), bias)


@operator("GroupNormalization", since=18)
def group_normalization(call: Call) -> Value:
    """Scale and bias of each group, or from opset 21 on of each channel."""
    value, groups = call.variable(0), call.attribute("num_groups", 1)
    channels = value.shape[1]
    size = int(np.prod(value.shape[1:], dtype=np.int64)) // groups
    grouped = reshape(call, value, (value.shape[0], groups, size))
    normal = _standardised(call, grouped, [2], _epsilon(call))
    gamma, beta = (
        np.repeat(call.constant(index, what), channels // call.value(index).shape[0]).reshape(
            -1, *(1,) * (len(value.shape) - 2)
        )
        for index, what in ((1, "scale"), (2, "bias"))
    )
    return scale(call, reshape(call, normal, value.shape), gamma, beta)


@operator("RMSNormalization", since=23)
def rms_normalization(call: Call) -> Value:
    value = call.variable(0)
    axes = range(call.axis(len(value.shape), -1), len(value.shape))
    inverse = _inverse_root(call, value, axes, _epsilon(call))
    return scale(call, product(call, value, inverse), call.constant(1, "scale"))


@operator("LRN")
def local_response_normalization(call: Call) -> Value:
    """x / (bias + alpha / size * sum of squares of `size` neighbouring channels) ^ beta."""
    value, size = call.variable(0), call.attribute("size", 1)
    place = np.arange(value.shape[1])
    apart = place[None, :] - place[:, None]  # of channel [1] behind channel [0]
    near = (apart >= -((size - 1) // 2)) & (apart <= size // 2)
    squares = along(call, call.emit(Power(2.0), value), 1, near.astype(np.float64))
    below = scale(call, squares, call.attribute("alpha", 1e-4) / size, call.attribute("bias", 1.0))
    return call.emit(Multiply(), value, call.emit(Power(-call.attribute("beta", 0.75)), below))


@operator("LpNormalization")
def lp_normalization(call: Call) -> Value:
    """x over its norm along an axis; 0 where that is 0."""
    value = call.variable(0)
    axis = call.axis(len(value.shape), -1)
    absolute = call.attribute("p", 2) == 1
    size = call.emit(Abs() if absolute else Power(2.0), value)
    total = broadcast(call, add_up(call, size, [axis]), value.shape)
    share = call.emit(Multiply(), value, call.emit(Reciprocal() if absolute else Power(-0.5), total))
    share = within(call, share, 1.0)
    return call.emit(Where(), call.emit(IsNonzero(), total), share, call.materialise(known(np.zeros(value.shape))))


def _standardised(call: Call, value: Variable, axes: Sequence[int], epsilon: float) -> Variable:
    """(x - mean) / sqrt(variance + epsilon) over `axes`."""
    count = _count(value, axes)
    mean = broadcast(call, scale(call, add_up(call, value, axes), 1 / count), value.shape)
    centred = call.emit(Add((1, -1)), value, mean)
    normal = call.emit(Multiply(), centred, _inverse_root(call, centred, axes, epsilon))
    return within(call, normal, np.sqrt(count - 1))  # since the sum is 0


def _inverse_root(call: Call, value: Variable, axes: Sequence[int], epsilon: float) -> Variable:
    """1 / sqrt(mean of squares + epsilon) over `axes`, repeated to the value's shape."""
    squares = add_up(call, call.emit(Power(2.0), value), axes)
    mean = scale(call, squares, 1 / _count(value, axes), epsilon)
    return broadcast(call, call.emit(Power(-0.5), mean), value.shape)


def _count(value: Variable, axes: Sequence[int]) -> int:
    return math.prod(value.shape[axis] for axis in axes)


def _epsilon(call: Call) -> float:
    """Never negative, on which `within` rests."""
    epsilon = float(call.attribute("epsilon", 1e-5))
    if epsilon < 0:
        raise UnsupportedError(f"its epsilon, {epsilon:g}, is negative")
    return epsilon
