"""The constant terms of rows during a backward pass, and what rounding may have spoiled."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.core.rounding import gamma


class Account:
    """Addends `[batch, spec]` are collected and added up in the end: operations on so few numbers take as long as they
    take to start, and there are several in each step of a pass."""

    def __init__(self, bias: Tensor) -> None:
        self.shape, self.addends, self.debts = bias.shape, [bias], [torch.zeros_like(bias)]

    def add(self, value: Tensor, relative: float = 0.0) -> None:
        """To the constant terms. `relative`: bounds the error of `value`, relative to it."""
        self.addends.append(value)
        if relative:
            self.owe(value.abs() * relative)

    def owe(self, amount: Tensor) -> None:
        """An error that is at most so large."""
        self.debts.append(amount)

    def balance(self) -> tuple[Tensor, Tensor]:
        """The constant terms, and the debt: the sum of all errors, those of the sums themselves among them."""
        addends = torch.stack([addend.expand(self.shape) for addend in self.addends])
        debts = torch.stack([amount.expand(self.shape) for amount in self.debts])
        return addends.sum(0), debts.sum(0) + addends.abs().sum(0) * gamma(len(addends), addends.dtype)
