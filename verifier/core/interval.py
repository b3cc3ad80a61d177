"""A batch of boxes: elementwise lower and upper bounds of one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.rounding import narrow_down, narrow_up, unit


@dataclass(frozen=True, eq=False)
class Interval:
    """`lower`, `upper`: `[batch, *shape]`. An element with lower > upper or NaN describes the empty set or nothing."""

    lower: Tensor
    upper: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.lower.shape

    def magnitude(self) -> Tensor:
        """Largest absolute value, `[batch, *shape]`."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def middle(self) -> Tensor:
        """Half way between the ends, `[batch, *shape]`; finite wherever both are."""
        return self.lower / 2 + self.upper / 2

    def around(self) -> tuple[Tensor, Tensor]:
        """Its middle, and at least the largest distance from that; `[batch, *shape]` each."""
        middle = self.middle()
        reach = torch.maximum(self.upper - middle, middle - self.lower)
        return middle, reach + reach * (2 * unit(reach.dtype))

    @staticmethod
    def unbounded(shape: Sequence[int], like: Tensor) -> Interval:
        """Nothing is known of `shape` numbers; of the type and on the device of `like`."""
        upper = like.new_full(tuple(shape), torch.inf)
        return Interval(-upper, upper)

    def point(self) -> Interval:
        """Its middle alone."""
        middle = self.middle()
        return Interval(middle, middle)

    def intersect(self, other: Interval) -> Interval:
        """What both say; an end that is not a number says nothing."""
        return Interval(torch.fmax(self.lower, other.lower), torch.fmin(self.upper, other.upper))

    def select(self, index: Tensor | slice) -> Interval:
        """The domains `index` (`[k]` integers, a mask over the batch, or a slice)."""
        return Interval(self.lower[index], self.upper[index])

    def to(self, dtype: torch.dtype) -> Interval:
        """Cast; exact when widening."""
        return Interval(self.lower.to(dtype), self.upper.to(dtype))

    def narrowed(self, dtype: torch.dtype) -> Interval:
        """Cast, rounded outward."""
        return Interval(narrow_down(self.lower, dtype), narrow_up(self.upper, dtype))

    def reshape(self, *shape: int) -> Interval:
        return Interval(self.lower.reshape(*shape), self.upper.reshape(*shape))
