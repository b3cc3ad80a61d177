"""Rounding to integers. Steps: no bounds yet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.operator import Op


@dataclass(frozen=True)
class Floor(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].floor()


@dataclass(frozen=True)
class Ceil(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].ceil()


@dataclass(frozen=True)
class Round(Op):
    """To the nearest integer, halves to the even one."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].round()


@dataclass(frozen=True)
class Truncate(Op):
    """Towards zero, as a cast to an integer type that holds `minimum` to `maximum`; NaN outside, where a cast wraps."""

    minimum: float
    maximum: float

    def evaluate(self, *inputs: Tensor) -> Tensor:
        value = inputs[0].trunc()
        return torch.where((value >= self.minimum) & (value <= self.maximum), value, torch.nan)
