"""log sum_i exp(x_i) of several arguments: what is nonlinear in softmax, and finite wherever its arguments are.

It is convex, so its tangents are below it, first the one at the middle of the box; the slopes are the softmax there.
The planes above are those of `exponential_sums`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.adjustable import Adjustable, Adjusted
from verifier.core.interval import Interval
from verifier.core.operator import Band, Branch, Planes, weighted
from verifier.core.rounding import tiny, unit
from verifier.ops.exponential_sums import AboveSum, share_ulps, sum_error


@dataclass(frozen=True)
class LogSumExp(Adjustable):
    """The parameters, from 0 to 1, say where on the way from the box's lower to its upper corner the tangent is; above,
    where between the sums of exponentials at these corners L_0 is, or the share of the upper corner's plane."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.logsumexp(torch.stack(inputs), 0)

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = _corners(inputs)
        low, high = torch.logsumexp(lower, 0), torch.logsumexp(upper, 0)
        return Interval(low - sum_error(lower, low), high + sum_error(upper, high))

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """An argument matters as much as its exponential can rise."""
        lower, upper = _corners(inputs)
        shift = upper.amax(0)
        sizes = torch.exp(upper - shift) - torch.exp(lower - shift)
        return weighted([box.middle() for box in inputs], tuple(sizes))

    def relax(self, *inputs: Interval) -> Planes:
        lower, upper = _corners(inputs)
        low_slopes, low = self._below(lower, upper, lower / 2 + upper / 2)
        above = AboveSum(lower, upper)
        plane = above.plane(above.start())
        return Planes(tuple(low_slopes), low, tuple(plane.slopes), plane.intercept)

    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval]:
        zero = torch.zeros_like(inputs[0].lower)
        return Interval(zero, zero + 1), Interval(zero, zero + 1)

    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        return torch.full_like(planes.upper_intercept, 0.5), AboveSum(*_corners(inputs)).start()

    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        lower, upper = _corners(inputs)
        point = torch.minimum(torch.maximum(lower + parameter * (upper - lower), lower), upper)
        slopes, intercept = self._below(lower, upper, point)
        turns = slopes * (upper - lower - (slopes * (upper - lower)).sum(0))
        return Adjusted(tuple(slopes), intercept, tuple(turns), -(turns * point).sum(0))

    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        plane = AboveSum(*_corners(inputs)).plane(parameter)
        return Adjusted(tuple(plane.slopes), plane.intercept, tuple(plane.turns), plane.lift)

    def band(self, *inputs: Interval) -> Band:
        """The slopes of the tangent; the upper intercept is that of the upper plane, and what its slopes differ by
        costs over the box."""
        lower, upper = _corners(inputs)
        slopes, low = self._below(lower, upper, lower / 2 + upper / 2)
        above = AboveSum(lower, upper)
        plane = above.plane(above.start())
        steep, high = plane.slopes, plane.intercept
        change = steep - slopes
        gain = torch.maximum(change * lower, change * upper)
        size = (steep.abs() + slopes.abs()) * torch.maximum(lower.abs(), upper.abs())
        slack = (size.sum(0) + high.abs()) * ((len(inputs) + 8) * 2 * unit(low.dtype)) + tiny(low.dtype)
        return Band(tuple(slopes), low, high + gain.sum(0) + slack)

    def _below(self, lower: Tensor, upper: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes `[arguments, batch, *shape]` and intercept of the tangent at a point m of the box. Stored slopes p,
        whatever their rounding: logsumexp(x) - p x over the box is at least logsumexp(m) - p m, less |p* - p| times the
        reach, with p* the exact gradient at m."""
        slopes, value = torch.softmax(point, 0), torch.logsumexp(point, 0)
        reach = torch.maximum(upper - point, point - lower)
        doubt = ((slopes * share_ulps(point) * (2 * unit(value.dtype)) + 2 * tiny(value.dtype)) * reach).sum(0)
        return slopes, value - (slopes * point).sum(0) - doubt - 2 * sum_error(point, value)


def _corners(inputs: tuple[Interval, ...]) -> tuple[Tensor, Tensor]:
    """The lower and the upper ends of all arguments, `[arguments, *shape]` each."""
    return torch.stack([box.lower for box in inputs]), torch.stack([box.upper for box in inputs])
