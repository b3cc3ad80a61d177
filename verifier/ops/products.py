"""Products, quotients and sums of exponentials of variables.

Bounds of x y (McCormick 1976) at half way between its two planes on either side: around the middles (p, q) of the box,
x y = q x + p y - p q + (x - p)(y - q), whose last term is at most the product of the half-widths. Of all planes below
this has the least largest distance, and the same slopes above and below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Band, Elementwise, Op, Planes
from verifier.core.rounding import down, tiny, unit, up


@dataclass(frozen=True)
class Multiply(Elementwise):
    """x * y, same shapes."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]

    def interval(self, *inputs: Interval) -> Interval:
        x, y = inputs
        corners = torch.stack([_product(a, b) for a in (x.lower, x.upper) for b in (y.lower, y.upper)])
        return Interval(down(corners.amin(0)), up(corners.amax(0)))

    def unstable(self, *inputs: Interval) -> Tensor:
        """Where one factor is a point, the planes are exact."""
        return (inputs[0].lower < inputs[0].upper) & (inputs[1].lower < inputs[1].upper)

    def relax(self, *inputs: Interval) -> Planes:
        band = self.band(*inputs)
        return Planes(band.slopes, band.low, band.slopes, band.high)

    def band(self, *inputs: Interval) -> Band:
        (p, first), (q, second) = (_middle_and_reach(box) for box in inputs)
        product, rest = p * q, first * second
        rest = rest + (rest + product.abs()) * (8 * unit(p.dtype)) + 2 * tiny(p.dtype)
        return Band((q, p), -product - rest, rest - product)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b at ends of intervals: 0 times infinity is the limit of 0 times large numbers."""
    return torch.where((a == 0) | (b == 0), 0.0, a * b)


def _middle_and_reach(box: Interval) -> tuple[Tensor, Tensor]:
    """A number p, and at least the largest |x - p| over the box."""
    middle = box.lower / 2 + box.upper / 2
    reach = torch.maximum(box.upper - middle, middle - box.lower)
    return middle, reach + reach * (2 * unit(reach.dtype))


@dataclass(frozen=True)
class Divide(Op):
    """x / y, same shapes, without its fraction: between integers. It evaluates only."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.div(inputs[0], inputs[1], rounding_mode="trunc")


@dataclass(frozen=True)
class Remainder(Op):
    """x mod y, same shapes; the sign is that of y, or of x where `fmod`. It evaluates only."""

    fmod: bool = False

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.fmod(*inputs) if self.fmod else torch.remainder(*inputs)


@dataclass(frozen=True)
class VariablePower(Op):
    """x ** y, same shapes. It evaluates only."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** inputs[1]


@dataclass(frozen=True)
class MatMul(Op):
    """Matrix products over the last two axes, `[*, m, k]` and `[*, k, n]` with equal leading axes. It evaluates only:
    small ones are lowered to products of elements."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] @ inputs[1]
