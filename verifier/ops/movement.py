"""Operators that only move numbers: no rounding forwards, and sums of repeated positions backwards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from verifier.core.regions import Local, Regions, Shape, distinct

AT_ONCE = 1 << 20  # elements of boxes that are looked at together


@dataclass(frozen=True)
class Reshape(Local):
    """The same numbers in the same order: `source` shape to `shape`."""

    source: tuple[int, ...]
    shape: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(inputs[0].shape[0], *self.shape)

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.reshape(rows.shape[0], *self.source),)

    @cached_property
    def _move(self) -> _Move:
        return _Move(np.arange(math.prod(self.source)).reshape(self.shape), self.source)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (self._move.reads(region),)

    def phase(self, region: Regions, reads: tuple[Regions, ...]) -> np.ndarray:
        return self._move.phase(region, reads[0])

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Reshape | Select:
        source, shape = reads[0].shape(), region.shape()
        index = self._move.index_between(region, reads[0])
        if index.size == math.prod(source) and np.array_equal(index.reshape(-1), np.arange(index.size)):
            return Reshape(source, shape)
        return Select(torch.from_numpy(index), source)


@dataclass(frozen=True)
class Permute(Local):
    """Axis `axes[k]` of the input becomes axis k of the output (ONNX Transpose)."""

    axes: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].permute(0, *(axis + 1 for axis in self.axes))

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return (rows.permute(0, *(axis + 1 for axis in inverse)),)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        inverse = np.argsort(self.axes)
        return (Regions(region.start[:, inverse], region.stop[:, inverse]),)


@dataclass(frozen=True)
class Crop(Local):
    """The box of the input, of `source` shape, that begins at `start` and has `shape`."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    source: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        limits = zip(self.start, self.shape, strict=True)
        return inputs[0][(slice(None), *(slice(first, first + size) for first, size in limits))]

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        ends = zip(self.start, self.shape, self.source, strict=True)
        amounts = [(first, whole - size - first) for first, size, whole in ends]
        return (torch.nn.functional.pad(rows, [amount for pair in reversed(amounts) for amount in pair]),)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (Regions(region.start + self.start, region.stop + self.start),)

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Crop:
        return Crop((0,) * len(self.start), region.shape(), reads[0].shape())


@dataclass(frozen=True, eq=False)
class Select(Local):
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

    @cached_property
    def columns(self) -> Tensor | None:
        few = 2 * self.index.numel() <= math.prod(self.source)
        return self.index.flatten() if few and self.fan_out == 0 and self._gaps is None else None

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

    @cached_property
    def _move(self) -> _Move:
        return _Move(self.index.cpu().numpy(), self.source)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (self._move.reads(region),)

    def phase(self, region: Regions, reads: tuple[Regions, ...]) -> np.ndarray:
        return self._move.phase(region, reads[0])

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Select:
        index = torch.from_numpy(self._move.index_between(region, reads[0]))
        return Select(index.to(self.index.device), reads[0].shape())


@dataclass(frozen=True, eq=False)
class _Move:
    """Where each element comes from: `index` `[*shape]`, -1 for nowhere, into an input of shape `source`."""

    index: np.ndarray
    source: tuple[int, ...]

    def reads(self, region: Regions) -> Regions:
        """The smallest boxes of the input that hold all that boxes of the output read."""
        start = np.zeros((len(region.start), len(self.source)), dtype=np.int64)
        stop = np.ones_like(start)
        for places, read in self._by_size(region):
            for axis, found in enumerate(np.unravel_index(np.maximum(read, 0), self.source)):
                first = np.where(read < 0, self.source[axis], found).min(1, initial=self.source[axis])
                last = np.where(read < 0, -1, found).max(1, initial=-1)
                start[places, axis] = np.where(last < 0, 0, first)
                stop[places, axis] = np.where(last < 0, 0, last) + 1
        return Regions(start, stop)

    def phase(self, region: Regions, reads: Regions) -> np.ndarray:
        """`[count, 1]`: equal where the index between the boxes is."""
        names: dict[bytes, int] = {}
        numbers = np.zeros((len(region.start), 1), dtype=np.int64)
        for places, read in self._by_size(region):
            moved = self._between(read, reads.select(places))
            names_of = (hashlib.sha256(row.tobytes()).digest() for row in moved)
            numbers[places, 0] = [names.setdefault(name, len(names)) for name in names_of]
        return numbers

    def index_between(self, region: Regions, reads: Regions) -> np.ndarray:
        """The index from one box of the input to one of the output."""
        (_, read), *_ = self._by_size(region)
        return self._between(read, reads).reshape(region.shape())

    def _by_size(self, region: Regions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places of boxes of one size, and what their elements read, `[places, elements]`."""
        strides = np.array([math.prod(self.index.shape[axis + 1 :]) for axis in range(self.index.ndim)], dtype=np.int64)
        kinds, kind = distinct(region.size)
        for number, example in enumerate(kinds):
            inside = strides @ np.indices(region.shape(example)).reshape(self.index.ndim, -1)
            places = np.flatnonzero(kind == number)
            for part in np.array_split(places, -(-len(places) * max(1, inside.size) // AT_ONCE)):
                yield part, self.index.reshape(-1)[(region.start[part] @ strides)[:, None] + inside]

    def _between(self, read: np.ndarray, reads: Regions) -> np.ndarray:
        """`read` `[count, elements]`, counted in boxes of the input of one size or of several."""
        coordinates = np.unravel_index(np.maximum(read, 0), self.source)
        moved = np.zeros_like(read)
        for axis, found in enumerate(coordinates):
            moved = moved * reads.size[:, axis, None] + found - reads.start[:, axis, None]
        return np.where(read < 0, -1, moved)
