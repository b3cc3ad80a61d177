"""Constants, and what turns shapes into values: Constant, Shape, Size, ConstantOfShape, Range, Cast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_file import TYPES, type_name
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Known, Value, known
from verifier.ops import IsNonzero, Range, Truncate


@operator("Constant", constants=True)
def constant(call: Call) -> Value:
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if (number := call.attribute(name, None)) is not None:
            return known(np.asarray(number), np.dtype(dtype))
    for name in ("value_int", "value_ints"):
        if (number := call.attribute(name, None)) is not None:
            return known(np.asarray(number, dtype=np.int64))
    value = call.attribute("value", None)
    if not isinstance(value, Known):
        raise UnsupportedError("only constants of numbers are supported")
    return value


@operator("Shape", constants=True)
def shape(call: Call) -> Value:
    sizes = call.value(0).shape
    return known(np.array(sizes[call.attribute("start", 0) : call.attribute("end", None)], dtype=np.int64))


@operator("Size", constants=True)
def size(call: Call) -> Value:
    return known(np.array(np.prod(call.value(0).shape, dtype=np.int64)))


@operator("ConstantOfShape", since=9, constants=True)
def constant_of_shape(call: Call) -> Value:
    value = call.attribute("value", None)
    sizes = tuple(int(size) for size in call.constant(0, "sizes"))
    if value is None:
        return known(np.zeros(sizes, dtype=np.float32))
    return Known(np.full(sizes, value.array.reshape(-1)[0]), value.dtype)


@operator("Range", since=11, constants=True)
def number_range(call: Call) -> Value:
    values = [call.value(index) for index in range(3)]
    kind = values[0].dtype
    if all(isinstance(value, Known) for value in values):
        start, limit, step = (value.array.reshape(()) for value in values if isinstance(value, Known))
        count = max(int(np.ceil((limit - start) / step)), 0)
        return Known((start + step * np.arange(count)).astype(start.dtype), kind)
    start, limit, step = (call.builder.sample(value) for value in values)
    count = call.builder.common(np.maximum(np.ceil((limit - start) / step), 0), "the size of its result")
    return call.emit(Range(count), *(call.materialise(value) for value in values), dtype=kind)


@operator("Cast", constants=True)
def cast(call: Call) -> Value:
    code = call.attribute("to", 0)
    if code not in TYPES:
        raise UnsupportedError(f"casts to {type_name(code)} are not supported")
    return _cast(call, TYPES[code])


@operator("CastLike", since=15, constants=True)
def cast_like(call: Call) -> Value:
    return _cast(call, call.value(1).dtype)


def _cast(call: Call, target: np.dtype) -> Value:
    """Between floating-point types nothing happens: the graph stands for the function on real numbers."""
    value = call.value(0)
    if isinstance(value, Known):
        return known(value.array.astype(target) if value.dtype != target else value.array, target)
    if target.kind == value.dtype.kind == "f" or target == value.dtype:
        return replace(value, dtype=target)
    if target.kind == "b":
        return call.emit(IsNonzero(), value, dtype=target)
    if target.kind == "f" or value.dtype.kind == "b":
        return replace(value, dtype=target)
    limits = np.iinfo(target)
    return call.emit(Truncate(float(limits.min), float(limits.max)), value, dtype=target)
