"""Choices along an axis: Softmax, ArgMax. No bounds yet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.operator import Op


@dataclass(frozen=True)
class Softmax(Op):
    """exp(x_i) / sum_j exp(x_j) along `axis`; its logarithm where `logarithm`."""

    axis: int
    logarithm: bool = False

    def evaluate(self, *inputs: Tensor) -> Tensor:
        function = torch.log_softmax if self.logarithm else torch.softmax
        return function(inputs[0], self.axis + 1)


@dataclass(frozen=True)
class ArgMax(Op):
    """Position of the largest element along `axis`, which stays with size 1: the first one, or the `last` one."""

    axis: int
    last: bool = False

    def evaluate(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        largest = x == x.amax(self.axis + 1, keepdim=True)
        if self.last:
            position = x.shape[self.axis + 1] - 1 - largest.flip(self.axis + 1).to(torch.uint8).argmax(self.axis + 1)
        else:
            position = largest.to(torch.uint8).argmax(self.axis + 1)
        return position.unsqueeze(self.axis + 1).to(x.dtype)
