"""Gated activations, x times a gate that rises from 0 to 1: Gelu, Silu (Swish), Mish, HardSwish.

The smooth ones are concave, convex, concave; each class says why there are two inflection points. They lie below
max(x, 0), by at most a constant `dip` and by at most |x| exp(-|x|): their gates are below exp(x) left of 0, and
gate(-x) is at most 1 - gate(x). This is what bounds them far out.
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
from verifier.core.rounding import down, unit
from verifier.ops.curves import LIBRARY_ULPS, Curve, around, within
from verifier.ops.scalar import chord_slope, clamp_to

GATE_ULPS = 32  # absolute error of a gate in [0, 1], and of a derivative in [-1.2, 1.2], with a margin


class _Gated(Curve):
    """`dip`: at least the largest distance to max(x, 0)."""

    dip: ClassVar[float]
    bends = (-1, 1, -1)

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor: ...

    def at(self, x: Tensor) -> Interval:
        values = around(self.evaluate(x), LIBRARY_ULPS, x.abs() * (GATE_ULPS * unit(x.dtype)))
        size = x.abs().clamp(max=80)
        depth = (1.01 * size * torch.exp(-size)).clamp(max=self.dip)
        return within(values, down(x.clamp(min=0) - depth), x.clamp(min=0))

    def derivative_at(self, x: Tensor) -> Interval:
        return around(self.derivative(x), LIBRARY_ULPS, 2 * GATE_ULPS * unit(x.dtype))


@dataclass(frozen=True)
class Gelu(_Gated):
    """x times the normal distribution function; `approximate` is the formula with tanh (Hendrycks 2016).

    f'' has the sign of 2 - x^2. Approximate, with c = 0.044715 and k = sqrt(2 / pi), that of
    1 - k x tanh(k (x + c x^3)) (1 + 3 c x^2)^2 / (1 + 6 c x^2), which falls with |x|."""

    approximate: bool = False

    dip = 0.18

    @property
    def knots(self) -> tuple[float, ...]:  # type: ignore[override]
        turn = 1.4185040087908284 if self.approximate else math.sqrt(2)
        return -turn, turn

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        if self.approximate:
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    def derivative(self, x: Tensor) -> Tensor:
        if not self.approximate:
            return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
        x, scale = x.clamp(-20, 20), math.sqrt(2 / math.pi)
        inner, steepness = scale * (x + 0.044715 * x**3), scale * (1 + 3 * 0.044715 * x.square())
        return 0.5 * (1 + torch.tanh(inner)) + 0.5 * x * steepness / torch.cosh(inner.clamp(-40, 40)).square()


@dataclass(frozen=True)
class Silu(_Gated):
    """x / (1 + exp(-x)). f'' has the sign of 2 - x tanh(x / 2), which falls with |x|."""

    knots = (-2.3993572805154476, 2.3993572805154476)
    dip = 0.28

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * torch.sigmoid(inputs[0])

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))


@dataclass(frozen=True)
class Mish(_Gated):
    """x tanh(softplus(x)). With e = exp(x), f'' has the sign of 2 (e + 1)(e^2 + 2e + 2) - x (2e^3 + 3e^2 - 2e - 2);
    that this has two roots is shown by intervals, in the tests."""

    knots = (-2.2563763963607931, 1.4905711794854284)
    dip = 0.31

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * torch.tanh(torch.logaddexp(inputs[0], torch.zeros_like(inputs[0])))

    def derivative(self, x: Tensor) -> Tensor:
        """t + x t' with t = (e^2 + 2e) / (e^2 + 2e + 2), t' = 4 (e^2 + e) / (e^2 + 2e + 2)^2; right of 0 all divided by
        a power of e, so that there is neither overflow nor cancellation."""
        small = torch.exp(-x.abs())
        square, right = small.square(), x > 0
        gate = torch.where(right, 1 + 2 * small, square + 2 * small)
        whole = torch.where(right, 1 + 2 * small + 2 * square, square + 2 * small + 2)
        rise = torch.where(right, square + square * small, square + small) * 4 / whole.square()
        return gate / whole + x * rise


@dataclass(frozen=True)
class HardSwish(Curve):
    """x min(max(x / 6 + 1/2, 0), 1): 0, a parabola, x."""

    knots = (-3.0, 3.0)
    bends = (0, 1, 0)

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * (inputs[0] / 6 + 0.5).clamp(0, 1)

    def derivative(self, x: Tensor) -> Tensor:
        middle = x.clamp(-3, 3) / 3 + 0.5
        return torch.where(x < -3, 0.0, torch.where(x > 3, 1.0, middle))

    def at(self, x: Tensor) -> Interval:
        return around(self.evaluate(x), absolute=x.abs().clamp(max=4) * (4 * unit(x.dtype)))

    def derivative_at(self, x: Tensor) -> Interval:
        return around(self.derivative(x), absolute=8 * unit(x.dtype))

    def slopes(self, box: Interval) -> Sequence[Tensor]:
        """With the lines from both ends to the kink at 3."""
        kink = clamp_to(box, self.knots[1])
        parts = Interval(box.lower, kink), Interval(kink, box.upper)
        chords = [chord_slope(part, self.evaluate(part.lower), self.evaluate(part.upper)) for part in parts]
        return [*super().slopes(box), *chords]

    def where_derivative_is(self, slope: Tensor, part: Interval, bend: Tensor | int) -> Tensor:
        return 3 * slope - 1.5
