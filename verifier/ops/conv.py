"""Convolution and transposed convolution in one, two or three dimensions: each is the adjoint of the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.regions import Local, Regions, Shape
from verifier.core.rounding import has_negative
from verifier.ops.window import Window

FEW_SAMPLES = 16  # are not worth making a matrix
SMALL = {torch.float32: 1 << 16, torch.float64: 1 << 20}  # entries of a matrix with which products are still cheap
LARGE = 1 << 22  # the same for matrices with hardly any zeros
FULL, HALF_EMPTY = 1.5, 6.0  # entries of a matrix for each that is not 0


@dataclass(frozen=True, eq=False)
class _Windowed(Local):
    """Both directions between the sides of a window, and what does not depend on the direction."""

    weight: Tensor
    window: Window
    bias: Tensor | None = None

    @cached_property
    def positive(self) -> bool:
        return not has_negative(self.weight)

    @cached_property
    def _matrix(self) -> Tensor | None:
        """`[narrow elements, wide elements]`, where a product with it is cheaper than what the library makes of a
        convolution. That takes a fixed time for each sample, and very long where the kernel covers most of the wide
        side: three to a thousand times as long, in double precision more."""
        window, (out, channels) = self.window, self.weight.shape[:2]
        entries = out * math.prod(window.narrow) * channels * math.prod(window.wide)
        empty = math.prod(window.wide) / math.prod(window.kernel)
        small = empty <= HALF_EMPTY and entries <= SMALL.get(self.weight.dtype, 0)
        if window.groups > 1 or not (small or (empty <= FULL and entries <= LARGE)):
            return None
        place, tap, read = window.meetings()
        matrix = self.weight.new_zeros(out, math.prod(window.narrow), channels, math.prod(window.wide))
        matrix[:, place, :, read] = self.weight.flatten(2)[:, :, tap].permute(2, 0, 1)
        return matrix.flatten(0, 1).flatten(1)

    def _matrix_for(self, samples: int) -> Tensor | None:
        return None if samples < FEW_SAMPLES else self._matrix

    def to_narrow(self, x: Tensor) -> Tensor:
        """`[batch, n, channels, *wide]` to `[batch, n, out, *narrow]`."""
        merged = x.flatten(0, 1)
        matrix = self._matrix_for(len(merged))
        if matrix is None:
            result = self.window.correlate(merged, self.weight)
        else:
            result = (flat(merged) @ matrix.T).unflatten(1, (-1, *self.window.narrow))
        return result.unflatten(0, x.shape[:2])

    def to_wide(self, x: Tensor) -> Tensor:
        """The adjoint."""
        merged = x.flatten(0, 1)
        matrix = self._matrix_for(len(merged))
        if matrix is None:
            result = self.window.spread(merged, self.weight)
        else:
            result = (flat(merged) @ matrix).unflatten(1, (-1, *self.window.wide))
        return result.unflatten(0, x.shape[:2])

    def absolute(self) -> Self:
        return replace(self, weight=self.weight.abs(), bias=None if self.bias is None else self.bias.abs())

    def offset(self) -> Tensor | None:
        return None if self.bias is None else self.bias.reshape(-1, *(1,) * len(self.window.wide))

    def kept_whole(self) -> tuple[int, ...]:
        return 0, 1


@dataclass(frozen=True, eq=False)
class Conv(_Windowed):
    """`[n, channels, *wide]` to `[n, out, *narrow]`; `weight` `[out, channels / groups, *kernel]`, `bias` `[out]`."""

    @property
    def fan_in(self) -> int:  # type: ignore[override]
        return math.prod(self.weight.shape[1:])

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        return self.window.overlap * self.weight.shape[0] // self.window.groups

    def linear(self, *inputs: Tensor) -> Tensor:
        return self.to_narrow(inputs[0])

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (self.to_wide(rows),)

    def row(self, index: Tensor, shape: Shape) -> Tensor | None:
        if self.window.groups > 1 or shape[0] > 1:
            return None
        places = math.prod(self.window.narrow)
        read, inside = self.window.taps(index % places)
        values = self.weight.flatten(2)[index // places] * inside.unsqueeze(-2)
        rows = self.weight.new_zeros(*index.shape, shape[1], math.prod(self.window.wide))
        return rows.scatter_add_(-1, read.unsqueeze(-2).expand(values.shape), values).reshape(*index.shape, *shape)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...] | None:
        found = self.window.wide_part(region, shapes[0])
        return None if found is None else (found,)

    def phase(self, region: Regions, reads: tuple[Regions, ...]) -> np.ndarray:
        return self.window.offset(reads[0], region)

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Conv:
        return replace(self, window=self.window.between(reads[0], region))


@dataclass(frozen=True, eq=False)
class ConvTranspose(_Windowed):
    """`[n, channels, *narrow]` to `[n, out, *wide]`; `weight` `[channels, out / groups, *kernel]`, `bias` `[out]`."""

    @property
    def fan_in(self) -> int:  # type: ignore[override]
        return self.window.overlap * self.weight.shape[0] // self.window.groups

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        return math.prod(self.weight.shape[1:])

    def linear(self, *inputs: Tensor) -> Tensor:
        return self.to_wide(inputs[0])

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (self.to_narrow(rows),)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...] | None:
        found = self.window.narrow_part(region, shapes[0])
        return None if found is None else (found,)

    def phase(self, region: Regions, reads: tuple[Regions, ...]) -> np.ndarray:
        return self.window.offset(region, reads[0])

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> ConvTranspose:
        return replace(self, window=self.window.between(region, reads[0]))
