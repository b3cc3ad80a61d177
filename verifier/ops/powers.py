"""Powers of one argument: square root, reciprocal, constant real exponents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.ops.curves import LIBRARY_ULPS, Curve, around, within
from verifier.ops.smooth import only_where, positive


@dataclass(frozen=True)
class Sqrt(Curve):
    """Unbounded where the argument may be negative."""

    bends = (-1,)
    monotone = True

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sqrt()

    def derivative(self, x: Tensor) -> Tensor:
        return x.rsqrt() / 2

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        return (positive(slope).reciprocal() / 2).square()

    def at(self, x: Tensor) -> Interval:
        return only_where(x >= 0, within(around(x.sqrt()), 0.0, torch.inf))


@dataclass(frozen=True)
class Power(Curve):
    """x ** exponent for a constant real exponent. Unbounded where the argument may be at a pole, or negative while the
    exponent is no integer."""

    exponent: float

    knots = (0.0,)

    @property
    def _whole(self) -> bool:
        return self.exponent == int(self.exponent)

    @property
    def _odd(self) -> bool:
        return self._whole and int(self.exponent) % 2 == 1

    @property
    def monotone(self) -> bool:  # type: ignore[override]
        return self.exponent > 0 and (self._odd or not self._whole)

    @property
    def low(self) -> float:  # type: ignore[override]
        return 0.0 if self._whole and not self._odd else -torch.inf

    @property
    def bends(self) -> tuple[int, ...]:  # type: ignore[override]
        """x^p'' = p (p - 1) x^(p - 2), for x > 0."""
        product = self.exponent * (self.exponent - 1)
        right = (product > 0) - (product < 0)
        return (-right if self._odd else right), right

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** self.exponent

    def derivative(self, x: Tensor) -> Tensor:
        return self.exponent * x ** (self.exponent - 1)

    def derivative_at(self, x: Tensor) -> Interval:
        return around(self.derivative(x), self._ulps(x))

    def at(self, x: Tensor) -> Interval:
        values = within(around(x**self.exponent, self._ulps(x)), self.low, torch.inf)
        positive_only = x >= 0 if not self._whole else torch.ones_like(x, dtype=torch.bool)
        return only_where(positive_only & ((x != 0) | (self.exponent >= 0)), values)

    def _ulps(self, x: Tensor) -> Tensor | float:
        """An exponent that is rounded to the argument's precision enters times log x."""
        return LIBRARY_ULPS if self._whole else LIBRARY_ULPS + abs(self.exponent) * x.log().abs().clamp(max=1000.0)

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        """p |x|^(p - 1) is the slope, or its negative left of 0 where the power is even."""
        if self.exponent in (0.0, 1.0):
            return part.upper
        left = part.upper <= 0
        steep = slope / self.exponent
        distance = positive(steep if self._odd else torch.where(left, -steep, steep)) ** (1 / (self.exponent - 1))
        return torch.where(left, -distance, distance)


@dataclass(frozen=True)
class Reciprocal(Power):
    """1 / x. Unbounded where the argument may be 0."""

    exponent: float = -1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reciprocal()

    def derivative(self, x: Tensor) -> Tensor:
        return -x.square().reciprocal()
