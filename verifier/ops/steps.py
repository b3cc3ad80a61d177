"""Functions that are straight but for jumps: rounding to integers, thresholds.

The extremes of f - slope x are at the ends of the box and at jumps, where f counts as both of its limits. Stairs of
equal steps bulge along a line, so that their first and last jump in the box are enough.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Corner
from verifier.core.rounding import tiny
from verifier.ops.scalar import Point, Scalar, chord_slope, clamp_to
from verifier.ops.smooth import only_where


class Steps(Scalar):
    """`steepness`: between jumps the slope is this or 0."""

    steepness: ClassVar[float] = 0.0

    @abstractmethod
    def jumps(self, box: Interval) -> Sequence[Point]:
        """Places and what f takes there and next to it; NaN where there is none in the box."""

    @abstractmethod
    def places(self, box: Interval) -> Sequence[Tensor] | None:
        """Of all jumps in the box, ascending, and maybe some outside; None where they are too many."""

    def at(self, x: Tensor) -> Interval:
        value = self.evaluate(x)
        return Interval(value, value)

    def corners(self, box: Interval) -> Sequence[Corner] | None:
        """Two for each jump: f at its place may be neither of its limits."""
        places = self.places(box)
        if places is None:
            return None
        found = []
        for place in places:
            x = clamp_to(box, place)
            value, before, behind = self.at(x), self._beside(x, -1), self._beside(x, +1)
            inside = (place >= box.lower) & (place <= box.upper)
            before = _either(inside & (x > box.lower), before, value)
            found += [Corner(x, before, value), Corner(x, value, _either(inside & (x < box.upper), behind, value))]
        return found

    def _beside(self, x: Tensor, side: int) -> Interval:
        """The limit of f at x from one side."""
        least = x + side * tiny(x.dtype)
        near = torch.where(least == x, torch.nextafter(x, torch.full_like(x, side * torch.inf)), least)
        value, apart = self.at(near), (near - x).abs() * self.steepness
        return Interval(value.lower - apart, value.upper + apart)

    def interval(self, *inputs: Interval) -> Interval:
        values = [value for _, value in self.points(inputs[0], torch.zeros_like(inputs[0].lower))]
        return Interval(
            torch.stack([value.lower for value in values]).amin(0), torch.stack([v.upper for v in values]).amax(0)
        )

    def unstable(self, *inputs: Interval) -> Tensor:
        """Where f is constant on the box, nothing is left to gain."""
        values = self.interval(*inputs)
        return values.lower != values.upper

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """Flat, 1, and the lines through any two of the ends and the limits at jumps that can be best."""
        low, high = self.evaluate(box.lower), self.evaluate(box.upper)
        found = [torch.zeros_like(low), torch.ones_like(low), chord_slope(box, low, high)]
        jumps = self.jumps(box)
        for place, value in jumps:
            for limit in (value.lower, value.upper):
                found.append(chord_slope(Interval(box.lower, place), low, limit))
                found.append(chord_slope(Interval(place, box.upper), limit, high))
        for (first, before), (second, behind) in itertools.combinations(jumps, 2):
            between = Interval(first, second)
            found.append(chord_slope(between, before.lower, behind.lower))
            found.append(chord_slope(between, before.upper, behind.upper))
        return [torch.where(slope.isfinite(), slope, 0.0) for slope in found]

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        first, last = (only_where(x == x, self.at(x)) for x in (box.lower, box.upper))
        found = [(box.lower, first), (box.upper, last)]
        for place, value in self.jumps(box):
            inside = (place >= box.lower) & (place <= box.upper)
            low = torch.where(inside, value.lower, first.lower)
            found.append(
                (torch.where(inside, place, box.lower), Interval(low, torch.where(inside, value.upper, first.upper)))
            )
        return found


def _either(chosen: Tensor, one: Interval, other: Interval) -> Interval:
    return Interval(torch.where(chosen, one.lower, other.lower), torch.where(chosen, one.upper, other.upper))


def one_up(place: Tensor, low: Tensor, inside: Tensor) -> Point:
    """A jump from `low` to `low` + 1, NaN where it is not `inside`."""
    return torch.where(inside, place, torch.nan), Interval(low, low + 1)
