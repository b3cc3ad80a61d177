"""Steps that several operator families share: moving data by index arrays, and making broadcasting explicit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from verifier.frontend.onnx_ops.registry import Call, tensor
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Linear, Permute, Reshape, Scale, Select


def positions(shape: Sequence[int]) -> np.ndarray:
    """Flat position of each element, `[*shape]`: what a movement of data is applied to, to find its index."""
    return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(shape)


def move(call: Call, value: Value, function: Callable[[np.ndarray], np.ndarray]) -> Value:
    """`function` only moves numbers: applied to a known array, or to the positions of a variable."""
    if isinstance(value, Known):
        return Known(np.array(function(value.array), order="C"), value.dtype)
    return select(call, value, function(positions(value.shape)))


def select(call: Call, value: Variable, index: np.ndarray) -> Variable:
    """Elements of `value` at flat positions `index` (-1: zero); a Reshape, or nothing, where that is enough."""
    size = int(np.prod(value.shape, dtype=np.int64))
    if index.size == size and np.array_equal(index.reshape(-1), np.arange(size)):
        return reshape(call, value, index.shape)
    return call.emit(Select(torch.from_numpy(np.array(index, dtype=np.int64)), value.shape), value)


def reshape(call: Call, value: Variable, shape: Sequence[int]) -> Variable:
    if tuple(shape) == value.shape:
        return value
    return call.emit(Reshape(value.shape, tuple(int(size) for size in shape)), value)


def permute(call: Call, value: Variable, axes: Sequence[int]) -> Variable:
    if list(axes) == list(range(len(axes))):
        return value
    return call.emit(Permute(tuple(int(axis) for axis in axes)), value)


def broadcast(call: Call, value: Variable, shape: Sequence[int]) -> Variable:
    """`value` repeated to `shape` by numpy's rules."""
    if value.shape == tuple(shape):
        return value
    return select(call, value, np.broadcast_to(positions(value.shape), shape))


def together(call: Call, values: Sequence[Value]) -> list[Variable]:
    """All values as nodes of their common shape."""
    shape = np.broadcast_shapes(*(value.shape for value in values))
    return [broadcast(call, call.materialise(value), shape) for value in values]


def scale(
    call: Call, value: Variable, factor: np.ndarray | float | None, shift: np.ndarray | float | None = None
) -> Variable:
    """factor * value + shift; the constants may broadcast the value to a larger shape."""
    shapes = [np.shape(constant) for constant in (factor, shift) if constant is not None]
    value = broadcast(call, value, np.broadcast_shapes(value.shape, *shapes))
    constants = [None if constant is None else tensor(np.asarray(constant)) for constant in (factor, shift)]
    return call.emit(Scale(*constants), value)


def elements_along(call: Call, value: Variable, axes: Sequence[int]) -> list[Variable]:
    """One node for each element along the axes, which stay with size 1."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    order = [*axes, *(axis for axis in range(len(value.shape)) if axis not in axes)]
    count = int(np.prod([value.shape[axis] for axis in axes], dtype=np.int64))
    rows = positions(value.shape).transpose(order).reshape(count, *kept)
    return [select(call, value, row) for row in rows] if count != 1 else [value]


def along(call: Call, value: Variable, axis: int, matrix: np.ndarray) -> Variable:
    """`matrix` `[out, in]` applied to one axis."""
    order = [*(place for place in range(len(value.shape)) if place != axis), axis]
    moved = call.emit(Linear(tensor(matrix)), permute(call, value, order))
    return permute(call, moved, np.argsort(order).tolist())
