"""Linear bounds of scalar functions: choose slopes freely, then compute intercepts that are certainly valid.

For a given slope a, the best lower line of f on [l, u] has the intercept min_x f(x) - a x. That minimum is attained at
an end, at a kink, or where f' = a, so a function is described by these points and enclosures of its values there.
Slopes are taken as stored, hence exact; only the intercepts carry rounding, outward.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.core.adjustable import Adjusted, Line, Sloped
from verifier.core.choose import choose, greater
from verifier.core.interval import Interval
from verifier.core.operator import Band, Planes
from verifier.core.rounding import tiny, unit

Point = tuple[Tensor, Interval]
"""A place x and an enclosure of f(x), both `[batch, *shape]`."""

SMOOTH_PACE = 0.2  # the best slopes of a smooth function are inside of their range; large steps jump over them
ROUNDINGS = 8  # of f - a x relative to |f| + |a x|: product, difference, and what a point is off by


class Scalar(Sloped):
    """y = f(x). A subclass lists slopes worth trying and the places where f(x) - slope x can be extreme."""

    @abstractmethod
    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """Candidate slopes; any number is allowed, good ones give tight lines. Each `[batch, *shape]`."""

    @abstractmethod
    def points(self, box: Interval, slope: Tensor) -> Sequence[Point]:
        """Places of [l, u] of which one minimises, and one maximises, f(x) - slope x over [l, u]."""

    def relax(self, *inputs: Interval) -> Planes:
        """For each side the candidate with the smallest area to f: the one that is best at the middle of [l, u]."""
        box = inputs[0]
        middle = box.middle()
        lower = upper = None
        for slope in self.slopes(box):
            low, high = self._intercepts(box, slope)
            lower = _better(lower, (slope, low, slope * middle + low))
            upper = _better(upper, (slope, high, -(slope * middle + high)))
        assert lower is not None and upper is not None
        return Planes((lower[0],), lower[1], (upper[0],), upper[1])

    def band(self, *inputs: Interval) -> Band:
        """The candidate with the narrowest band."""
        best = None
        for slope in self.slopes(inputs[0]):
            low, high = self._intercepts(inputs[0], slope)
            best = _better(best, (slope, low, high, low - high))
        assert best is not None
        return Band((best[0],), best[1], best[2])

    def slope_ranges(self, box: Interval) -> tuple[Interval, Interval | None]:
        """Between the least and the greatest candidate; that of `relax` where nothing is left to choose."""
        candidates = torch.stack(list(self.slopes(box)))
        low, high = candidates.amin(0), candidates.amax(0)
        settled = ~self.unstable(box)
        if not bool(settled.any()):
            return Interval(low, high), Interval(low, high)
        planes = self.relax(box)
        below, above = planes.lower_slopes[0], planes.upper_slopes[0]
        return (
            Interval(torch.where(settled, below, low), torch.where(settled, below, high)),
            Interval(torch.where(settled, above, low), torch.where(settled, above, high)),
        )

    def lower_line(self, box: Interval, slope: Tensor) -> Line:
        return _extreme(self.points(box, slope), slope, 0.0)

    def upper_line(self, box: Interval, slope: Tensor) -> Line:
        return _extreme(self.points(box, slope), slope, 1.0)

    def plane(self, above: Tensor, parameter: Tensor, *inputs: Interval) -> Adjusted:
        line = _extreme(self.points(inputs[0], parameter), parameter, above)
        return Adjusted((parameter,), line.intercept, None, -line.touch)

    def branch_point(self, box: Interval) -> Tensor:
        return box.middle()

    def _intercepts(self, box: Interval, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Greatest lower and least upper intercept of lines with this slope. All `[batch, *shape]`."""
        points = self.points(box, slope)
        return _extreme(points, slope, 0.0).intercept, _extreme(points, slope, 1.0).intercept


def _extreme(points: Sequence[Point], slope: Tensor, above: float | Tensor) -> Line:
    """The greatest (`above` 1) or least (0) of f(x) - slope x over the points, rounded outward, and its place."""
    best = touch = None
    side = 2 * above - 1
    for x, value in points:
        product = slope * x
        slack = (value.magnitude() + product.abs()) * (ROUNDINGS * unit(x.dtype)) + tiny(x.dtype)
        beyond = side * (_end(value, above) - product) + slack
        if best is None or touch is None:
            best, touch = beyond, x.expand_as(beyond)
            continue
        touch = choose(greater(beyond, best), x, touch)
        best = torch.maximum(best, beyond)  # a NaN makes the line useless instead of wrong
    assert best is not None and touch is not None
    return Line(side * best, touch)


def _end(value: Interval, above: float | Tensor) -> Tensor:
    """The upper end where `above` is 1. Where that is chosen element by element, infinite ends become large ones."""
    if not isinstance(above, Tensor):
        return value.upper if above else value.lower
    most = torch.finfo(above.dtype).max / 4
    return choose(above, value.upper.clamp(max=most), value.lower.clamp(min=-most))


def _better(old: tuple[Tensor, ...] | None, new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Elementwise choice between two candidates by their last tensor, the larger the better; a NaN never wins."""
    if old is None:
        return new
    wins = (new[-1] > old[-1]) | old[-1].isnan()
    return tuple(torch.where(wins, n, o) for n, o in zip(new, old, strict=True))


def chord_slope(box: Interval, low_value: Tensor, high_value: Tensor) -> Tensor:
    """(f(u) - f(l)) / (u - l), and 0 on a point."""
    width = box.upper - box.lower
    return torch.where(width > 0, (high_value - low_value) / width.clamp(min=tiny(width.dtype)), 0.0)


def clamp_to(box: Interval, x: Tensor | float) -> Tensor:
    """The point of [l, u] nearest to x."""
    point = torch.as_tensor(x, dtype=box.lower.dtype, device=box.lower.device)
    return torch.minimum(torch.maximum(point, box.lower), box.upper)
