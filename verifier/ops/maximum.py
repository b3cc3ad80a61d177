"""Maximum and minimum of several arguments of one shape.

With L the largest lower bound, an argument whose upper bound is below L can never win. Below: the argument with the
largest middle. Above: the constant U = max u_i, or L + sum_i s_i (x_i - l_i) over the arguments that can win, with
s_i = (u_i - L)/(u_i - l_i) (each term covers max(x_i, L) - L >= 0, so the sum covers their maximum); whichever is lower
at the middle of the box. Of two arguments these are the planes with the least volume between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.operator import Band, Elementwise, Planes
from verifier.core.rounding import gamma, tiny, up


@dataclass(frozen=True)
class Maximum(Elementwise):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).amax(0)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(_stack(inputs, "lower").amax(0), _stack(inputs, "upper").amax(0))

    def unstable(self, *inputs: Interval) -> Tensor:
        lower, upper = _stack(inputs, "lower"), _stack(inputs, "upper")
        floor, winner = lower.max(0)
        return ((upper > floor) & ~_is(winner, len(inputs))).any(0)

    def relax(self, *inputs: Interval) -> Planes:
        lower, upper = _stack(inputs, "lower"), _stack(inputs, "upper")
        floor, winner = lower.max(0)
        chosen = _is(winner, len(inputs))
        possible = upper > floor
        alone = ~(possible & ~chosen).any(0)  # nothing exceeds the chosen one, so it is the maximum
        middles = torch.nan_to_num(lower / 2 + upper / 2)
        below = _is(torch.where(alone, winner, middles.argmax(0)), len(inputs)).to(lower.dtype)
        slopes = torch.where(possible, (upper - floor) / (upper - lower).clamp(min=tiny(lower.dtype)), 0.0)
        # The stored slopes are off by rounding: argument i needs  s x + t_i >= max(x, L) - L  at both of its ends.
        gaps = torch.maximum(-slopes * lower, upper - floor - slopes * upper)
        terms = torch.where(possible, gaps, 0.0)
        size = (slopes * torch.maximum(lower.abs(), upper.abs()) + upper.abs() + floor.abs()) * possible
        slack = size.sum(0) * gamma(2 * len(inputs) + 6, lower.dtype) + tiny(lower.dtype)
        intercept = floor + terms.sum(0) + slack + floor.abs() * gamma(2, lower.dtype)
        ceiling = upper.amax(0)
        flat = (slopes * (lower / 2 + upper / 2)).sum(0) + intercept > ceiling
        slopes = torch.where(alone, chosen.to(lower.dtype), torch.where(flat, 0.0, slopes))
        intercept = torch.where(alone, 0.0, torch.where(flat, ceiling, intercept))
        return Planes(tuple(below), torch.zeros_like(floor), tuple(slopes), intercept)

    def band(self, *inputs: Interval) -> Band:
        """Around the argument w with the largest lower bound:  0 <= max(x) - x_w <= max(0, max u_i - l_w)."""
        lower, upper = _stack(inputs, "lower"), _stack(inputs, "upper")
        floor, winner = lower.max(0)
        chosen = _is(winner, len(inputs))
        rival = torch.where(chosen, -torch.inf, upper).amax(0)
        high = torch.where(rival > floor, up(rival - floor), 0.0)
        return Band(tuple(chosen.to(lower.dtype)), torch.zeros_like(floor), high)

    def extreme(self) -> int:
        return 1


@dataclass(frozen=True)
class Minimum(Elementwise):
    """min(x_i) = -max(-x_i)."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).amin(0)

    def interval(self, *inputs: Interval) -> Interval:
        return _negate(Maximum().interval(*map(_negate, inputs)))

    def unstable(self, *inputs: Interval) -> Tensor:
        return Maximum().unstable(*map(_negate, inputs))

    def relax(self, *inputs: Interval) -> Planes:
        mirrored = Maximum().relax(*map(_negate, inputs))
        assert mirrored.lower_intercept is not None
        return Planes(
            mirrored.upper_slopes, -mirrored.upper_intercept, mirrored.lower_slopes, -mirrored.lower_intercept
        )

    def band(self, *inputs: Interval) -> Band:
        mirrored = Maximum().band(*map(_negate, inputs))
        return Band(mirrored.slopes, -mirrored.high, -mirrored.low)

    def extreme(self) -> int:
        return -1


def _stack(inputs: tuple[Interval, ...], side: str) -> Tensor:
    return torch.stack([getattr(box, side) for box in inputs])


def _is(winner: Tensor, count: int) -> Tensor:
    """Mask `[count, *winner.shape]` of the argument that `winner` names."""
    return torch.nn.functional.one_hot(winner, count).movedim(-1, 0).bool()


def _negate(box: Interval) -> Interval:
    return Interval(-box.upper, -box.lower)
