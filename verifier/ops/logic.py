"""Comparisons, logic and choice. Booleans travel as 0 and 1. No bounds yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.operator import Op

COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "equal": torch.eq,
    "less": torch.lt,
    "less_or_equal": torch.le,
    "greater": torch.gt,
    "greater_or_equal": torch.ge,
}


@dataclass(frozen=True)
class Compare(Op):
    """1 where `x relation y`, else 0; same shapes. `relation` is a key of `COMPARISONS`."""

    relation: str

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return COMPARISONS[self.relation](inputs[0], inputs[1]).to(inputs[0].dtype)


@dataclass(frozen=True)
class Where(Op):
    """x where the condition (first input) is not 0, else y; same shapes."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] != 0, inputs[1], inputs[2])


@dataclass(frozen=True)
class IsNonzero(Op):
    """1 where x is not 0: a cast to boolean."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return (inputs[0] != 0).to(inputs[0].dtype)
