"""Smooth and other scalar functions that have no bounds yet: they evaluate, so networks with them load and replay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.operator import Op


@dataclass(frozen=True)
class Exp(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].exp()


@dataclass(frozen=True)
class Log(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].log()


@dataclass(frozen=True)
class Sqrt(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sqrt()


@dataclass(frozen=True)
class Reciprocal(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reciprocal()


@dataclass(frozen=True)
class Power(Op):
    """x ** exponent for a constant real exponent."""

    exponent: float

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** self.exponent


@dataclass(frozen=True)
class Sin(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].sin()


@dataclass(frozen=True)
class Cos(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].cos()


@dataclass(frozen=True)
class Tan(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].tan()


@dataclass(frozen=True)
class Atan(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].atan()


@dataclass(frozen=True)
class Erf(Op):
    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0].erf()


@dataclass(frozen=True)
class Softplus(Op):
    """log(1 + exp(x))."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.logaddexp(inputs[0], torch.zeros_like(inputs[0]))


@dataclass(frozen=True)
class Softsign(Op):
    """x / (1 + |x|)."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] / (1 + inputs[0].abs())


@dataclass(frozen=True)
class Elu(Op):
    """outer * x where x > 0, else outer * alpha * (exp(x / width) - 1): Elu, Selu and Celu in one."""

    alpha: float
    outer: float = 1.0
    width: float = 1.0

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        return self.outer * torch.where(x > 0, x, self.alpha * torch.expm1(x.clamp(max=0) / self.width))


@dataclass(frozen=True)
class Gelu(Op):
    """x times the normal distribution function; `approximate` is the formula with tanh."""

    approximate: bool = False

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        if self.approximate:
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


@dataclass(frozen=True)
class Mish(Op):
    """x tanh(softplus(x))."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * torch.tanh(Softplus().evaluate(inputs[0]))


@dataclass(frozen=True)
class ThresholdedRelu(Op):
    """x where x > threshold, else 0."""

    threshold: float

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] > self.threshold, inputs[0], 0.0)


@dataclass(frozen=True)
class Shrink(Op):
    """x + bias below -threshold, x - bias above it, 0 between."""

    threshold: float
    bias: float

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        outside = torch.where(x < -self.threshold, x + self.bias, 0.0)
        return torch.where(x > self.threshold, x - self.bias, outside)
