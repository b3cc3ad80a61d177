"""Curves: functions of one argument that are convex or concave on each of a few pieces.

Where f is convex, every tangent is below it: f(x) - a x >= f(t) - a t + (f'(t) - a)(x - t). So the least value of
f - a x over a piece is enclosed from any t of it, and nearly exactly where f'(t) is nearly a; where f is concave, the
greatest one. Nothing depends on how well t solves f'(t) = a, only on certain values of f and f' at t (both from
`around`). All other extremes are at the ends of pieces.

An inflection point is stored with one rounding: next to it f may bend the wrong way by an amount that is cubic in u.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.rounding import tiny, unit
from verifier.ops.scalar import SMOOTH_PACE, Point, Scalar, chord_slope, clamp_to

LIBRARY_ULPS = 8  # what a vectorised elementary function may be off by, with a margin
BISECTIONS = 12

Piece = tuple[Interval, Tensor | int]
"""A part of the box and how f bends there: 1 convex, -1 concave, 0 straight."""


class Curve(Scalar):
    """`knots`: inflection points, kinks and poles, ascending; `bends`: one more, as in `Piece`. `low`, `high`: the
    closed range. `monotone`: f never decreases."""

    knots: ClassVar[tuple[float, ...]] = ()
    bends: ClassVar[tuple[int, ...]] = (0,)
    low: ClassVar[float] = -torch.inf
    high: ClassVar[float] = torch.inf
    monotone: ClassVar[bool] = False
    pace: ClassVar[float] = SMOOTH_PACE

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """f', from the bent side at a kink."""

    def at(self, x: Tensor) -> Interval:
        """Enclosure of f(x), for the stored x."""
        return within(around(self.evaluate(x)), self.low, self.high)

    def derivative_at(self, x: Tensor) -> Interval:
        """Enclosure of f'(x)."""
        return around(self.derivative(x))

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        """A point of the part near to where f' is `slope`, else near to the end where it is nearest: by bisection."""
        near, far = part.lower, part.upper
        for _ in range(BISECTIONS):
            middle = near / 2 + far / 2
            beyond = (self.derivative(middle) - slope) * bend > 0
            near, far = torch.where(beyond, near, middle), torch.where(beyond, middle, far)
        return near / 2 + far / 2

    def domain(self, box: Interval) -> Interval:
        """The part of the box that the argument can be in."""
        return box

    def pieces(self, box: Interval) -> Sequence[Piece]:
        edges = (-torch.inf, *self.knots, torch.inf)
        ends = [clamp_to(box, edge) for edge in edges]
        return [(Interval(ends[i], ends[i + 1]), bend) for i, bend in enumerate(self.bends)]

    def interval(self, *inputs: Interval) -> Interval:
        box = self.domain(inputs[0])
        if self.monotone:
            return Interval(self.at(box.lower).lower, self.at(box.upper).upper)
        values = [value for _, value in self.points(box, torch.zeros_like(box.lower))]
        lower, upper = torch.stack([v.lower for v in values]), torch.stack([v.upper for v in values])
        return within(Interval(lower.amin(0), upper.amax(0)), self.low, self.high)

    def unstable(self, *inputs: Interval) -> Tensor:
        return inputs[0].lower < inputs[0].upper

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """The chord, tangents at the ends and the middle and, of several pieces, those that pass through an end."""
        box = self.domain(box)
        chord = chord_slope(box, self.evaluate(box.lower), self.evaluate(box.upper))
        found = [chord, *(self.derivative(x) for x in (box.lower, box.upper, box.middle()))]
        if len(self.bends) > 1:
            parts = [part for part, bend in self.pieces(box) if not _is_straight(bend)]
            found += [self._tangent_through(end, part) for part in parts for end in (box.lower, box.upper)]
        return [torch.where(slope.isfinite(), slope, 0.0) for slope in found]

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        box = self.domain(box)
        found = [(box.lower, self.at(box.lower)), (box.upper, self.at(box.upper))]
        pieces = self.pieces(box)
        found += [(part.upper, self.at(part.upper)) for part, _ in pieces[:-1]]
        return [*found, *(self._extreme(part, bend, slope) for part, bend in pieces if not _is_straight(bend))]

    def _extreme(self, part: Interval, bend: Tensor | int, slope: Tensor) -> Point:
        """A point of the part, and f there, lowered or raised to cover what f - slope x is elsewhere on the part."""
        touch = clamp_to(part, self.where_derivative_is(slope, part, bend)) + 0.0  # at -0.0 a derivative may be -inf
        value, steep = self.at(touch), self.derivative_at(touch)
        right, left = part.upper - touch, touch - part.lower
        below = torch.maximum(_excess(slope - steep.lower, right), _excess(steep.upper - slope, left))
        above = torch.maximum(_excess(steep.upper - slope, right), _excess(slope - steep.lower, left))
        bent = torch.as_tensor(bend, device=touch.device)
        lower = torch.where(bent > 0, value.lower - below, value.lower)
        return touch, Interval(lower, torch.where(bent < 0, value.upper + above, value.upper))

    def _tangent_through(self, end: Tensor, part: Interval) -> Tensor:
        """Slope of the tangent, at a point of the part, that passes through (end, f(end)); by bisection. The tangent's
        height over `end` is monotone in the point while `end` is on one side of it."""
        value, near, far = self.evaluate(end), part.lower, part.upper
        sign = torch.sign(self._miss(far, end, value) - self._miss(near, end, value))
        for _ in range(BISECTIONS):
            middle = near / 2 + far / 2
            beyond = self._miss(middle, end, value) * sign > 0
            near, far = torch.where(beyond, near, middle), torch.where(beyond, middle, far)
        return self.derivative(near / 2 + far / 2)

    def _miss(self, point: Tensor, end: Tensor, value: Tensor) -> Tensor:
        return self.evaluate(point) + self.derivative(point) * (end - point) - value


def _is_straight(bend: Tensor | int) -> bool:
    return isinstance(bend, int) and bend == 0


def around(value: Tensor, ulps: float | Tensor = LIBRARY_ULPS, absolute: float | Tensor = 0.0) -> Interval:
    """Numbers within `ulps` units in the last place, and `absolute`, of a computed one; an overflow is above the
    largest number, less its error."""
    largest = torch.finfo(value.dtype).max
    size = value.abs().clamp(max=largest) * (2 * ulps * unit(value.dtype)) + absolute + tiny(value.dtype)
    return Interval(value.clamp(max=largest) - size, value.clamp(min=-largest) + size)


def within(values: Interval, low: Tensor | float, high: Tensor | float) -> Interval:
    """What is known to lie between `low` and `high`; a NaN gives way to these, if they are numbers."""
    lower, upper = (torch.as_tensor(end, dtype=values.lower.dtype, device=values.lower.device) for end in (low, high))
    return Interval(
        torch.where(lower > -torch.inf, torch.fmax(values.lower, lower), values.lower),
        torch.where(upper < torch.inf, torch.fmin(values.upper, upper), values.upper),
    )


def _excess(steepness: Tensor, width: Tensor) -> Tensor:
    """steepness * width where both are positive, rounded up, else 0; NaN stays."""
    product = steepness * width
    product = product + product.abs() * (8 * unit(product.dtype)) + tiny(product.dtype)
    return torch.where((steepness <= 0) | (width <= 0), 0.0, product)
