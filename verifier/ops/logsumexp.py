"""log sum_i exp(x_i) of several arguments: what is nonlinear in softmax, and finite wherever its arguments are.

It is convex, so its tangent at the middle of the box is below it; the slopes are the softmax there. Above, each
exp(x_i) is below its chord (all shifted by one number s), and the logarithm of the sum L of the chords is below its
tangent at L_0:  log L <= log L_0 - 1 + L / L_0. (The decomposition of Wei, Wu, Wu, Chen, Barrett and Farchi, AISTATS
2023, with tangents in place of their convex bounds.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Band, Elementwise, Planes
from verifier.core.rounding import tiny, unit

ULPS = 24  # with the number of arguments: an exponential, a logarithm of a sum and what lies between


@dataclass(frozen=True)
class LogSumExp(Elementwise):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.logsumexp(torch.stack(inputs), 0)

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = (torch.stack([getattr(box, side) for box in inputs]) for side in ("lower", "upper"))
        low, high = torch.logsumexp(lower, 0), torch.logsumexp(upper, 0)
        return Interval(low - self._error(lower, low), high + self._error(upper, high))

    def relax(self, *inputs: Interval) -> Planes:
        lower, upper = (torch.stack([getattr(box, side) for box in inputs]) for side in ("lower", "upper"))
        low_slopes, low = self._below(lower, upper)
        high_slopes, high = self._above(lower, upper)
        return Planes(tuple(low_slopes), low, tuple(high_slopes), high)

    def band(self, *inputs: Interval) -> Band:
        """The slopes of the tangent; the upper intercept is that of the upper plane, and what its slopes differ by
        costs over the box."""
        lower, upper = (torch.stack([getattr(box, side) for box in inputs]) for side in ("lower", "upper"))
        slopes, low = self._below(lower, upper)
        steep, high = self._above(lower, upper)
        change = steep - slopes
        gain = torch.maximum(change * lower, change * upper)
        size = (steep.abs() + slopes.abs()) * torch.maximum(lower.abs(), upper.abs())
        slack = (size.sum(0) + high.abs()) * ((len(inputs) + 8) * 2 * unit(low.dtype)) + tiny(low.dtype)
        return Band(tuple(slopes), low, high + gain.sum(0) + slack)

    def _error(self, x: Tensor, value: Tensor) -> Tensor:
        """Of a computed logsumexp, and of sums of products of its arguments with shares that add up to 1."""
        ulps = 2 * (ULPS + len(x)) * unit(x.dtype)
        return (1 + value.abs() + x.abs().amax(0)) * ulps

    def _below(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes `[arguments, batch, *shape]` and intercept of a plane below. Stored slopes p, whatever their rounding:
        logsumexp(x) - p x over the box is at least logsumexp(m) - p m, less |p* - p| times the reach, with p* the exact
        gradient at m."""
        middle, count = lower / 2 + upper / 2, len(lower)
        slopes, value = torch.softmax(middle, 0), torch.logsumexp(middle, 0)
        reach = torch.maximum(upper - middle, middle - lower)
        # (middle - largest) is off by one rounding, which exp multiplies by it
        ulps = ULPS + count + (middle - middle.amax(0)).abs()
        doubt = ((slopes * ulps * (2 * unit(value.dtype)) + 2 * tiny(value.dtype)) * reach).sum(0)
        return slopes, value - (slopes * middle).sum(0) - doubt - 2 * self._error(middle, value)

    def _above(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and intercept of a plane above. With stored slopes a and any L_0 > 0: the sum of exp(x_i - s) / L_0 is
        at most  a x + sum_i max over both ends of (exp(end - s) / L_0 - a_i end), since each term is convex."""
        shift = upper.amax(0)
        at_lower, at_upper = torch.exp(lower - shift), torch.exp(upper - shift)
        total = (at_lower / 2 + at_upper / 2).sum(0)
        width = upper - lower
        rise = torch.where(width > 0, (at_upper - at_lower) / width.clamp(min=tiny(width.dtype)), at_upper)
        slopes = rise / total
        gaps = torch.maximum(at_lower / total - slopes * lower, at_upper / total - slopes * upper)
        intercept = shift + total.log() - 1 + gaps.sum(0)
        # (end - shift) is off by one rounding, which exp multiplies by it: |d| exp(d) is at most 1/e left of 0
        size = 4 + shift.abs() + total.log().abs() + (slopes * torch.maximum(lower.abs(), upper.abs())).sum(0)
        slack = size * (2 * (ULPS + len(lower)) * unit(width.dtype)) + tiny(width.dtype) * len(lower) / total
        return slopes, intercept + slack
