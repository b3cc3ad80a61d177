"""The geometry of convolutions, and how they and their adjoints are computed.

A window has a wide side and a narrow side; a convolution goes from wide to narrow,

    narrow[o] = sum_k  weight[k] wide[o * stride + k * dilation - begin]

with zeros outside of the wide side. Asymmetric padding and input elements that no window reaches are covered by
padding or cropping the wide side to exactly what the windows span.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from verifier.core.regions import Regions, Shape

FEW_CHANNELS = 8
MOST_TAPS = 4  # times the channels of the narrow side: what `_by_taps` makes of them at once
FEW_PLACES = 16

_CORRELATE = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
_SPREAD = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@dataclass(frozen=True)
class Window:
    """Geometry, a number for each spatial axis. `begin` is the padding in front, that behind follows from the sizes."""

    wide: tuple[int, ...]
    narrow: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    groups: int = 1

    @property
    def span(self) -> tuple[int, ...]:
        """Extent of all windows together."""
        sizes = zip(self.narrow, self.stride, self.dilation, self.kernel, strict=True)
        return tuple((narrow - 1) * stride + dilation * (kernel - 1) + 1 for narrow, stride, dilation, kernel in sizes)

    @property
    def overlap(self) -> int:
        """The most taps of the kernel that one element of the wide side meets: every `stride / gcd`-th one."""
        steps = (
            stride // math.gcd(stride, dilation) for stride, dilation in zip(self.stride, self.dilation, strict=True)
        )
        return math.prod(-(-size // step) for size, step in zip(self.kernel, steps, strict=True))

    def wide_part(self, narrow: Regions, shape: Shape) -> Regions | None:
        """What boxes of the narrow side touch of the wide side, of `shape`; None where one touches nothing."""
        reach = np.multiply(self.dilation, np.subtract(self.kernel, 1)) + 1
        start = narrow.start[:, 2:] * self.stride - self.begin
        stop = (narrow.stop[:, 2:] - 1) * self.stride - self.begin + reach
        return _clipped(start, stop, shape)

    def narrow_part(self, wide: Regions, shape: Shape) -> Regions | None:
        """The same from boxes of the wide side."""
        reach = np.multiply(self.dilation, np.subtract(self.kernel, 1))
        start = -((reach - wide.start[:, 2:] - self.begin) // self.stride)
        stop = (wide.stop[:, 2:] - 1 + self.begin) // self.stride + 1
        return _clipped(start, stop, shape)

    def offset(self, wide: Regions, narrow: Regions) -> np.ndarray:
        """`begin` of the window between boxes of the two sides, `[count, axes]`."""
        return self.begin + wide.start[:, 2:] - narrow.start[:, 2:] * self.stride

    def between(self, wide: Regions, narrow: Regions) -> Window:
        """The window between a box of each side."""
        begin = tuple(self.offset(wide, narrow)[0].tolist())
        return replace(self, wide=wide.shape()[2:], narrow=narrow.shape()[2:], begin=begin)

    def meetings(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where the kernel meets the wide side, `[meetings]` each: the place on the narrow side, the tap of the kernel
        and the place on the wide side, as flat positions."""
        place, tap = np.indices((*self.narrow, *self.kernel)).reshape(2, len(self.narrow), -1)
        column = lambda numbers: np.array(numbers)[:, None]  # noqa: E731
        read = place * column(self.stride) + tap * column(self.dilation) - column(self.begin)
        inside = ((read >= 0) & (read < column(self.wide))).all(0)
        sides = ((place, self.narrow), (tap, self.kernel), (read, self.wide))
        place, tap, read = (np.ravel_multi_index(tuple(axes[:, inside]), sizes) for axes, sizes in sides)
        return torch.from_numpy(place), torch.from_numpy(tap), torch.from_numpy(read)

    def taps(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """What the kernel reads at flat places `[...]` of the narrow side: flat places on the wide side, `[..., taps]`,
        and which of them there are; the others are given as 0."""
        place = place.unsqueeze(-1)
        tap = torch.arange(math.prod(self.kernel), device=place.device)
        read, inside = torch.zeros_like(tap), torch.ones_like(tap, dtype=torch.bool)
        size = 1
        axes = zip(self.narrow, self.kernel, self.stride, self.dilation, self.begin, self.wide, strict=True)
        for narrow, kernel, stride, dilation, begin, wide in reversed(list(axes)):  # the last axis runs fastest
            own = place % narrow * stride + tap % kernel * dilation - begin
            read, inside = read + own * size, inside & (own >= 0) & (own < wide)
            place, tap, size = place // narrow, tap // kernel, size * wide
        return torch.where(inside, read, 0), inside

    def correlate(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x` `[n, channels, *wide]` with `weight` `[out, channels / groups, *kernel]` to `[n, out, *narrow]`."""
        if self._pointwise():
            return (weight.flatten(1) @ x[self._places()].flatten(2)).unflatten(2, self.narrow)
        function = _CORRELATE[len(self.wide)]
        if self._regular():
            return function(x, weight, None, self.stride, self.begin, self.dilation, self.groups)
        ends = zip(self.begin, self.span, self.wide, strict=True)
        x = _pad(x, [(begin, span - wide - begin) for begin, span, wide in ends])
        return function(x, weight, None, self.stride, 0, self.dilation, self.groups)

    def _regular(self) -> bool:
        """Whether padding by `begin` on both sides gives exactly the narrow size."""
        sizes = zip(self.wide, self.begin, self.span, self.stride, strict=True)
        return all(begin >= 0 and 0 <= wide + 2 * begin - span < stride for wide, begin, span, stride in sizes)

    def spread(self, x: Tensor, weight: Tensor) -> Tensor:
        """The adjoint: `x` `[n, out, *narrow]` with the same `weight` to `[n, channels, *wide]`."""
        if self._pointwise():
            return self._between_zeros((weight.flatten(1).T @ x.flatten(2)).unflatten(2, self.narrow))
        if self._disjoint() and weight.shape[1] <= FEW_CHANNELS:
            return self._in_blocks(x, weight)
        if self._few_taps(weight):
            return self._by_taps(x, weight)
        if self.groups == 1 and set(self.stride) == {1}:
            return self._turned(x, weight)
        function = _SPREAD[len(self.wide)]
        if self._regular():
            sizes = zip(self.wide, self.begin, self.span, strict=True)
            rest = tuple(wide + 2 * begin - span for wide, begin, span in sizes)
            return function(x, weight, None, self.stride, self.begin, rest, self.groups, self.dilation)
        x = function(x, weight, None, self.stride, 0, 0, self.groups, self.dilation)
        ends = zip(self.begin, self.span, self.wide, strict=True)
        return _pad(x, [(-begin, wide + begin - span) for begin, span, wide in ends])

    def _pointwise(self) -> bool:
        """Whether it is a product of matrices at each of several places, which is up to twenty times as fast."""
        plain = self.groups == 1 and set(self.kernel) == {1} and set(self.begin) == {0}
        inside = all(span <= wide for span, wide in zip(self.span, self.wide, strict=True))
        return plain and inside and math.prod(self.narrow) >= FEW_PLACES

    def _places(self) -> tuple[EllipsisType | slice, ...]:
        """Of the wide side, those that a kernel of one element reads."""
        return (..., *(slice(None, span, stride) for span, stride in zip(self.span, self.stride, strict=True)))

    def _between_zeros(self, x: Tensor) -> Tensor:
        """`x` `[n, channels, *narrow]` at these places, zeros at the others."""
        if self.narrow == self.wide:
            return x
        full = x.new_zeros(*x.shape[:2], *self.wide)
        full[self._places()] = x
        return full

    def _disjoint(self) -> bool:
        """Whether the kernel's places are blocks side by side, as where a transformer cuts an image into patches."""
        side_by_side = self.kernel == self.stride and set(self.dilation) == {1} and set(self.begin) == {0}
        return side_by_side and self.groups == 1 and all(s <= w for s, w in zip(self.span, self.wide, strict=True))

    def _in_blocks(self, x: Tensor, weight: Tensor) -> Tensor:
        """One product of matrices, whose rows are the blocks: for few channels up to twenty times as fast."""
        axes = len(self.wide)
        blocks = (x.movedim(1, -1) @ weight.flatten(1)).unflatten(-1, weight.shape[1:])
        pairs = [axis for k in range(axes) for axis in (1 + k, 2 + axes + k)]  # a place and its tap
        whole = blocks.permute(0, 1 + axes, *pairs).reshape(len(x), weight.shape[1], *self.span)
        return _pad(whole, [(0, wide - span) for wide, span in zip(self.wide, self.span, strict=True)])

    def _turned(self, x: Tensor, weight: Tensor) -> Tensor:
        """Without strides wide[q] = sum_k w[k] narrow[q + begin - k]: a correlation with the kernel turned round, which
        the library computes as fast or, in double precision, up to twenty times as fast."""
        reach = (dilation * (size - 1) for dilation, size in zip(self.dilation, self.kernel, strict=True))
        begin = tuple(most - own for most, own in zip(reach, self.begin, strict=True))
        mirrored = replace(self, wide=self.narrow, narrow=self.wide, begin=begin)
        return mirrored.correlate(x, weight.flip(*range(2, weight.dim())).transpose(0, 1))

    def _few_taps(self, weight: Tensor) -> bool:
        """Where `_by_taps` is faster, and takes little memory: windows into few channels, as of a network's first layer
        on images, for which the library reaches a tenth of its usual rate, in double precision a hundredth."""
        channels, taps = weight.shape[1], math.prod(self.kernel)
        return self.groups == 1 and channels <= FEW_CHANNELS and channels * taps <= MOST_TAPS * weight.shape[0]

    def _by_taps(self, x: Tensor, weight: Tensor) -> Tensor:
        """One product of matrices for all taps of the kernel, each of which is then added where it belongs."""
        count, channels = len(x), weight.shape[1]
        parts = (weight.flatten(1).T @ x.flatten(2)).reshape(count, channels, -1, *self.narrow)
        full = x.new_zeros(count, channels, *self.span)
        for number, tap in enumerate(itertools.product(*map(range, self.kernel))):
            sizes = zip(tap, self.dilation, self.narrow, self.stride, strict=True)
            met = (slice(k * step, k * step + (size - 1) * stride + 1, stride) for k, step, size, stride in sizes)
            places: tuple[EllipsisType | slice, ...] = (..., *met)
            full[places] += parts[:, :, number]
        ends = zip(self.begin, self.span, self.wide, strict=True)
        return _pad(full, [(-begin, wide + begin - span) for begin, span, wide in ends])


def _clipped(start: np.ndarray, stop: np.ndarray, shape: Shape) -> Regions | None:
    """Boxes with these spatial limits as far as they lie in a tensor of `shape`; None where one lies outside."""
    start, stop = np.maximum(start, 0), np.minimum(stop, shape[2:])
    if (start >= stop).any():
        return None
    return Regions.whole(shape, len(start)).along(range(2, len(shape)), start, stop)


def _pad(x: Tensor, ends: list[tuple[int, int]]) -> Tensor:
    """Zeros before and behind each spatial axis; negative numbers crop."""
    flat = [amount for pair in reversed(ends) for amount in pair]
    return torch.nn.functional.pad(x, flat) if any(flat) else x
