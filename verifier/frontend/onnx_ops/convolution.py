"""Conv and ConvTranspose with constant weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verifier.errors import ModelError, UnsupportedError
from verifier.frontend.onnx_ops.registry import Call, operator, tensor
from verifier.frontend.onnx_ops.values import Value
from verifier.ops import Conv, ConvTranspose
from verifier.ops.window import Window


@operator("Conv")
def conv(call: Call) -> Value:
    value, weight = call.variable(0), call.constant(1, "weights")
    kernel, groups = weight.shape[2:], call.attribute("group", 1)
    wide, batch = value.shape[2:], value.shape[0]
    _check(len(value.shape), value.shape[1], weight.shape[1] * groups, weight)
    stride, dilation = spatial(call, "strides", len(kernel)), spatial(call, "dilations", len(kernel))
    begin, end = paddings(call, wide, kernel, stride, dilation)
    narrow = tuple(
        (w + b + e - d * (k - 1) - 1) // s + 1
        for w, b, e, d, k, s in zip(wide, begin, end, dilation, kernel, stride, strict=True)
    )
    if min(narrow) < 1:
        raise ModelError(f"a kernel of size {list(kernel)} does not fit into {list(wide)}")
    window = Window(wide, narrow, kernel, stride, dilation, begin, groups)
    bias = tensor(call.constant(2, "bias")) if call.has(2) else None
    return call.emit(Conv(tensor(weight), window, bias), value, shape=(batch, weight.shape[0], *narrow))


@operator("ConvTranspose")
def conv_transpose(call: Call) -> Value:
    value, weight = call.variable(0), call.constant(1, "weights")
    kernel, groups = weight.shape[2:], call.attribute("group", 1)
    narrow, batch, rank = value.shape[2:], value.shape[0], len(weight.shape) - 2
    _check(len(value.shape), value.shape[1], weight.shape[0], weight)
    stride, dilation = spatial(call, "strides", rank), spatial(call, "dilations", rank)
    extra = tuple(call.integers("output_padding", default=[0] * rank) or ())
    full = [
        (n - 1) * s + d * (k - 1) + 1 + x for n, s, d, k, x in zip(narrow, stride, dilation, kernel, extra, strict=True)
    ]
    wanted, mode = call.integers("output_shape"), call.attribute("auto_pad", "NOTSET")
    if wanted is None and mode.startswith("SAME"):
        wanted = [n * s for n, s in zip(narrow, stride, strict=True)]
    if wanted is not None:
        total = [max(f - w, 0) for f, w in zip(full, wanted[-rank:], strict=True)]
        begin = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total)
        wide = tuple(wanted[-rank:])
    else:
        pads = [0] * 2 * rank if mode == "VALID" else call.integers("pads", default=[0] * 2 * rank) or []
        begin = tuple(pads[:rank])
        wide = tuple(f - b - e for f, b, e in zip(full, begin, pads[rank:], strict=True))
    window = Window(wide, narrow, kernel, stride, dilation, begin, groups)
    bias = tensor(call.constant(2, "bias")) if call.has(2) else None
    channels = weight.shape[1] * groups
    return call.emit(ConvTranspose(tensor(weight), window, bias), value, shape=(batch, channels, *wide))


def _check(rank: int, channels: int, expected: int, weight: np.ndarray) -> None:
    if rank != weight.ndim or channels != expected:
        raise ModelError(f"weights of shape {list(weight.shape)} do not fit {channels} channels on {rank} axes")
    if not 3 <= rank <= 5:
        raise UnsupportedError(f"convolutions over {rank - 2} axes are not supported, only over one, two or three")


def spatial(call: Call, name: str, rank: int) -> tuple[int, ...]:
    """A number for each spatial axis, 1 by default."""
    return tuple(call.integers(name, default=[1] * rank) or ())


def paddings(
    call: Call, wide: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding in front of and behind each spatial axis, by `pads` or `auto_pad`."""
    rank, mode = len(wide), call.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = call.integers("pads", default=[0] * 2 * rank) or []
        return tuple(pads[:rank]), tuple(pads[rank:])
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    total = [
        max((-(-w // s) - 1) * s + d * (k - 1) + 1 - w, 0)
        for w, s, d, k in zip(wide, stride, dilation, kernel, strict=True)
    ]
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (small, large) if mode == "SAME_UPPER" else (large, small)
