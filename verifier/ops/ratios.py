"""Logarithms of ratios, for shares of a total:  x_i^p / sum_j x_j^p = exp(-log sum_j exp(p log(x_j / x_i))).

Numerator and denominator of such a share move together, which bounds of the two apart do not see. Bounds of the
logarithm of a ratio do: what its arguments have in common cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Band, Branch, Elementwise, Planes, weighted
from verifier.core.rounding import tiny, unit
from verifier.ops.smooth import Exp, Log

WIDEST = 760.0  # exp(-760) is far below the smallest number of any precision: so far out, a share is 0 or 1


@dataclass(frozen=True)
class LogRatio(Elementwise):
    """exponent * log(x / y), kept in [-760, 760], for x and y that are never negative by the way they are computed.
    The exponent is positive. Of 0 and 0 it is 0."""

    exponent: float

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x, y = inputs
        least = tiny(x.dtype)
        value = self.exponent * (x.clamp(min=least).log() - y.clamp(min=least).log())
        value = torch.where(y > 0, torch.where(x > 0, value, -WIDEST), torch.where(x > 0, WIDEST, 0.0))
        return value.clamp(-WIDEST, WIDEST)

    def interval(self, *inputs: Interval) -> Interval:
        x, y = (Interval(box.lower.clamp(min=0), box.upper.clamp(min=0)) for box in inputs)
        low = self._difference(Log().at(x.lower).lower, Log().at(y.upper).upper, -1)
        high = self._difference(Log().at(x.upper).upper, Log().at(y.lower).lower, 1)
        low = torch.where(x.lower > 0, torch.where(y.upper == 0, WIDEST, low), -WIDEST)
        high = torch.where(y.lower > 0, torch.where(x.upper == 0, -WIDEST, high), WIDEST)
        low, high = low.nan_to_num(-WIDEST), high.nan_to_num(WIDEST)
        return Interval(low.clamp(-WIDEST, WIDEST), high.clamp(-WIDEST, WIDEST))

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """The logarithm bends the more, the larger the relative width of its argument."""
        boxes = [Interval(box.lower.clamp(min=0), box.upper.clamp(min=0)) for box in inputs]
        sizes = [(box.upper - box.lower) / box.upper.clamp(min=tiny(box.upper.dtype)) for box in boxes]
        return weighted([box.middle() for box in boxes], sizes)

    def relax(self, *inputs: Interval) -> Planes:
        x, y = (Log().relax(box) for box in inputs)
        assert x.lower_intercept is not None and y.lower_intercept is not None
        low_slopes, low = self._plane(inputs, x.lower_slopes[0], y.upper_slopes[0], x.lower_intercept, y, -1)
        high_slopes, high = self._plane(inputs, x.upper_slopes[0], y.lower_slopes[0], x.upper_intercept, y, 1)
        return Planes(low_slopes, low, high_slopes, high)

    def band(self, *inputs: Interval) -> Band:
        x, y = (Log().band(box) for box in inputs)
        parallel = Planes(y.slopes, y.low, y.slopes, y.high)
        slopes, low = self._plane(inputs, x.slopes[0], y.slopes[0], x.low, parallel, -1)
        return Band(slopes, low, self._plane(inputs, x.slopes[0], y.slopes[0], x.high, parallel, 1)[1])

    def _plane(
        self, boxes: tuple[Interval, ...], steep_x: Tensor, steep_y: Tensor, at_x: Tensor, lines: Planes, side: int
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Slopes and intercept from a line of log x and the opposite one of log y; constants where an argument may be 0
        or the ratio may be cut."""
        at_y = lines.upper_intercept if side < 0 else lines.lower_intercept
        assert at_y is not None
        slopes, values = (self.exponent * steep_x, -self.exponent * steep_y), self.interval(*boxes)
        plain = (boxes[0].lower > 0) & (boxes[1].lower > 0) & (values.lower > -WIDEST) & (values.upper < WIDEST)
        size = slopes[0].abs() * boxes[0].magnitude() + slopes[1].abs() * boxes[1].magnitude()
        intercept = self._difference(at_x, at_y, side, size)
        constant = values.lower if side < 0 else values.upper
        first, second = (torch.where(plain, slope, 0.0) for slope in slopes)
        return (first, second), torch.where(plain, intercept, constant)

    def _difference(self, a: Tensor, b: Tensor, side: int, size: Tensor | float = 0.0) -> Tensor:
        """exponent * (a - b), rounded outward on one side; `size` of other numbers that were rounded."""
        size = size + self.exponent * (a.abs() + b.abs())
        return self.exponent * (a - b) + side * (size * (8 * unit(a.dtype)) + 4 * tiny(a.dtype))


@dataclass(frozen=True)
class Share(Elementwise):
    """exp(x) for an x that is never positive by the way it is computed: the share, with logarithm x, of a total. Of a
    total of 0 (the second argument) there are none: NaN. Bounds do not depend on the total."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[1] != 0, inputs[0].exp(), torch.nan)

    def interval(self, *inputs: Interval) -> Interval:
        return SHARE.interval(inputs[0])

    def unstable(self, *inputs: Interval) -> Tensor:
        return SHARE.unstable(inputs[0])

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        x, total = inputs
        return *SHARE.branches(x), Branch(total.lower, 0.0)

    def relax(self, *inputs: Interval) -> Planes:
        planes, zero = SHARE.relax(inputs[0]), torch.zeros_like(inputs[0].lower)
        lower, upper = (*planes.lower_slopes, zero), (*planes.upper_slopes, zero)
        return Planes(lower, planes.lower_intercept, upper, planes.upper_intercept)

    def band(self, *inputs: Interval) -> Band:
        band = SHARE.band(inputs[0])
        return Band((*band.slopes, torch.zeros_like(inputs[0].lower)), band.low, band.high)


SHARE = Exp(most=0.0)
