"""Data movement whose positions are computed by the network: Gather, Slice, Range, ScatterND. No bounds yet.

Shapes are static, fixed on import. Where an input asks for fewer elements, those that are missing are NaN: they spoil
whatever is computed from them, and only ScatterND knows that there is nothing to write. Where an input asks for more
elements than there are places, all of them are infinite, and a position outside of a tensor gives NaN: such an input
has no meaning in the graph, and a NaN proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.operator import Op


@dataclass(frozen=True)
class Gather(Op):
    """`data` `[*before, size, *after]`, `positions` `[*indices]` to `[*before, *indices, *after]` along `axis`."""

    axis: int

    def evaluate(self, *inputs: Tensor) -> Tensor:
        data, positions = inputs
        batch, axis = data.shape[0], self.axis + 1
        moved = data.movedim(axis, 1).flatten(2) if data.dim() > 2 else data.movedim(axis, 1).unsqueeze(-1)
        index, outside = _wrap(positions.reshape(batch, -1), data.shape[axis])
        rows = moved.gather(1, index.unsqueeze(-1).expand(-1, -1, moved.shape[2]))
        rows = torch.where(outside.unsqueeze(-1), torch.nan, rows)
        rest = [size for place, size in enumerate(data.shape) if place not in (0, axis)]
        rows = rows.reshape(batch, *positions.shape[1:], *rest)
        inner = tuple(range(1, positions.dim()))
        return rows.movedim(inner, tuple(axis + place for place in range(len(inner)))) if inner else rows


@dataclass(frozen=True)
class Slice(Op):
    """`count` elements of `data` along `axis`, from `start` to before `end` (both `[1]`) by `step`."""

    axis: int
    count: int
    step: int

    def evaluate(self, *inputs: Tensor) -> Tensor:
        data, start, end = inputs
        size = data.shape[self.axis + 1]
        first, last = (slice_bound(place.reshape(-1, 1), size, self.step) for place in (start, end))
        places = _places(first, last, self.step, self.count)
        chosen = Gather(self.axis).evaluate(data, places.nan_to_num(0, 0, 0))
        marks = places.reshape(len(places), *(self.count if axis == self.axis else 1 for axis in range(data.dim() - 1)))
        return torch.where(marks.isfinite(), chosen, marks)


def slice_bound(place: Tensor, size: int, step: int) -> Tensor:
    """ONNX's reading of a start or end: negative counts from behind, then clamped."""
    place = torch.where(place < 0, place + size, place)
    return place.clamp(0, size) if step > 0 else place.clamp(-1, size - 1)


@dataclass(frozen=True)
class Range(Op):
    """start, start + step, ... (`count` numbers) before `limit`; the three inputs are scalars."""

    count: int

    def evaluate(self, *inputs: Tensor) -> Tensor:
        start, limit, step = (value.reshape(-1, 1) for value in inputs)
        return _places(start, limit, step, self.count)


def _places(first: Tensor, last: Tensor, step: Tensor | int, count: int) -> Tensor:
    """first, first + step, ... before `last` (all `[batch, 1]`): `[batch, count]`, NaN behind the end, all infinite if
    `count` are not enough."""
    steps = torch.arange(count, dtype=first.dtype, device=first.device)
    real = ((last - first) / step).ceil()
    values = torch.where(steps < real, first + step * steps, torch.nan)
    return torch.where(real > count, torch.inf, values)


@dataclass(frozen=True)
class ScatterND(Op):
    """Copy of `data` with `updates` `[*places, *rest]` written at `indices` `[*places, k]` of its first k axes."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        data, indices, updates = inputs
        batch, depth = data.shape[0], indices.shape[-1]
        rows = data.reshape(batch, math.prod(data.shape[1 : depth + 1]), -1)
        missing = indices.isnan().any(-1)
        flat, outside = torch.zeros_like(missing, dtype=torch.long), torch.zeros_like(missing)
        for place, size in enumerate(data.shape[1 : depth + 1]):
            index, beyond = _wrap(indices[..., place], size)
            flat, outside = flat * size + index, outside | beyond
        flat = torch.where(missing, rows.shape[1], flat).reshape(batch, -1, 1)  # a row that is dropped again
        spoiled = (outside & ~missing).reshape(batch, -1, 1)
        values = torch.where(spoiled, torch.nan, updates.reshape(batch, flat.shape[1], -1))
        longer = torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)
        written = longer.scatter(1, flat.expand(-1, -1, rows.shape[2]), values)
        return written[:, :-1].reshape(data.shape)


def _wrap(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Integer positions with negative ones counted from behind, made valid; and where they were not."""
    place = torch.where(positions < 0, positions + size, positions)
    outside = ~((place >= 0) & (place < size) & (place == place.round()))
    return torch.where(outside, torch.zeros_like(place), place).long(), outside
