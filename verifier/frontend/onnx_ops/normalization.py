"""BatchNormalization with stored statistics, and normalisations that compute theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import broadcast, scale
from verifier.frontend.onnx_ops.reductions import add_up
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Value, Variable
from verifier.ops import Add, Clip, Multiply, Power


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
    normal = _standardised(call, value, range(2, len(value.shape)), call.attribute("epsilon", 1e-5))
    return scale(call, normal, gamma, beta)


@operator("LayerNormalization", since=17)
def layer_normalization(call: Call) -> Value:
    value = call.variable(0)
    axes = range(call.axis(len(value.shape), -1), len(value.shape))
    normal = _standardised(call, value, axes, call.attribute("epsilon", 1e-5))
    bias = call.constant(2, "bias") if call.has(2) else None
    return scale(call, normal, call.constant(1, "scale"), bias)


def _standardised(call: Call, value: Variable, axes: Sequence[int], epsilon: float) -> Variable:
    """(x - mean) / sqrt(variance + epsilon) over `axes`."""
    share = 1 / np.prod([value.shape[axis] for axis in axes])
    mean = broadcast(call, scale(call, add_up(call, value, axes), share), value.shape)
    centred = call.emit(Add((1, -1)), value, mean)
    squares = call.emit(Clip(0.0, np.inf), add_up(call, call.emit(Power(2.0), centred), axes))  # whatever bounds say
    inverse = call.emit(Power(-0.5), scale(call, squares, share, epsilon))
    return call.emit(Multiply(), centred, broadcast(call, inverse, value.shape))
