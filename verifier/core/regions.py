"""Boxes of positions of a tensor, and operators of which a box of the output reads only boxes of the inputs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from verifier.core.operator import Affine

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Regions:
    """A batch of boxes of positions of one tensor: along each axis from `start` to before `stop`, integers
    `[count, axes]`. None is empty."""

    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def whole(cls, shape: Shape, count: int) -> Regions:
        """The whole tensor, `count` times."""
        stop = np.broadcast_to(np.array(shape, dtype=np.int64), (count, len(shape)))
        return cls(np.zeros_like(stop), stop.copy())

    @cached_property
    def size(self) -> np.ndarray:
        """`[count, axes]`."""
        return self.stop - self.start

    @cached_property
    def elements(self) -> np.ndarray:
        """`[count]`."""
        return np.prod(self.size, axis=1)

    def select(self, index: np.ndarray | slice) -> Regions:
        return Regions(self.start[index], self.stop[index])

    def hull(self, other: Regions) -> Regions:
        """The smallest boxes that contain both."""
        return Regions(np.minimum(self.start, other.start), np.maximum(self.stop, other.stop))

    def along(self, axes: Sequence[int], start: np.ndarray | int, stop: np.ndarray | int | Sequence[int]) -> Regions:
        """With other limits along some axes."""
        first, last = self.start.copy(), self.stop.copy()
        first[:, axes], last[:, axes] = start, stop
        return Regions(first, last)

    def slices(self, place: int = 0) -> tuple[slice, ...]:
        """One box as an index."""
        return tuple(slice(a, b) for a, b in zip(self.start[place].tolist(), self.stop[place].tolist(), strict=True))

    def shape(self, place: int = 0) -> Shape:
        return tuple(self.size[place].tolist())


class Local(Affine):
    """An affine operator that can be restricted to a box of its output, and then reads boxes of its inputs."""

    def kept_whole(self) -> tuple[int, ...]:
        """Axes of the output along which it cannot be restricted."""
        return ()

    @abstractmethod
    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...] | None:
        """What boxes of the output read of each input, whose shapes are given; None where that cannot be said."""

    def phase(self, region: Regions, reads: tuple[Regions, ...]) -> np.ndarray:
        """Integers `[count, k]`: boxes of the same sizes for which they agree have the same `restricted` operator."""
        return np.zeros((len(region.start), 0), dtype=np.int64)

    def restricted(self, region: Regions, reads: tuple[Regions, ...]) -> Local:
        """The operator from boxes of the inputs to one box of the output (batches of 1)."""
        return self


def distinct(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows of arrays `[count, k]` side by side: the place of one row of each kind, and the kind `[count]`."""
    _, first, kind = np.unique(np.concatenate(arrays, 1), axis=0, return_index=True, return_inverse=True)
    return first, kind.reshape(-1)


def numbered(values: Sequence[bytes]) -> np.ndarray:
    """`[count, 1]`: a number for each value, the same for equal ones."""
    names: dict[bytes, int] = {}
    return np.array([names.setdefault(value, len(names)) for value in values], dtype=np.int64).reshape(-1, 1)


def part(constant: Tensor, region: Regions, place: int = 0) -> Tensor:
    """A box of a constant that broadcasts to the tensor which the box is of."""
    missing = region.start.shape[1] - constant.dim()
    slices = region.slices(place)[max(0, missing) :]
    return constant[tuple(s if n > 1 else slice(None) for s, n in zip(slices, constant.shape, strict=True))]


def part_numbers(constant: Tensor | None, region: Regions) -> np.ndarray:
    """`[count, 1 or 0]`: numbers that tell different parts of a constant apart."""
    if constant is None or constant.numel() == 1 or math.prod(constant.shape) == 0:
        return np.zeros((len(region.start), 0), dtype=np.int64)
    varying = [axis - constant.dim() for axis in range(constant.dim()) if constant.shape[axis] > 1]
    first, inverse = distinct(region.start[:, varying], region.stop[:, varying])
    values = constant.cpu()
    return numbered([part(values, region, place).contiguous().numpy().tobytes() for place in first])[inverse]
