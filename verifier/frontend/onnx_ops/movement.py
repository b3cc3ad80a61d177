"""Operators that only move numbers: a Reshape, a Permute, a Concat, or a Select found by moving positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from verifier.errors import ModelError, UnsupportedError
from verifier.frontend.onnx_ops.lowering import broadcast, move, permute, positions, reshape, scale, select
from verifier.frontend.onnx_ops.registry import Call, normalise, operator
from verifier.frontend.onnx_ops.values import Known, Value
from verifier.ops import Concat, Slice


@operator("Reshape", constants=True)
def reshape_to(call: Call) -> Value:
    value = call.value(0)
    shape = [int(size) for size in call.constant(1, "new shape").reshape(-1)]
    if not call.attribute("allowzero", 0):
        shape = [value.shape[place] if size == 0 else size for place, size in enumerate(shape)]
    return _reshaped(call, value, shape)


def _reshaped(call: Call, value: Value, shape: Sequence[int]) -> Value:
    if isinstance(value, Known):
        return Known(value.array.reshape(shape), value.dtype)
    return reshape(call, value, np.empty(value.shape, dtype=np.bool_).reshape(shape).shape)


@operator("Flatten", constants=True)
def flatten(call: Call) -> Value:
    value = call.value(0)
    axis = call.attribute("axis", 1)
    axis = axis + len(value.shape) if axis < 0 else axis
    sizes = [int(np.prod(part, dtype=np.int64)) for part in (value.shape[:axis], value.shape[axis:])]
    return _reshaped(call, value, sizes)


@operator("Squeeze", constants=True)
def squeeze(call: Call) -> Value:
    value = call.value(0)
    axes = call.integers("axes", 1)
    places = [place for place, size in enumerate(value.shape) if size == 1] if axes is None else axes
    return _reshaped(call, value, np.squeeze(np.empty(value.shape, dtype=np.bool_), tuple(places)).shape)


@operator("Unsqueeze", constants=True)
def unsqueeze(call: Call) -> Value:
    value = call.value(0)
    axes = call.integers("axes", 1)
    if axes is None:
        raise ModelError("its axes are missing")
    return _reshaped(call, value, np.expand_dims(np.empty(value.shape, dtype=np.bool_), tuple(axes)).shape)


@operator("Transpose", constants=True)
def transpose(call: Call) -> Value:
    value = call.value(0)
    axes = call.integers("perm", default=range(len(value.shape))[::-1])
    if isinstance(value, Known):
        return Known(value.array.transpose(axes), value.dtype)
    return permute(call, value, axes or ())


@operator("Identity", "Dropout", constants=True)
def identity(call: Call) -> Value:
    if call.has(2) and call.constant(2, "training mode").any():
        raise UnsupportedError("it is in training mode; export the network for inference")
    return call.value(0)


@operator("Concat", constants=True)
def concat(call: Call) -> Value:
    values = [call.value(index) for index in range(len(call.inputs))]
    axis = call.axis(len(values[0].shape), None)
    if all(isinstance(value, Known) for value in values):
        return Known(np.concatenate([v.array for v in values if isinstance(v, Known)], axis), values[0].dtype)
    if len({value.shape[:axis] + value.shape[axis + 1 :] for value in values}) > 1:
        raise ValueError("the sizes of the other axes differ")
    if len(values) == 1:
        return values[0]
    nodes = [call.materialise(value) for value in values]
    return call.emit(Concat(axis, tuple(value.shape[axis] for value in nodes)), *nodes)


@operator("Split", constants=True)
def split(call: Call) -> Sequence[Value]:
    value = call.value(0)
    axis = call.axis(len(value.shape), 0)
    count, size = len(call.node.output), value.shape[axis]
    sizes = call.integers("split", 1)
    if sizes is None:
        chunk = -(-size // count)
        sizes = [min(chunk, size - chunk * place) for place in range(count)]
    if sum(sizes) != size or min(sizes) < 0:
        raise ValueError(f"parts of sizes {sizes} do not make up an axis of size {size}")
    ends = np.cumsum(sizes).tolist()
    parts = (range(end - length, end) for end, length in zip(ends, sizes, strict=True))
    return [move(call, value, partial(np.take, indices=np.array(part, dtype=np.int64), axis=axis)) for part in parts]


@operator("Slice", constants=True)
def slice_by_attributes(call: Call) -> Value:
    starts, ends = call.integers("starts"), call.integers("ends")
    if starts is None or ends is None:
        raise ModelError("its starts or ends are missing")
    axes = call.integers("axes", default=range(len(starts))) or []
    return _sliced(call, call.value(0), axes, starts, ends, [1] * len(starts))


@operator("Slice", since=10, constants=True)
def slice_by_inputs(call: Call) -> Value:
    count = call.value(1).shape[0]
    axes = call.integers("axes", 3, default=range(count)) or []
    steps = call.integers("steps", 4, default=[1] * count) or []
    starts, ends = call.value(1), call.value(2)
    if isinstance(starts, Known) and isinstance(ends, Known):
        return _sliced(call, call.value(0), axes, starts.array.tolist(), ends.array.tolist(), steps)
    if count != 1:
        raise UnsupportedError("it cuts several axes at positions that depend on the network's input")
    data, axis = call.value(0), normalise(axes[0], len(call.value(0).shape))
    size, step = data.shape[axis], steps[0]
    samples = zip(call.builder.sample(starts).ravel(), call.builder.sample(ends).ravel(), strict=True)
    counts = [len(range(size)[int(start) : int(end) : step]) for start, end in samples]
    length = call.builder.common(np.array(counts), "the size of its result")
    nodes = [call.materialise(value) for value in (data, starts, ends)]
    return call.emit(Slice(axis, length, step), *nodes)


def _sliced(
    call: Call, value: Value, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int], steps: Sequence[int]
) -> Value:
    cuts = [slice(None)] * len(value.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = normalise(int(axis), len(value.shape))
        cuts[axis] = _python_slice(int(start), int(end), int(step), value.shape[axis])
    return move(call, value, lambda array: array[tuple(cuts)])


def _python_slice(start: int, end: int, step: int, size: int) -> slice:
    """ONNX clamps after adding the size once; Python's None is "to the very beginning" of a backward slice."""
    start, end = (place + size if place < 0 else place for place in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, -1), size - 1), min(max(end, -1), size - 1)
    return slice(0, 0, 1) if start < 0 else slice(start, None if end < 0 else end, step)


@operator("Expand", constants=True)
def expand(call: Call) -> Value:
    value = call.value(0)
    shape = np.broadcast_shapes(value.shape, tuple(int(size) for size in call.constant(1, "new shape")))
    if isinstance(value, Known):
        return Known(np.broadcast_to(value.array, shape), value.dtype)
    return broadcast(call, value, shape)


@operator("Tile", constants=True)
def tile(call: Call) -> Value:
    repeats = call.constant(1, "repeats")
    return move(call, call.value(0), lambda array: np.tile(array, repeats))


@operator("DepthToSpace", constants=True)
def depth_to_space(call: Call) -> Value:
    block, column_first = call.attribute("blocksize", 1), call.attribute("mode", "DCR") == "DCR"

    def function(array: np.ndarray) -> np.ndarray:
        n, c, h, w = array.shape
        depth = c // block**2
        if column_first:
            parts = array.reshape(n, block, block, depth, h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            parts = array.reshape(n, depth, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
        return parts.reshape(n, depth, h * block, w * block)

    return move(call, call.value(0), function)


@operator("SpaceToDepth", constants=True)
def space_to_depth(call: Call) -> Value:
    block = call.attribute("blocksize", 1)

    def function(array: np.ndarray) -> np.ndarray:
        n, c, h, w = array.shape
        parts = array.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * block**2, h // block, w // block)

    return move(call, call.value(0), function)


@operator("Trilu", since=14, constants=True)
def triangle(call: Call) -> Value:
    """The upper or lower triangle of the last two axes, 0 elsewhere."""
    value, shift = call.value(0), int(call.constant(1, "diagonal").reshape(())) if call.has(1) else 0
    cut = np.triu if call.attribute("upper", 1) else np.tril
    if isinstance(value, Known):
        return Known(cut(value.array, shift), value.dtype)
    return select(call, value, cut(positions(value.shape) + 1, shift) - 1)


@operator("Pad", constants=True)
def pad(call: Call) -> Value:
    value, mode = call.value(0), call.attribute("mode", "constant")
    rank = len(value.shape)
    amounts = call.integers("pads", 1) or []
    axes = [normalise(axis, rank) for axis in (call.integers("axes", 3) or range(rank))]
    before, behind = np.zeros(rank, dtype=int), np.zeros(rank, dtype=int)
    before[axes], behind[axes] = amounts[: len(axes)], amounts[len(axes) :]
    fill = call.constant(2, "fill value").reshape(-1)[0] if call.has(2) else call.attribute("value", 0.0)
    widths = list(zip(np.maximum(before, 0), np.maximum(behind, 0), strict=True))
    crop = tuple(slice(max(-b, 0), n - max(-e, 0)) for b, e, n in zip(before, behind, value.shape, strict=True))

    def function(array: np.ndarray, outside: float) -> np.ndarray:
        if mode == "constant":
            return np.pad(array[crop], widths, constant_values=outside)
        return np.pad(array[crop], widths, mode=mode)

    if isinstance(value, Known):
        return Known(function(value.array, fill), value.dtype)
    index = function(positions(value.shape), -1)
    moved = select(call, value, index)
    return moved if fill == 0 or mode != "constant" else scale(call, moved, None, np.where(index < 0, fill, 0.0))
