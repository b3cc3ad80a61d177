"""QuantizeLinear and DequantizeLinear: scales, rounding to the nearest integer (halves to the even one), saturation.

An integer tensor travels as the numbers it holds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_file import TYPES, type_name
from verifier.frontend.onnx_ops.lowering import scale
from verifier.frontend.onnx_ops.registry import Call, normalise, operator
from verifier.frontend.onnx_ops.values import Known, Value, known
from verifier.ops import Clip, Round


@operator("QuantizeLinear", since=10)
def quantize(call: Call) -> Value:
    """round(x / step) + zero, kept in the range of the type."""
    value = call.variable(0)
    step, zero = _parameters(call, value)
    target = _target(call)
    limits = np.iinfo(target)
    whole = scale(call, call.emit(Round(), scale(call, value, 1 / step)), None, zero)
    return call.emit(Clip(float(limits.min), float(limits.max)), whole, dtype=target)


@operator("DequantizeLinear", since=10, constants=True)
def dequantize(call: Call) -> Value:
    """(x - zero) step."""
    value = call.value(0)
    step, zero = _parameters(call, value)
    kind = call.value(1).dtype
    if isinstance(value, Known):
        return known((value.array - zero) * step, kind)
    return replace(scale(call, scale(call, value, None, -zero), step), dtype=kind)


def _parameters(call: Call, value: Value) -> tuple[np.ndarray, np.ndarray]:
    """The step and the zero point, in float64, of one shape that broadcasts to the value's."""
    if call.attribute("block_size", 0):
        raise UnsupportedError("blocks along the axis are not supported")
    step = call.constant(1, "scale")
    zero = call.constant(2, "zero point").astype(np.float64) if call.has(2) else np.zeros_like(step)
    if step.ndim != 1 or step.size == 1:
        return step.reshape(()), zero.reshape(())
    shape = [1] * len(value.shape)
    shape[normalise(call.attribute("axis", 1), len(value.shape))] = -1
    return step.reshape(shape), zero.reshape(shape)


def _target(call: Call) -> np.dtype:
    if call.has(2):
        return call.value(2).dtype
    code = call.attribute("output_dtype", 0)
    if code and code not in TYPES:
        raise UnsupportedError(f"the output type {type_name(code)} is not supported")
    return TYPES[code] if code else np.dtype(np.uint8)
