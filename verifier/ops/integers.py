"""Rounding to integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.ops.scalar import Point
from verifier.ops.smooth import only_where
from verifier.ops.steps import Steps, one_up

MOST_STEPS = 32  # that are told apart exactly
LARGEST = 2.0**40  # beyond it, halves are no longer far from rounding


class Stairs(Steps):
    """A step at each integer plus `offset`."""

    offset: ClassVar[float] = 0.0

    def places(self, box: Interval) -> Sequence[Tensor] | None:
        """From the one next to the lower end on."""
        first = (box.lower - self.offset).floor() + self.offset
        most = float((box.upper - first).max()) + 1
        if not most <= MOST_STEPS or not float(box.magnitude().max()) <= LARGEST:
            return None
        return [first + number for number in range(int(most) + 1)]


@dataclass(frozen=True)
class Floor(Stairs):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].floor()

    def jumps(self, box: Interval) -> Sequence[Point]:
        """The lower end is on the upper side of its own jump, if it is at one."""
        low, high = box.lower.floor(), box.upper.floor()
        return one_up(low + 1, low, low + 1 <= box.upper), one_up(high, high - 1, high > box.lower)


@dataclass(frozen=True)
class Ceil(Stairs):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].ceil()

    def jumps(self, box: Interval) -> Sequence[Point]:
        low, high = box.lower.ceil(), box.upper.ceil()
        return one_up(low, low, low < box.upper), one_up(high - 1, high - 1, high - 1 >= box.lower)


@dataclass(frozen=True)
class Round(Stairs):
    """To the nearest integer, halves to the even one."""

    offset: ClassVar[float] = 0.5

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].round()

    def jumps(self, box: Interval) -> Sequence[Point]:
        """An end that is at a jump takes one of its sides; the other one counts if it is in the box."""
        low, high = box.lower.round(), box.upper.round()
        return one_up(low + 0.5, low, low + 0.5 < box.upper), one_up(high - 0.5, high - 1, high - 0.5 > box.lower)


@dataclass(frozen=True)
class Truncate(Stairs):
    """Towards zero, as a cast to an integer type that holds `minimum` to `maximum`; NaN outside, where a cast wraps."""

    minimum: float
    maximum: float

    def evaluate(self, *inputs: Tensor) -> Tensor:
        value = inputs[0].trunc()
        return torch.where((value >= self.minimum) & (value <= self.maximum), value, torch.nan)

    def at(self, x: Tensor) -> Interval:
        value = x.trunc()
        return only_where((value > self.minimum) & (value < self.maximum), Interval(value, value))

    def jumps(self, box: Interval) -> Sequence[Point]:
        """Ceil left of 0, Floor right of it."""
        left = Interval(box.lower.clamp(max=0), box.upper.clamp(max=0))
        right = Interval(box.lower.clamp(min=0), box.upper.clamp(min=0))
        return *Ceil().jumps(left), *Floor().jumps(right)
