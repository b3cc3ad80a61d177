"""Products, quotients and sums of exponentials of variables.

Bounds of x y (McCormick 1976):  (x - a)(y - b) >= 0  where (a, b) are both lower or both upper ends, which is a plane
below, and with ends of opposite kinds a plane above. Any mixture of the two planes on a side holds.

Half way between them, around the middles (p, q) of the box, x y = q x + p y - p q + (x - p)(y - q), whose last term is
at most the product of the half-widths. Of all planes below this has the least largest distance, and the same slopes
above and below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.adjustable import Adjustable, Adjusted
from verifier.core.choose import choose
from verifier.core.interval import Interval
from verifier.core.operator import Band, Branch, Op, Planes
from verifier.core.rounding import down, tiny, unit, up

PLANE_ROUNDINGS = 24  # of a plane's slopes and intercept together, relative to the largest |x| |y|: at most 17


@dataclass(frozen=True)
class Multiply(Adjustable):
    """x * y, same shapes. The parameters, from 0 to 1, are the shares of the plane at y's upper end."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]

    def interval(self, *inputs: Interval) -> Interval:
        x, y = inputs
        corners = torch.stack([_product(a, b) for a in (x.lower, x.upper) for b in (y.lower, y.upper)])
        lower = down(corners.amin(0))
        same_sign = ((x.lower >= 0) & (y.lower >= 0)) | ((x.upper <= 0) & (y.upper <= 0))
        return Interval(torch.where(same_sign, lower.clamp(min=0.0), lower), up(corners.amax(0)))

    def unstable(self, *inputs: Interval) -> Tensor:
        """Where one factor is a point, the planes are exact."""
        return (inputs[0].lower < inputs[0].upper) & (inputs[1].lower < inputs[1].upper)

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """The planes are as far apart as the product of the widths: either argument will do, in the middle."""
        return tuple(Branch(box.middle()) for box in inputs)

    def relax(self, *inputs: Interval) -> Planes:
        band = self.band(*inputs)
        return Planes(band.slopes, band.low, band.slopes, band.high)

    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval]:
        zero = torch.zeros_like(inputs[0].lower)
        return Interval(zero, zero + 1), Interval(zero, zero + 1)

    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        half = torch.full_like(planes.upper_intercept, 0.5)
        return half, half

    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        x, y = inputs
        return self._mixture(parameter, (x.lower, y.lower), (x.upper, y.upper), inputs, -1)

    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        x, y = inputs
        return self._mixture(parameter, (x.upper, y.lower), (x.lower, y.upper), inputs, +1)

    def plane(self, above: Tensor, parameter: Tensor, *inputs: Interval) -> Adjusted:
        x, y = inputs
        wide, high, share = x.upper - x.lower, y.upper - y.lower, parameter.clamp(0, 1)
        first = choose(above, x.upper * y.lower, x.lower * y.lower)
        second = choose(above, x.lower * y.upper, x.upper * y.upper)
        along = choose(above, 1 - share, share)  # from x's lower end
        slopes = torch.addcmul(y.lower, share, high), torch.addcmul(x.lower, along, wide)
        return Adjusted(slopes, -torch.lerp(first, second, share), (high, choose(above, -wide, wide)), first - second)

    def _mixture(
        self,
        share: Tensor,
        first: tuple[Tensor, Tensor],
        second: tuple[Tensor, Tensor],
        boxes: tuple[Interval, ...],
        side: int,
    ) -> Adjusted:
        """Of the planes  b x + a y - a b  of two corners (a, b): the second one's share, kept in [0, 1]."""
        (a, b), share = first, share.clamp(0, 1)
        turns = second[1] - b, second[0] - a
        constant = a * b
        lift = constant - second[0] * second[1]
        largest = [box.magnitude() for box in boxes]
        slack = largest[0] * largest[1] * (PLANE_ROUNDINGS * unit(a.dtype))
        slack = slack + tiny(a.dtype) * (4 + 2 * largest[0] + 2 * largest[1])
        slopes = torch.addcmul(b, share, turns[0]), torch.addcmul(a, share, turns[1])
        return Adjusted(slopes, torch.addcmul(side * slack - constant, share, lift), turns, lift)

    def band(self, *inputs: Interval) -> Band:
        (p, first), (q, second) = (box.around() for box in inputs)
        product, rest = p * q, first * second
        rest = rest + (rest + product.abs()) * (8 * unit(p.dtype)) + 2 * tiny(p.dtype)
        return Band((q, p), -product - rest, rest - product)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b at ends of intervals: 0 times infinity is the limit of 0 times large numbers."""
    return torch.where((a == 0) | (b == 0), 0.0, a * b)


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
