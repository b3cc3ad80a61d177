"""Sine, cosine, tangent: convex and concave in turn on pieces that depend on the box.

Multiples of pi next to x are off by a few ulps of x, so f may bend the wrong way next to the ends of a piece; by the
cube of that, which `at` adds. Boxes far out, or wider than a period, get the range alone.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.rounding import unit
from verifier.ops.curves import LIBRARY_ULPS, Curve, Piece, around, within
from verifier.ops.scalar import Point, clamp_to
from verifier.ops.smooth import only_where

FAR = 512.0  # beyond it pieces are not worth their rounding


class _Wave(Curve):
    """`start`: an inflection point with a concave piece to its right."""

    start: ClassVar[float]
    bends = (1, -1)
    low = -1.0
    high = 1.0

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor: ...

    def at(self, x: Tensor) -> Interval:
        doubt = (x.abs().clamp(max=FAR) * (16 * unit(x.dtype))) ** 3
        return within(around(self.evaluate(x), LIBRARY_ULPS, doubt), self.low, self.high)

    def pieces(self, box: Interval) -> Sequence[Piece]:
        first = ((box.lower - self.start) / math.pi).floor()
        edges = [clamp_to(box, (first + k) * math.pi + self.start) for k in range(1, 4)]
        ends = [box.lower, *edges, box.upper]
        bends = [torch.where((first + k) % 2 == 0, -1, 1) for k in range(4)]
        return [(Interval(ends[k], ends[k + 1]), bends[k]) for k in range(4)]

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """Flat lines too: they touch at two crests, and they are what the range gives."""
        return [*super().slopes(box), torch.zeros_like(box.lower)]

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        """On a concave piece, from its start, the derivative falls like a cosine."""
        begin = ((part.middle() - self.start) / math.pi).floor() * math.pi + self.start
        return begin + torch.acos((-slope * bend).clamp(-1, 1))

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        """The range says -1 - a x <= f(x) - a x <= 1 - a x, extreme at the ends."""
        wide = (box.upper - box.lower > 6.28) | (box.magnitude() > FAR)
        return [
            (torch.where(wide, end, x), Interval(torch.where(wide, -1.0, f.lower), torch.where(wide, 1.0, f.upper)))
            for end, (x, f) in self._with_ends(box, super().points(box, slope))
        ]

    def _with_ends(self, box: Interval, points: Sequence[Point]) -> list[tuple[Tensor, Point]]:
        """Each point with the end of the box that may stand in for it."""
        return [(box.upper if place % 2 else box.lower, point) for place, point in enumerate(points)]


@dataclass(frozen=True)
class Sin(_Wave):
    start = 0.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sin()

    def derivative(self, x: Tensor) -> Tensor:
        return x.cos()


@dataclass(frozen=True)
class Cos(_Wave):
    start = -math.pi / 2

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].cos()

    def derivative(self, x: Tensor) -> Tensor:
        return -x.sin()


@dataclass(frozen=True)
class Tan(Curve):
    """Unbounded where the box may meet a pole."""

    bends = (-1, 1)
    monotone = True

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].tan()

    def derivative(self, x: Tensor) -> Tensor:
        return 1 + x.tan().square()

    def interval(self, *inputs: Interval) -> Interval:
        return only_where(self._between_poles(inputs[0]), super().interval(*inputs))

    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        safe = self._between_poles(box)
        return [(x, only_where(safe, value)) for x, value in super().points(box, slope)]

    def at(self, x: Tensor) -> Interval:
        doubt = (x.abs().clamp(max=FAR) * (16 * unit(x.dtype))) ** 3
        return around(self.evaluate(x), LIBRARY_ULPS, doubt)

    def pieces(self, box: Interval) -> Sequence[Piece]:
        zero = clamp_to(box, _nearest_zero(box))
        return [(Interval(box.lower, zero), -1), (Interval(zero, box.upper), 1)]

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        return _nearest_zero(part) + bend * torch.atan((slope - 1).clamp(min=0).sqrt())

    def _between_poles(self, box: Interval) -> Tensor:
        reach = math.pi / 2 - 1e-3
        zero = _nearest_zero(box)
        return (box.magnitude() < FAR) & (box.lower - zero > -reach) & (box.upper - zero < reach)


def _nearest_zero(box: Interval) -> Tensor:
    return (box.middle() / math.pi).round() * math.pi
