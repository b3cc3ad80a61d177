"""Straight pieces with jumps at constant thresholds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.rounding import down, up
from verifier.ops.scalar import Point
from verifier.ops.steps import Steps, one_up


class Thresholds(Steps):
    @abstractmethod
    def thresholds(self) -> tuple[float, ...]:
        """Where the jumps are, ascending."""

    def places(self, box: Interval) -> Sequence[Tensor]:
        return [torch.full_like(box.lower, place) for place in self.thresholds()]


@dataclass(frozen=True)
class ThresholdedRelu(Thresholds):
    """x where x > threshold, else 0."""

    threshold: float

    steepness: ClassVar[float] = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] > self.threshold, inputs[0], 0.0)

    def thresholds(self) -> tuple[float, ...]:
        return (self.threshold,)

    def jumps(self, box: Interval) -> Sequence[Point]:
        return (_jump(box, self.threshold, 0.0),)


@dataclass(frozen=True)
class Shrink(Thresholds):
    """x + bias below -threshold, x - bias above it, 0 between; the threshold is not negative."""

    threshold: float
    bias: float

    steepness: ClassVar[float] = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        outside = torch.where(x < -self.threshold, x + self.bias, 0.0)
        return torch.where(x > self.threshold, x - self.bias, outside)

    def at(self, x: Tensor) -> Interval:
        value = self.evaluate(x)
        doubt = abs(self.bias) * 4 * torch.finfo(x.dtype).eps * (value != 0)
        return Interval(down(value) - doubt, up(value) + doubt)

    def thresholds(self) -> tuple[float, ...]:
        return (-self.threshold, self.threshold)

    def jumps(self, box: Interval) -> Sequence[Point]:
        return _jump(box, -self.threshold, self.bias), _jump(box, self.threshold, -self.bias)


@dataclass(frozen=True)
class IsNonzero(Thresholds):
    """1 where x is not 0: a cast to boolean. Between integers anything up to `margin` is 0, so that rounded bounds of
    an exact 0 decide."""

    margin: float = 0.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return (~(inputs[0].abs() <= self.margin)).to(inputs[0].dtype)

    def thresholds(self) -> tuple[float, ...]:
        return (-self.margin, self.margin)

    def jumps(self, box: Interval) -> Sequence[Point]:
        """An end of the box that is at a jump is on its lower side."""
        zero = torch.zeros_like(box.lower)
        left, right = zero - self.margin, zero + self.margin
        return one_up(left, zero, box.lower < left), one_up(right, zero, box.upper > right)


@dataclass(frozen=True)
class Positive(Thresholds):
    """1 where x > 0, else 0; where not `strict`, 1 at 0 too."""

    strict: bool = True

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return (inputs[0] > 0 if self.strict else inputs[0] >= 0).to(inputs[0].dtype)

    def thresholds(self) -> tuple[float, ...]:
        return (0.0,)

    def jumps(self, box: Interval) -> Sequence[Point]:
        """On its own side of the jump, an end of the box is no jump."""
        zero = torch.zeros_like(box.lower)
        inside = box.upper > 0 if self.strict else box.lower < 0
        return (one_up(zero, zero, inside),)


def _jump(box: Interval, place: float, shift: float) -> Point:
    """Between 0 and x + shift, at a place that is stored with a rounding."""
    x = torch.full_like(box.lower, place)
    value = x + shift
    size = (abs(place) + abs(shift)) * 4 * torch.finfo(x.dtype).eps
    return x, Interval(value.clamp(max=0) - size, value.clamp(min=0) + size)
