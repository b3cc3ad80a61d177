"""Odd S-shaped functions of one argument: Atan, Erf, Softsign. (Sigmoid and Tanh have a file of their own.)"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.ops.curves import LIBRARY_ULPS, Curve, around
from verifier.ops.smooth import positive


class _SShaped(Curve):
    """Convex below 0, concave above, odd; the derivative is largest at 0 and even."""

    knots = (0.0,)
    bends = (1, -1)
    monotone = True

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        return self.distance(slope) * -bend

    def distance(self, slope: Tensor) -> Tensor:
        """The x >= 0 with f'(x) = slope; 0 where the slope is too steep, large where it is tiny or negative."""
        raise NotImplementedError


@dataclass(frozen=True)
class Atan(_SShaped):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].atan()

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + x.square()).reciprocal()

    def distance(self, slope: Tensor) -> Tensor:
        return (positive(slope, 1.0).reciprocal() - 1).sqrt()


@dataclass(frozen=True)
class Erf(_SShaped):
    """The error function."""

    low = -1.0
    high = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].erf()

    def derivative(self, x: Tensor) -> Tensor:
        return 2 / math.sqrt(math.pi) * torch.exp(-x.square())

    def derivative_at(self, x: Tensor) -> Interval:
        """The rounding of x^2 enters times x^2; far out the value is nearly 0 whatever it is."""
        return around(self.derivative(x), LIBRARY_ULPS + x.square().clamp(max=200.0))

    def distance(self, slope: Tensor) -> Tensor:
        return (-(positive(slope * (math.sqrt(math.pi) / 2), 1.0).log())).sqrt()


@dataclass(frozen=True)
class Softsign(_SShaped):
    """x / (1 + |x|)."""

    low = -1.0
    high = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] / (1 + inputs[0].abs())

    def derivative(self, x: Tensor) -> Tensor:
        return (1 + x.abs()).square().reciprocal()

    def distance(self, slope: Tensor) -> Tensor:
        return positive(slope, 1.0).rsqrt() - 1
