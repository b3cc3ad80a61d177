"""Smooth functions of one argument with a closed form for where their derivative has a given value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.rounding import tiny
from verifier.ops.curves import LIBRARY_ULPS, Curve, around


def positive(slope: Tensor, most: float = torch.inf) -> Tensor:
    """The slope, made positive, and at most `most`."""
    return slope.clamp(tiny(slope.dtype), most)


@dataclass(frozen=True)
class Exp(Curve):
    """exp(x). `most`: what the argument cannot exceed by the way it is computed, whatever its bounds say."""

    most: float = torch.inf

    bends = (1,)
    low = 0.0
    monotone = True

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].exp()

    def derivative(self, x: Tensor) -> Tensor:
        return x.exp()

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        return positive(slope).log()

    def domain(self, box: Interval) -> Interval:
        return Interval(box.lower.clamp(max=self.most), box.upper.clamp(max=self.most))


@dataclass(frozen=True)
class Log(Curve):
    """Natural logarithm. Minus infinity at 0, unbounded where the argument may be negative."""

    bends = (-1,)
    monotone = True

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].log()

    def derivative(self, x: Tensor) -> Tensor:
        return x.reciprocal()

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        return positive(slope).reciprocal()

    def at(self, x: Tensor) -> Interval:
        return only_where(x >= 0, around(x.log()))


def only_where(defined: Tensor, values: Interval) -> Interval:
    """Everything is possible elsewhere."""
    return Interval(torch.where(defined, values.lower, -torch.inf), torch.where(defined, values.upper, torch.inf))


@dataclass(frozen=True)
class Softplus(Curve):
    """log(1 + exp(x))."""

    bends = (1,)
    low = 0.0
    monotone = True

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.logaddexp(inputs[0], torch.zeros_like(inputs[0]))

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        share = positive(slope, 1.0)
        return share.log() - torch.log1p(-share)


@dataclass(frozen=True)
class Elu(Curve):
    """outer * x where x > 0, else outer * alpha * (exp(x / width) - 1): Elu, Selu and Celu in one."""

    alpha: float
    outer: float = 1.0
    width: float = 1.0

    knots = (0.0,)

    @property
    def bends(self) -> tuple[int, ...]:  # type: ignore[override]
        steepness = self.alpha * self.outer
        return (steepness > 0) - (steepness < 0), 0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        return self.outer * torch.where(x > 0, x, self.alpha * torch.expm1(x.clamp(max=0) / self.width))

    def at(self, x: Tensor) -> Interval:
        """A share of x, alpha and its product may underflow before a large factor, and so may that factor itself."""
        lost = tiny(x.dtype) * (x.abs() + abs(self.outer) * (4 + 2 * abs(self.alpha)))
        return around(self.evaluate(x), LIBRARY_ULPS, lost)

    def derivative(self, x: Tensor) -> Tensor:
        bent = self.alpha / self.width * torch.exp(x.clamp(max=0) / self.width)
        return self.outer * torch.where(x > 0, 1.0, bent)

    def derivative_at(self, x: Tensor) -> Interval:
        """The rounding of x / width enters times x / width."""
        lost = tiny(x.dtype) * (4 + abs(self.outer) * (4 + 2 * abs(self.alpha / self.width)))
        return around(self.derivative(x), LIBRARY_ULPS + (x / self.width).abs().clamp(max=1000.0), lost)

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        steepness = self.outer * self.alpha / self.width
        return self.width * positive(slope / steepness).log() if steepness else part.upper
