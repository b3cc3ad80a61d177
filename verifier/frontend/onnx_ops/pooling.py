"""MaxPool as a Maximum of moved copies, AveragePool and LpPool by convolutions of each channel."""

from __future__ import annotations

import numpy as np
import torch

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.convolution import paddings, spatial
from verifier.frontend.onnx_ops.lowering import positions, scale, select
from verifier.frontend.onnx_ops.reductions import add_up
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Value, Variable
from verifier.ops import Abs, Clip, Conv, Maximum, Power, Sqrt
from verifier.ops.window import Window


@operator("MaxPool")
def max_pool(call: Call) -> Value:
    """Padding never counts: where a window reaches into it, an element of the same window is repeated instead."""
    if len(call.node.output) > 1:
        raise UnsupportedError("its second output, the positions of the maxima, is not supported")
    value = call.variable(0)
    window, _ = _window(call, value)
    places = _places(window)
    valid = np.stack([_inside(window.wide, place) for place in places])
    if not valid.any(0).all():
        raise UnsupportedError("a window lies in the padding entirely")
    first = valid.argmax(0)
    flat = np.stack([_flat(window.wide, place) for place in places])
    chosen = np.where(valid, flat, np.take_along_axis(flat, first[None], 0))
    index = positions(value.shape).reshape(*value.shape[:2], -1)
    copies = [select(call, value, index[..., row]) for row in chosen]
    return call.emit(Maximum(), *copies) if len(copies) > 1 else copies[0]


@operator("AveragePool")
def average_pool(call: Call) -> Value:
    value = call.variable(0)
    window, end = _window(call, value)
    counted = window.wide
    inside = np.stack([_inside(counted, place) for place in _places(window)])
    if call.attribute("count_include_pad", 0):
        padded = [w + b + e for w, b, e in zip(window.wide, window.begin, end, strict=True)]
        shifted = [tuple(axis + b for axis, b in zip(place, window.begin, strict=True)) for place in _places(window)]
        inside = np.stack([_inside(padded, place) for place in shifted])
    counts, size = inside.sum(0), len(inside)
    full = bool((counts == size).all())
    weight = torch.full((value.shape[1], 1, *window.kernel), 1 / size if full else 1.0, dtype=torch.float64)
    shape = (*value.shape[:2], *window.narrow)
    total = call.emit(Conv(weight, window), value, shape=shape)
    return total if full else scale(call, total, 1 / counts)


@operator("LpPool", since=2)
def lp_pool(call: Call) -> Value:
    """The p-norm over each window; padding counts as 0."""
    value, order = call.variable(0), call.attribute("p", 2)
    window, _ = _window(call, value)
    weight = torch.ones((value.shape[1], 1, *window.kernel), dtype=torch.float64)
    shape = (*value.shape[:2], *window.narrow)
    return _root(call, call.emit(Conv(weight, window), _powers(call, value, order), shape=shape), order)


@operator("GlobalLpPool", since=2)
def global_lp_pool(call: Call) -> Value:
    value, order = call.variable(0), call.attribute("p", 2)
    return _root(call, add_up(call, _powers(call, value, order), range(2, len(value.shape))), order)


def _powers(call: Call, value: Variable, order: int) -> Variable:
    """|x| ^ p."""
    if order % 2 == 0:
        return call.emit(Power(float(order)), value)
    size = call.emit(Abs(), value)
    return size if order == 1 else call.emit(Power(float(order)), size)


def _root(call: Call, total: Variable, order: int) -> Variable:
    """The p-th root of a sum of powers, which is never negative, whatever its bounds say."""
    if order == 1:
        return total
    return call.emit(Sqrt() if order == 2 else Power(1 / order), call.emit(Clip(0.0, np.inf), total))


def _window(call: Call, value: Variable) -> tuple[Window, tuple[int, ...]]:
    """The geometry, and the padding behind each axis as the attributes give it."""
    kernel, wide = tuple(call.integers("kernel_shape") or ()), value.shape[2:]
    rank = len(kernel)
    if rank != len(wide) or not 1 <= rank <= 3:
        raise UnsupportedError(f"a window over {rank} axes does not fit a tensor of shape {list(value.shape)}")
    stride, dilation = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    begin, end = paddings(call, wide, kernel, stride, dilation)
    narrow = []
    for w, b, e, k, s, d in zip(wide, begin, end, kernel, stride, dilation, strict=True):
        rest = w + b + e - d * (k - 1) - 1
        size = (-(-rest // s) if call.attribute("ceil_mode", 0) else rest // s) + 1
        narrow.append(size - 1 if (size - 1) * s >= w + b else size)
    return Window(wide, tuple(narrow), kernel, stride, dilation, begin, value.shape[1]), end


def _places(window: Window) -> list[tuple[np.ndarray, ...]]:
    """For each kernel element, the wide coordinates it meets: one array for each axis, broadcast to `[*narrow]`."""
    starts = np.indices(window.narrow)
    return [
        tuple(
            starts[axis] * window.stride[axis] - window.begin[axis] + offset * window.dilation[axis]
            for axis, offset in enumerate(offsets)
        )
        for offsets in np.ndindex(*window.kernel)
    ]


def _inside(sizes: tuple[int, ...] | list[int], place: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.all([(axis >= 0) & (axis < size) for axis, size in zip(place, sizes, strict=True)], axis=0)


def _flat(sizes: tuple[int, ...], place: tuple[np.ndarray, ...]) -> np.ndarray:
    """Row-major positions `[*narrow]`; what lies outside is clipped, and replaced by the caller."""
    return np.ravel_multi_index(place, sizes, mode="clip")
