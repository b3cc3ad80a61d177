"""A number of which only a neighbourhood is known: what rounding leaves of a part of a network that was worked out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Band, Branch, Elementwise, Planes
from verifier.core.rounding import down, narrow_up, up


@dataclass(frozen=True, eq=False)
class Near(Elementwise):
    """Some number within `radius` `[*shape]` of the argument, which one is not known. It evaluates to the argument."""

    radius: Tensor

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """With a radius that is no smaller."""
        return type(self)(narrow_up(self.radius, dtype).to(device))

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(down(inputs[0].lower - self.radius), up(inputs[0].upper + self.radius))

    def relax(self, *inputs: Interval) -> Planes:
        band = self.band(*inputs)
        return Planes(band.slopes, band.low, band.slopes, band.high)

    def band(self, *inputs: Interval) -> Band:
        one = torch.ones_like(inputs[0].lower)
        return Band((one,), -self.radius * one, self.radius * one)

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        return (Branch(inputs[0].middle(), 0.0),)

    def unstable(self, *inputs: Interval) -> Tensor:
        """No bounds of the argument bring the planes nearer to each other."""
        return torch.zeros_like(inputs[0].lower, dtype=torch.bool)

    def elements(self, index: Tensor, shape: tuple[int, ...]) -> Near:
        return Near(self.radius.expand(shape).flatten()[index])

    def kinks(self) -> tuple[float, ...]:
        return ()
