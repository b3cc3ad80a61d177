"""Products and quotients of variables. No bounds yet: they evaluate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.operator import Op


@dataclass(frozen=True)
class Multiply(Op):
    """x * y, same shapes."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]


@dataclass(frozen=True)
class Divide(Op):
    """x / y, same shapes; `integer` drops the fraction towards zero."""

    integer: bool = False

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.div(inputs[0], inputs[1], rounding_mode="trunc" if self.integer else None)


@dataclass(frozen=True)
class Remainder(Op):
    """x mod y, same shapes; the sign is that of y, or of x where `fmod`."""

    fmod: bool = False

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.fmod(*inputs) if self.fmod else torch.remainder(*inputs)


@dataclass(frozen=True)
class VariablePower(Op):
    """x ** y, same shapes."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** inputs[1]


@dataclass(frozen=True)
class MatMul(Op):
    """Matrix products over the last two axes, `[*, m, k]` and `[*, k, n]` with equal leading axes."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return inputs[0] @ inputs[1]


@dataclass(frozen=True)
class Product(Op):
    """Product over `axes`, which stay with size 1."""

    axes: tuple[int, ...]

    def evaluate(self, *inputs: Tensor) -> Tensor:
        value = inputs[0]
        for axis in self.axes:
            value = value.prod(axis + 1, keepdim=True)
        return value
