"""S-shaped activations: Sigmoid and Tanh, convex below 0 and concave above.

A line's extreme distance from f on [l, u] is at an end or where f'(x) = slope, with the closed form x = +-t(slope).
Candidate slopes: the chord, tangents at the ends and the middle, and the tangents through either end (CROWN, Zhang
2018, section 3.3; the tangent point by bisection, which needs no precision: the intercept is computed afterwards).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.rounding import tiny, unit
from verifier.ops.scalar import SMOOTH_PACE, Point, Scalar, chord_slope, clamp_to

LIBRARY_ULPS = 8  # what a vectorised exponential may be off by, with a margin
BISECTIONS = 12


class _SShaped(Scalar):
    """`low`, `high`: the open range. Bounds never leave its closure."""

    low: float
    high: float
    pace: ClassVar[float] = SMOOTH_PACE

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def where_derivative_is(self, slope: Tensor) -> Tensor:
        """The x >= 0 with f'(x) = slope; 0 where the slope is too steep, large where it is tiny or negative."""

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self._at(inputs[0].lower).lower, self._at(inputs[0].upper).upper)

    def _at(self, x: Tensor) -> Interval:
        value = self.evaluate(x)
        slack = value.abs() * (2 * LIBRARY_ULPS * unit(x.dtype)) + tiny(x.dtype)
        return Interval((value - slack).clamp(min=self.low), (value + slack).clamp(max=self.high))

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        tangents = [self.derivative(x) for x in (box.lower, box.upper, box.middle())]
        through = self._tangent_through(box.lower, box.upper), self._tangent_through(box.upper, box.lower)
        return chord_slope(box, self.evaluate(box.lower), self.evaluate(box.upper)), *tangents, *through

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        stationary = self.where_derivative_is(slope)
        places = (box.lower, box.upper, clamp_to(box, stationary), clamp_to(box, -stationary))
        return [(x, self._at(x)) for x in places]

    def _tangent_through(self, end: Tensor, other: Tensor) -> Tensor:
        """Slope of the line through (end, f(end)) that touches f on the far side of 0, between 0 and `other`; where 0
        is outside, the tangent at the end next to it."""
        between = Interval(torch.minimum(end, other), torch.maximum(end, other))
        value, near, far = self.evaluate(end), clamp_to(between, 0.0), other
        for _ in range(BISECTIONS):
            middle = near / 2 + far / 2
            # The tangent at `middle` passes f(end) on the outer side once `middle` is beyond the touching point.
            miss = (self.evaluate(middle) + self.derivative(middle) * (end - middle) - value) * torch.sign(other - end)
            near, far = torch.where(miss < 0, middle, near), torch.where(miss < 0, far, middle)
        return self.derivative(near / 2 + far / 2)


@dataclass(frozen=True)
class Sigmoid(_SShaped):
    """1 / (1 + exp(-x))."""

    low = 0.0
    high = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        value = torch.sigmoid(x)
        return value * (1 - value)

    def where_derivative_is(self, slope: Tensor) -> Tensor:
        """f(-x) (1 - f(-x)) = a gives f(-x) = 2a / (1 + sqrt(1 - 4a)), accurate for tiny a; x = -logit of it."""
        steep = slope.clamp(tiny(slope.dtype), 0.25)
        tail = 2 * steep / (1 + (1 - 4 * steep).clamp(min=0).sqrt())
        return torch.log1p(-tail) - torch.log(tail)


@dataclass(frozen=True)
class Tanh(_SShaped):
    low = -1.0
    high = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.tanh(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        return 1 - torch.tanh(x).square()

    def where_derivative_is(self, slope: Tensor) -> Tensor:
        """With r = tanh(x) = sqrt(1 - a), exp(-2x) = (1-r)/(1+r) = a/(1+r)^2, accurate for tiny a."""
        steep = slope.clamp(tiny(slope.dtype), 1.0)
        return torch.log1p((1 - steep).sqrt()) - torch.log(steep) / 2
