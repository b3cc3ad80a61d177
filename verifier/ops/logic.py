"""Choice by a condition. Booleans travel as 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Band, Branch, Elementwise, Planes


@dataclass(frozen=True)
class Where(Elementwise):
    """x where the condition (first input) is 1, y where it is 0; same shapes. Bounds take the side that is decided, or
    else the constants that hold for both."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] != 0, inputs[1], inputs[2])

    def interval(self, *inputs: Interval) -> Interval:
        _, x, y = inputs
        chosen, other = _decided(inputs[0])
        lower = torch.where(chosen, x.lower, torch.where(other, y.lower, torch.minimum(x.lower, y.lower)))
        upper = torch.where(chosen, x.upper, torch.where(other, y.upper, torch.maximum(x.upper, y.upper)))
        return Interval(lower, upper)

    def unstable(self, *inputs: Interval) -> Tensor:
        chosen, other = _decided(inputs[0])
        return ~(chosen | other)

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """Both parts of the condition decide."""
        condition, x, y = inputs
        return Branch(torch.full_like(condition.lower, 0.5)), Branch(x.lower, 0.0), Branch(y.lower, 0.0)

    def relax(self, *inputs: Interval) -> Planes:
        band = self.band(*inputs)
        return Planes(band.slopes, band.low, band.slopes, band.high)

    def band(self, *inputs: Interval) -> Band:
        chosen, other = _decided(inputs[0])
        values, decided = self.interval(*inputs), chosen | other
        zero = torch.zeros_like(values.lower)
        slopes = zero, chosen.to(zero.dtype), other.to(zero.dtype)
        return Band(slopes, torch.where(decided, zero, values.lower), torch.where(decided, zero, values.upper))

    def parts(self, *inputs: Interval) -> Sequence[tuple[Interval, ...]]:
        """A condition is 0 or 1."""
        zero = torch.zeros_like(inputs[0].lower)
        return tuple((Interval(value, value), *inputs[1:]) for value in (zero, zero + 1))


def _decided(condition: Interval) -> tuple[Tensor, Tensor]:
    """Where it is certainly 1, and where it is certainly 0: it is nothing else."""
    return condition.lower > 0, condition.upper < 1
