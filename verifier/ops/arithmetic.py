"""Affine arithmetic between and along tensors: signed sums, scaling by constants, concatenation, sums over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from verifier.core.regions import Local, Regions, Shape, part, part_numbers
from verifier.core.rounding import has_negative


@dataclass(frozen=True)
class Add(Local):
    """sum_i signs[i] x_i over inputs of one shape; each sign is 1 or -1."""

    signs: tuple[int, ...]

    @property
    def fan_in(self) -> int:  # type: ignore[override]
        return len(self.signs)

    def linear(self, *inputs: Tensor) -> Tensor:
        total = inputs[0] if self.signs[0] > 0 else -inputs[0]
        for sign, value in zip(self.signs[1:], inputs[1:], strict=True):
            total = total + value if sign > 0 else total - value
        return total

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(rows if sign > 0 else -rows for sign in self.signs)

    def absolute(self) -> Add:
        return Add((1,) * len(self.signs))

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (region,) * len(self.signs)


@dataclass(frozen=True, eq=False)
class Scale(Local):
    """scale * x + shift, elementwise. Both constants broadcast to the node's shape; None is 1 or 0, exactly."""

    scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def fan_in(self) -> int:  # type: ignore[override]
        return 0 if self.scale is None else 1

    @cached_property
    def positive(self) -> bool:
        return self.scale is None or not has_negative(self.scale)

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        return self.fan_in

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0] if self.scale is None else inputs[0] * self.scale

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows if self.scale is None else rows * self.scale,)

    def absolute(self) -> Scale:
        return replace(
            self,
            scale=None if self.scale is None else self.scale.abs(),
            shift=None if self.shift is None else self.shift.abs(),
        )

    def offset(self) -> Tensor | None:
        return self.shift

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (region,)

    def phase(self, region: Regions, reads: tuple[Regions, ...]) -> np.ndarray:
        return np.concatenate([part_numbers(self.scale, region), part_numbers(self.shift, region)], 1)

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Scale:
        return replace(
            self,
            scale=None if self.scale is None else part(self.scale, region),
            shift=None if self.shift is None else part(self.shift, region),
        )


@dataclass(frozen=True)
class Concat(Local):
    """Joins the inputs along `axis` (of the shape without batch); `sizes` are theirs along it."""

    axis: int
    sizes: tuple[int, ...]

    def linear(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.axis + 1)

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(rows.split(self.sizes, self.axis + 1))

    def kept_whole(self) -> tuple[int, ...]:
        return (self.axis,)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return tuple(region.along([self.axis], 0, size) for size in self.sizes)


@dataclass(frozen=True)
class Sum(Local):
    """Sum over `axes`, which stay with size 1; `source` is the input's shape."""

    axes: tuple[int, ...]
    source: tuple[int, ...]

    @property
    def fan_in(self) -> int:  # type: ignore[override]
        return math.prod(self.source[axis] for axis in self.axes)

    @property
    def positive(self) -> bool:
        return True

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sum(tuple(axis + 1 for axis in self.axes), keepdim=True) if self.axes else inputs[0]

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows.expand(rows.shape[0], *self.source),)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (region.along(self.axes, 0, [self.source[axis] for axis in self.axes]),)

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Sum:
        return replace(self, source=reads[0].shape())
