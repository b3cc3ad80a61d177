"""Planes above f(x) = log sum_i exp(x_i) over a box, of two kinds; those are used that are lower in its middle.

Chords. Each exp(x_i) is below its chord (all shifted by one number s), and the logarithm of the sum L of the chords is
below its tangent at L_0:  log L <= log L_0 - 1 + L / L_0. (The decomposition of Wei, Wu, Wu, Chen, Barrett and Farchi,
AISTATS 2023, with tangents in place of their convex bounds.) The best for many arguments that are alike.

Corners. f is convex, so a plane is above it over the box where it is at the corners; and as a function of the set of
arguments that are at their upper ends f is submodular (its mixed second derivatives are negative): what one of them
adds is the less, the more others are there. So these are above it (Nemhauser, Wolsey and Fisher 1978):

    f(l) + sum_i (x_i - l_i) / w_i (f(l + w_i e_i) - f(l))       f(u) - sum_i (u_i - x_i) / w_i (f(u) - f(u - w_i e_i))

Of two arguments they are the upper sides of the convex hull.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.rounding import tiny, unit

ULPS = 24  # with the number of arguments: an exponential, a logarithm of a sum and what lies between
LEAST_SHARE = 0.02  # parameter of the lowest tangent worth trying: the logarithm is steep near to 0
TANGENT, CORNER = 0.5, 1.0  # parameters of the planes that are lowest in the middle of the box, or nearly


@dataclass(frozen=True, eq=False)
class Above:
    """`slopes` `[arguments, *shape]` and `intercept` `[*shape]` of a plane, and their derivatives by its parameter."""

    slopes: Tensor
    intercept: Tensor
    turns: Tensor
    lift: Tensor


class AboveSum:
    """Over the box with these corners `[arguments, *shape]`."""

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        self.lower, self.upper, self.width = lower, upper, upper - lower
        self.reach = torch.maximum(lower.abs(), upper.abs())
        self.top = self._of_upper_corner()
        slopes, intercept = self.top
        height = (slopes * (lower / 2 + upper / 2)).sum(0) + intercept
        by_chords = torch.logsumexp(torch.cat([lower, upper]), 0) - math.log(2)
        self.cornered = height < by_chords  # where neither is a number, the chords say nothing as well

    def start(self) -> Tensor:
        """The parameter of the plane that is lowest in the middle."""
        return torch.where(self.cornered, CORNER, TANGENT).to(self.lower.dtype)

    def plane(self, parameter: Tensor) -> Above:
        """The parameter, from 0 to 1, says where between the sums of the exponentials at the corners L_0 is, or is the
        share of the upper corner's plane."""
        tangent = self._tangent(parameter.clamp(LEAST_SHARE, 1))
        if not bool(self.cornered.any()):
            return tangent
        mixed = self._mixture(parameter.clamp(0, 1))
        return Above(
            torch.where(self.cornered, mixed.slopes, tangent.slopes),
            torch.where(self.cornered, mixed.intercept, tangent.intercept),
            torch.where(self.cornered, mixed.turns, tangent.turns),
            torch.where(self.cornered, mixed.lift, tangent.lift),
        )

    def _tangent(self, share: Tensor) -> Above:
        """With stored slopes a and any L_0 > 0: the sum of exp(x_i - s) / L_0 is at most  a x + sum_i gap_i, the larger
        one of  exp(end - s) / L_0 - a_i end  at both ends, since each term is convex."""
        shift, least = self.upper.amax(0), tiny(self.width.dtype)
        at_lower, at_upper = torch.exp(self.lower - shift), torch.exp(self.upper - shift)
        low, high = at_lower.sum(0), at_upper.sum(0)
        total = low * (1 - share) + high * share
        rise = torch.where(self.width > 0, (at_upper - at_lower) / self.width.clamp(min=least), at_upper)
        slopes = rise / total
        gaps = torch.maximum(at_lower / total - slopes * self.lower, at_upper / total - slopes * self.upper).sum(0)
        intercept = shift + total.log() - 1 + gaps
        # (end - shift) is off by one rounding, which exp multiplies by it: |d| exp(d) is at most 1/e left of 0
        size = 2 + shift.abs() + total.log().abs() + (slopes * self.reach).sum(0) + (1 + high) / total
        slack = size * (2 * (ULPS + len(slopes)) * unit(share.dtype)) + least * len(slopes) / total
        pace = (high - low) / total  # of log L_0
        return Above(slopes, intercept + slack, -slopes * pace, (1 - gaps) * pace)

    def _mixture(self, share: Tensor) -> Above:
        """Of the planes of both corners."""
        (first, low), (second, high) = self._of_lower_corner(), self.top
        turns, lift = second - first, high - low
        size = low.abs() + high.abs() + ((first.abs() + second.abs()) * self.reach).sum(0)
        slack = 8 * unit(share.dtype) * size + tiny(share.dtype) * len(first)
        return Above(torch.addcmul(first, turns, share), torch.addcmul(low + slack, lift, share), turns, lift)

    def _of_lower_corner(self) -> tuple[Tensor, Tensor]:
        """Where x_i rises by w from its lower end, f rises by  w + log(p + (1 - p) exp(-w)),  p its share there."""
        share, least = torch.softmax(self.lower, 0), tiny(self.width.dtype)
        rest = (share + (1 - share) * torch.exp(-self.width) + 2 * least).log()
        doubt = (3 * share_ulps(self.lower) + 2 * self.width + rest.abs()) * (4 * unit(rest.dtype))
        step = self.width + rest + doubt
        slopes = torch.where(self.width > 0, step / self.width.clamp(min=least), 0.0)
        ends = torch.maximum(-slopes * self.lower, step - slopes * self.upper)
        return slopes, self._intercept(self.lower, slopes, step, ends)

    def _of_upper_corner(self) -> tuple[Tensor, Tensor]:
        """Where x_i falls by w from its upper end, f falls by  -log(1 - p + p exp(-w)),  p its share there."""
        share = torch.softmax(self.upper, 0)
        rest = 1 - share + share * torch.exp(-self.width)
        rest = rest + (1 + share * share_ulps(self.upper)) * (8 * unit(rest.dtype))
        step = (-rest.log() * (1 - 8 * unit(rest.dtype))).clamp(min=0)
        slopes = torch.where(self.width > 0, step / self.width.clamp(min=tiny(rest.dtype)), 0.0)
        ends = torch.maximum(-slopes * self.upper, -step - slopes * self.lower)
        return slopes, self._intercept(self.upper, slopes, step, ends)

    def _intercept(self, corner: Tensor, slopes: Tensor, step: Tensor, ends: Tensor) -> Tensor:
        """f at a corner, and what is left of it at the worse end of each argument when the slope is taken off."""
        value, size = torch.logsumexp(corner, 0), (slopes * self.reach + step).sum(0)
        slack = size * (2 * (len(slopes) + 4) * unit(size.dtype)) + tiny(size.dtype) * len(slopes)
        return value + ends.sum(0) + slack + sum_error(corner, value)


def sum_error(x: Tensor, value: Tensor) -> Tensor:
    """Of a computed logsumexp, and of sums of products of its arguments with shares that add up to 1."""
    ulps = 2 * (ULPS + len(x)) * unit(x.dtype)
    return (1 + value.abs() + x.abs().amax(0)) * ulps


def share_ulps(x: Tensor) -> Tensor:
    """Of a softmax: (x - largest) is off by one rounding, which exp multiplies by it."""
    return ULPS + len(x) + (x - x.amax(0)).abs()
