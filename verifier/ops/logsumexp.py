"""log sum_i exp(x_i) of several arguments: what is nonlinear in softmax, and finite wherever its arguments are.

It is convex, so its tangents are below it, first the one at the middle of the box; the slopes are the softmax there.
Above, each exp(x_i) is below its chord (all shifted by one number s), and the logarithm of the sum L of the chords is
below its tangent at L_0:  log L <= log L_0 - 1 + L / L_0. (The decomposition of Wei, Wu, Wu, Chen, Barrett and Farchi,
AISTATS 2023, with tangents in place of their convex bounds.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Adjustable, Adjusted, Band, Branch, Planes, weighted
from verifier.core.rounding import tiny, unit

ULPS = 24  # with the number of arguments: an exponential, a logarithm of a sum and what lies between
LEAST_SHARE = 0.02  # parameter of the lowest tangent worth trying above: the logarithm is steep near to 0


@dataclass(frozen=True)
class LogSumExp(Adjustable):
    """The parameters, from 0 to 1, say where on the way from the box's lower to its upper corner the tangent is; above,
    where between the sums of exponentials at these corners L_0 is."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.logsumexp(torch.stack(inputs), 0)

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = _corners(inputs)
        low, high = torch.logsumexp(lower, 0), torch.logsumexp(upper, 0)
        return Interval(low - self._error(lower, low), high + self._error(upper, high))

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """An argument matters as much as its exponential can rise."""
        lower, upper = _corners(inputs)
        shift = upper.amax(0)
        sizes = torch.exp(upper - shift) - torch.exp(lower - shift)
        return weighted([box.middle() for box in inputs], tuple(sizes))

    def relax(self, *inputs: Interval) -> Planes:
        lower, upper = _corners(inputs)
        low_slopes, low = self._below(lower, upper, lower / 2 + upper / 2)
        high_slopes, high, _ = self._above(lower, upper, 0.5)
        return Planes(tuple(low_slopes), low, tuple(high_slopes), high)

    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval]:
        zero = torch.zeros_like(inputs[0].lower)
        return Interval(zero, zero + 1), Interval(zero + LEAST_SHARE, zero + 1)

    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        half = torch.full_like(planes.upper_intercept, 0.5)
        return half, half

    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        lower, upper = _corners(inputs)
        point = torch.minimum(torch.maximum(lower + parameter * (upper - lower), lower), upper)
        slopes, intercept = self._below(lower, upper, point)
        turns = slopes * (upper - lower - (slopes * (upper - lower)).sum(0))
        return Adjusted(tuple(slopes), intercept, tuple(turns), -(turns * point).sum(0))

    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        lower, upper = _corners(inputs)
        share = parameter.clamp(LEAST_SHARE, 1)
        slopes, intercept, gaps = self._above(lower, upper, share)
        shift = upper.amax(0)
        at_lower, at_upper = torch.exp(lower - shift).sum(0), torch.exp(upper - shift).sum(0)
        pace = (at_upper - at_lower) / torch.lerp(at_lower, at_upper, share)  # of log L_0
        return Adjusted(tuple(slopes), intercept, tuple(-slopes * pace), (1 - gaps) * pace)

    def band(self, *inputs: Interval) -> Band:
        """The slopes of the tangent; the upper intercept is that of the upper plane, and what its slopes differ by
        costs over the box."""
        lower, upper = _corners(inputs)
        slopes, low = self._below(lower, upper, lower / 2 + upper / 2)
        steep, high, _ = self._above(lower, upper, 0.5)
        change = steep - slopes
        gain = torch.maximum(change * lower, change * upper)
        size = (steep.abs() + slopes.abs()) * torch.maximum(lower.abs(), upper.abs())
        slack = (size.sum(0) + high.abs()) * ((len(inputs) + 8) * 2 * unit(low.dtype)) + tiny(low.dtype)
        return Band(tuple(slopes), low, high + gain.sum(0) + slack)

    def _error(self, x: Tensor, value: Tensor) -> Tensor:
        """Of a computed logsumexp, and of sums of products of its arguments with shares that add up to 1."""
        ulps = 2 * (ULPS + len(x)) * unit(x.dtype)
        return (1 + value.abs() + x.abs().amax(0)) * ulps

    def _below(self, lower: Tensor, upper: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes `[arguments, batch, *shape]` and intercept of the tangent at a point m of the box. Stored slopes p,
        whatever their rounding: logsumexp(x) - p x over the box is at least logsumexp(m) - p m, less |p* - p| times the
        reach, with p* the exact gradient at m."""
        slopes, value = torch.softmax(point, 0), torch.logsumexp(point, 0)
        reach = torch.maximum(upper - point, point - lower)
        # (point - largest) is off by one rounding, which exp multiplies by it
        ulps = ULPS + len(lower) + (point - point.amax(0)).abs()
        doubt = ((slopes * ulps * (2 * unit(value.dtype)) + 2 * tiny(value.dtype)) * reach).sum(0)
        return slopes, value - (slopes * point).sum(0) - doubt - 2 * self._error(point, value)

    def _above(self, lower: Tensor, upper: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes and intercept of a plane above, and the sum of the gaps. With stored slopes a and any L_0 > 0: the sum
        of exp(x_i - s) / L_0 is at most  a x + sum_i gap_i, the larger one of  exp(end - s) / L_0 - a_i end  at both
        ends, since each term is convex. L_0 lies between the sums at the two corners."""
        shift = upper.amax(0)
        at_lower, at_upper = torch.exp(lower - shift), torch.exp(upper - shift)
        total = (at_lower * (1 - share) + at_upper * share).sum(0)
        width = upper - lower
        rise = torch.where(width > 0, (at_upper - at_lower) / width.clamp(min=tiny(width.dtype)), at_upper)
        slopes = rise / total
        gaps = torch.maximum(at_lower / total - slopes * lower, at_upper / total - slopes * upper).sum(0)
        intercept = shift + total.log() - 1 + gaps
        # (end - shift) is off by one rounding, which exp multiplies by it: |d| exp(d) is at most 1/e left of 0
        size = 2 + shift.abs() + total.log().abs() + (slopes * torch.maximum(lower.abs(), upper.abs())).sum(0)
        size = size + (1 + at_upper.sum(0)) / total
        slack = size * (2 * (ULPS + len(lower)) * unit(width.dtype)) + tiny(width.dtype) * len(lower) / total
        return slopes, intercept + slack, gaps


def _corners(inputs: tuple[Interval, ...]) -> tuple[Tensor, Tensor]:
    """The lower and the upper ends of all arguments, `[arguments, *shape]` each."""
    return torch.stack([box.lower for box in inputs]), torch.stack([box.upper for box in inputs])
