"""Operators that only move numbers: no rounding forwards, and sums of repeated positions backwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from verifier.core.operator import Affine


@dataclass(frozen=True)
class Reshape(Affine):
    """The same numbers in the same order: `source` shape to `shape`."""

    source: tuple[int, ...]
    shape: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(inputs[0].shape[0], *self.shape)

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.reshape(rows.shape[0], *self.source),)


@dataclass(frozen=True)
class Permute(Affine):
    """Axis `axes[k]` of the input becomes axis k of the output (ONNX Transpose)."""

    axes: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].permute(0, *(axis + 1 for axis in self.axes))

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return (rows.permute(0, *(axis + 1 for axis in inverse)),)


@dataclass(frozen=True, eq=False)
class Select(Affine):
    """Output element j is input element `index[j]` of the row-major flattened input, or 0 where `index[j]` is -1.

    `index` integers `[*shape]`; `source` is the input's shape. Slice, gather, tile, expand, pad and their kin.
    """

    index: Tensor
    source: tuple[int, ...]

    @cached_property
    def fan_out(self) -> int:  # type: ignore[override]
        """How often the most popular input element is read, 0 where none is read twice."""
        read = self.index[self.index >= 0]
        most = int(torch.bincount(read).max()) if read.numel() else 0
        return most if most > 1 else 0

    @cached_property
    def _gaps(self) -> Tensor | None:
        """Where the output is 0 by definition; None where nowhere."""
        gaps = self.index.flatten() < 0
        return gaps if bool(gaps.any()) else None

    @cached_property
    def _inverse(self) -> Tensor | None:
        """For a permutation of all elements, its inverse."""
        size, flat = math.prod(self.source), self.index.flatten()
        if flat.numel() != size or self._gaps is not None or self.fan_out > 0:
            return None
        return torch.empty_like(flat).scatter_(0, flat, torch.arange(size, device=flat.device))

    def linear(self, *inputs: Tensor) -> Tensor:
        batch, flat = inputs[0].shape[0], self.index.flatten()
        if self._gaps is None:
            chosen = inputs[0].reshape(batch, -1).index_select(1, flat)
        elif math.prod(self.source) == 0:
            chosen = inputs[0].new_zeros(batch, flat.numel())
        else:
            chosen = inputs[0].reshape(batch, -1).index_select(1, flat.clamp(min=0)).masked_fill(self._gaps, 0)
        return chosen.reshape(batch, *self.index.shape)

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        count, flat = rows.shape[0], rows.reshape(rows.shape[0], -1)
        if self._inverse is not None:
            return (flat.index_select(1, self._inverse).reshape(count, *self.source),)
        index = self.index.flatten()
        if self._gaps is not None:
            kept = torch.nonzero(~self._gaps).flatten()
            index, flat = index[kept], flat.index_select(1, kept)
        result = flat.new_zeros(count, math.prod(self.source)).index_add_(1, index, flat)
        return (result.reshape(count, *self.source),)
