"""Piecewise-linear activations of one argument: Relu, LeakyRelu (and PRelu), Abs, Clip, Sign.

Lines follow CROWN (Zhang 2018, table 2): chords on the side where the function bulges, else lines through a kink.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from verifier.core.adjustable import Line, Sloped
from verifier.core.interval import Interval
from verifier.core.operator import Band, Corner, Planes
from verifier.core.rounding import down, tiny, unit, up
from verifier.errors import UnsupportedError
from verifier.ops.scalar import Point, Scalar, chord_slope, clamp_to


def _straddles(box: Interval, kink: float = 0.0) -> Tensor:
    return (box.lower < kink) & (box.upper > kink)


@dataclass(frozen=True)
class Relu(Sloped):
    """max(x, 0). Lower slope of an unstable neuron: 1 where the chord's slope exceeds one half, else 0."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(min=0)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(inputs[0].lower.clamp(min=0), inputs[0].upper.clamp(min=0))

    def unstable(self, *inputs: Interval) -> Tensor:
        return _straddles(inputs[0])

    def relax(self, *inputs: Interval) -> Planes:
        chord = self.band(*inputs)
        slope = chord.slopes[0]
        return Planes(((slope > 0.5).to(slope.dtype),), None, chord.slopes, chord.high, simple=True)

    def band(self, *inputs: Interval) -> Band:
        """The hot path: no candidates. A stable neuron gets slope 0 or exactly 1, and intercept exactly 0; but one that
        stays below the smallest normal number gets a smaller slope, and an intercept."""
        lower, upper = inputs[0].lower.clamp(max=0), inputs[0].upper.clamp(min=0)
        slope = upper / (upper - lower).clamp(min=tiny(lower.dtype))
        # The stored slope s is near u/(u-l), so the line must clear both ends: t >= -s l and t >= u - s u.
        slack = (upper - lower) * (4 * unit(lower.dtype)) + tiny(lower.dtype)
        intercept = torch.maximum(-slope * lower, upper - slope * upper) + slack
        needed = (upper > 0) & ((lower < 0) | (upper < tiny(lower.dtype)))
        intercept = torch.where(needed, intercept, 0.0)
        return Band((slope,), torch.zeros_like(slope), intercept)

    def slope_ranges(self, box: Interval) -> tuple[Interval, Interval | None]:
        """Below, any slope from 0 to 1 where the neuron is unstable, else that of its phase. Above, the chord."""
        active, possible = box.lower >= 0, box.upper > 0
        return Interval((active & possible).to(box.lower.dtype), possible.to(box.lower.dtype)), None

    def lower_line(self, box: Interval, slope: Tensor) -> Line:
        """a x <= max(x, 0) for every x and every a from 0 to 1."""
        zero = torch.zeros((), dtype=slope.dtype, device=slope.device)
        return Line(zero, zero)

    def upper_line(self, box: Interval, slope: Tensor) -> Line:
        raise AssertionError("the chord is the only upper line")

    def branch_point(self, box: Interval) -> Tensor:
        return torch.zeros_like(box.lower)

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@dataclass(frozen=True, eq=False)
class LeakyRelu(Scalar):
    """x where x >= 0, else slope * x; `slope` broadcasts to the node's shape (PRelu) and may have any sign or size."""

    slope: Tensor

    def elements(self, index: Tensor, shape: tuple[int, ...]) -> LeakyRelu:
        one = self.slope.numel() == 1
        return LeakyRelu(self.slope.reshape(()) if one else self.slope.expand(shape).flatten()[index])

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] >= 0, inputs[0], inputs[0] * self.slope)

    def interval(self, *inputs: Interval) -> Interval:
        return _hull_with_zero(inputs[0], self._at(inputs[0].lower), self._at(inputs[0].upper))

    def _at(self, x: Tensor) -> Interval:
        """Two roundings on the bent side: of the stored slope, which may be subnormal, and of the product."""
        value, subnormal = x * self.slope, x.abs() * tiny(x.dtype)
        low, high = down(down(value, 2) - subnormal), up(up(value, 2) + subnormal)
        return Interval(torch.where(x >= 0, x, low), torch.where(x >= 0, x, high))

    def unstable(self, *inputs: Interval) -> Tensor:
        return _straddles(inputs[0])

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        bent = self.slope.expand_as(box.lower)
        return torch.ones_like(bent), bent, chord_slope(box, self.evaluate(box.lower), self.evaluate(box.upper))

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        return [(x, self._at(x)) for x in (box.lower, box.upper, clamp_to(box, 0.0))]

    def branch_point(self, box: Interval) -> Tensor:
        return torch.zeros_like(box.lower)

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@dataclass(frozen=True)
class Abs(Scalar):
    """|x|."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].abs()

    def interval(self, *inputs: Interval) -> Interval:
        return _hull_with_zero(inputs[0], *(Interval(x.abs(), x.abs()) for x in (inputs[0].lower, inputs[0].upper)))

    def unstable(self, *inputs: Interval) -> Tensor:
        return _straddles(inputs[0])

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        one = torch.ones_like(box.lower)
        return one, -one, chord_slope(box, box.lower.abs(), box.upper.abs())

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        return [(x, Interval(x.abs(), x.abs())) for x in (box.lower, box.upper, clamp_to(box, 0.0))]

    def branch_point(self, box: Interval) -> Tensor:
        return torch.zeros_like(box.lower)

    def kinks(self) -> tuple[float, ...]:
        return (0.0,)


@dataclass(frozen=True)
class Clip(Scalar):
    """min(max(x, minimum), maximum); either end may be infinite."""

    minimum: float
    maximum: float

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """An end that no number of this precision reaches is none."""
        most = torch.finfo(dtype).max
        if self.minimum > most or self.maximum < -most:
            raise UnsupportedError(f"Clip to [{self.minimum:g}, {self.maximum:g}], beyond the range of {dtype}")
        low = self.minimum if self.minimum >= -most else -math.inf
        return replace(self, minimum=low, maximum=self.maximum if self.maximum <= most else math.inf)

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].clamp(self.minimum, self.maximum)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self._at(inputs[0].lower).lower, self._at(inputs[0].upper).upper)

    def _at(self, x: Tensor) -> Interval:
        """Enclosure of f(x): exact, but for an end that is not a number of this precision. Where x is the rounded end,
        f(x) may be x or the end."""
        value = x.clamp(self.minimum, self.maximum)
        rounded = torch.zeros_like(value, dtype=torch.bool)
        for end in (self.minimum, self.maximum):
            stored = torch.tensor(end, dtype=x.dtype, device=x.device)
            if float(stored) != end:
                rounded |= value == stored
        return Interval(torch.where(rounded, down(value), value), torch.where(rounded, up(value), value))

    def unstable(self, *inputs: Interval) -> Tensor:
        return _straddles(inputs[0], self.minimum) | _straddles(inputs[0], self.maximum)

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """Flat, steep, the chord, and the lines from either end to the far kink."""
        floor, ceiling = clamp_to(box, self.minimum), clamp_to(box, self.maximum)
        low, high = self.evaluate(box.lower), self.evaluate(box.upper)
        return (
            torch.zeros_like(low),
            torch.ones_like(low),
            chord_slope(box, low, high),
            chord_slope(Interval(box.lower, ceiling), low, high),
            chord_slope(Interval(floor, box.upper), low, high),
        )

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        kinks = clamp_to(box, self.minimum), clamp_to(box, self.maximum)
        return [(x, self._at(x)) for x in (box.lower, box.upper, *kinks)]

    def branch_point(self, box: Interval) -> Tensor:
        """The first kink inside."""
        floor, ceiling = (torch.full_like(box.lower, end) for end in (self.minimum, self.maximum))
        return torch.where(_straddles(box, self.minimum), floor, ceiling)

    def kinks(self) -> tuple[float, ...]:
        return tuple(end for end in (self.minimum, self.maximum) if math.isfinite(end))


@dataclass(frozen=True)
class Sign(Scalar):
    """-1, 0 or 1. At 0 inside an interval the function takes all three values, so both sides of the jump count."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sign()

    def interval(self, *inputs: Interval) -> Interval:
        """An end that is not a number may be anything."""
        return Interval(inputs[0].lower.nan_to_num(nan=-1.0).sign(), inputs[0].upper.nan_to_num(nan=1.0).sign())

    def unstable(self, *inputs: Interval) -> Tensor:
        value = self.interval(*inputs)
        return value.lower != value.upper

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """Flat, and from either end to the far side of the jump."""
        value, jump = self.interval(box), self._jump(box)
        parts = Interval(box.lower, jump), Interval(jump, box.upper)
        return torch.zeros_like(jump), *(chord_slope(part, value.lower, value.upper) for part in parts)

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        value = self.interval(box)
        ends = Interval(value.lower, value.lower), Interval(value.upper, value.upper)
        return (box.lower, ends[0]), (box.upper, ends[1]), (self._jump(box), value)

    def branch_point(self, box: Interval) -> Tensor:
        return torch.zeros_like(box.lower)

    def corners(self, box: Interval) -> Sequence[Corner]:
        value = self.interval(box)
        before, behind = (Interval(end, end) for end in (value.lower, value.upper))
        return (Corner(self._jump(box), before, behind),)

    def _jump(self, box: Interval) -> Tensor:
        return torch.where(self.unstable(box), clamp_to(box, 0.0), box.lower)


def _hull_with_zero(box: Interval, low: Interval, high: Interval) -> Interval:
    """Range of a function that is monotone on each side of its kink at (0, 0), from enclosures at both ends."""
    lower, upper = torch.minimum(low.lower, high.lower), torch.maximum(low.upper, high.upper)
    kink = _straddles(box)
    return Interval(torch.where(kink, lower.clamp(max=0), lower), torch.where(kink, upper.clamp(min=0), upper))
