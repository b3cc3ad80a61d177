"""Gather, Scatter and OneHot: a Select where the positions are constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.lowering import move, positions, reshape, scale, select
from verifier.frontend.onnx_ops.registry import Call, normalise, operator
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Add, Concat, Gather, IsNonzero, Reshape, ScatterND


@operator("Gather", constants=True)
def gather(call: Call) -> Value:
    data, indices = call.value(0), call.value(1)
    axis = call.axis(len(data.shape), 0)
    if isinstance(indices, Known):
        chosen = indices.array
        if chosen.size and not (-data.shape[axis] <= chosen.min() and chosen.max() < data.shape[axis]):
            raise ValueError(f"an index lies outside of an axis of size {data.shape[axis]}")
        return move(call, data, lambda array: np.take(array, chosen, axis))
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    return call.emit(Gather(axis), call.variable(0), call.variable(1), dtype=data.dtype, shape=shape)


@operator("GatherElements", since=11, constants=True)
def gather_elements(call: Call) -> Value:
    data = call.value(0)
    axis, chosen = call.axis(len(data.shape), 0), call.constant(1, "indices")
    cut = tuple(slice(size) if place != axis else slice(None) for place, size in enumerate(chosen.shape))
    return move(call, data, lambda array: np.take_along_axis(array[cut], chosen, axis))


@operator("GatherND", since=11, constants=True)
def gather_nd(call: Call) -> Value:
    chosen, leading = call.constant(1, "indices"), call.attribute("batch_dims", 0)
    own = np.indices(chosen.shape[:-1], sparse=True)[:leading]
    return move(call, call.value(0), lambda array: array[(*own, *np.moveaxis(chosen, -1, 0))])


@operator("ScatterND", since=11)
def scatter_nd(call: Call) -> Value:
    if call.attribute("reduction", "none") != "none":
        raise UnsupportedError("reductions are not supported")
    indices = call.value(1)
    if not isinstance(indices, Known):
        nodes = (call.variable(0), call.variable(1), call.variable(2))
        return call.emit(ScatterND(), *nodes, shape=nodes[0].shape)
    chosen = indices.array

    def write(target: np.ndarray, updates: np.ndarray) -> None:
        target[tuple(np.moveaxis(chosen, -1, 0))] = updates

    return _written(call, write)


@operator("ScatterElements", since=11)
@operator("Scatter", since=9)
def scatter_elements(call: Call) -> Value:
    if call.attribute("reduction", "none") != "none":
        raise UnsupportedError("reductions are not supported")
    axis, chosen = call.axis(len(call.value(0).shape), 0), call.constant(1, "indices")

    def write(target: np.ndarray, updates: np.ndarray) -> None:
        cut = tuple(slice(size) if place != axis else slice(None) for place, size in enumerate(chosen.shape))
        np.put_along_axis(target[cut], chosen, updates, axis)

    return _written(call, write)


def _written(call: Call, write: Callable[[np.ndarray, np.ndarray], None]) -> Value:
    """Data (input 0) with updates (input 2) written into it: `write` moves positions in the two laid end to end."""
    data, updates = call.variable(0), call.variable(2)
    index = positions(data.shape)
    write(index, positions(updates.shape) + index.size)
    parts = [call.emit(Reshape(value.shape, (_size(value),)), value) for value in (data, updates)]
    joined = call.emit(Concat(0, (_size(data), _size(updates))), *parts)
    return replace(select(call, joined, index), dtype=data.dtype)


def _size(value: Variable) -> int:
    return int(np.prod(value.shape, dtype=np.int64))


@operator("OneHot", since=9)
def one_hot(call: Call) -> Value:
    """1 where the position is p, or p - depth: it is counted from behind. At most one of the two is 1."""
    position = call.variable(0)
    depth, (off, on) = int(call.constant(1, "depth").reshape(-1)[0]), call.constant(2, "values")
    rank = len(position.shape) + 1
    axis = normalise(call.attribute("axis", -1), rank)
    wide = reshape(call, position, (*position.shape[:axis], 1, *position.shape[axis:]))
    place = np.arange(depth, dtype=np.float64).reshape(depth, *(1,) * (rank - axis - 1))
    misses = [call.emit(IsNonzero(0.5), scale(call, wide, None, shift)) for shift in (-place, depth - place)]
    gap = float(on) - float(off)
    both = replace(call.emit(Add((1, 1)), *misses), dtype=call.value(2).dtype)
    return scale(call, both, -gap, 2 * gap + float(off))
