"""Dense layers: y = x W^T + b on the last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from verifier.core.regions import Local, Regions, Shape
from verifier.core.rounding import has_negative
from verifier.core.sums import product, product_depth


@dataclass(frozen=True, eq=False)
class Linear(Local):
    """`weight` `[out, in]` applied to the last axis of `[*, in]`; `bias` `[out]` or None."""

    weight: Tensor
    bias: Tensor | None = None

    @property
    def fan_in(self) -> int:  # type: ignore[override]
        return self.weight.shape[1]

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        return self.weight.shape[0]

    @cached_property
    def positive(self) -> bool:
        return not has_negative(self.weight)

    @property
    def depth_in(self) -> int:
        return product_depth(self.fan_in)

    @property
    def depth_out(self) -> int:
        return product_depth(self.fan_out)

    def linear(self, *inputs: Tensor) -> Tensor:
        return product(inputs[0], self.weight.T)

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.nn.functional.linear(inputs[0], self.weight, self.bias)

    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (product(rows, self.weight),)

    def row(self, index: Tensor, shape: Shape) -> Tensor:
        out, lead = len(self.weight), math.prod(shape[:-1])
        rows = self.weight[index % out].unsqueeze(-2)
        if lead > 1:
            place = (index // out)[..., None, None].expand(rows.shape)
            rows = rows.new_zeros(*index.shape, lead, shape[-1]).scatter_(-2, place, rows)
        return rows.reshape(*index.shape, *shape)

    def absolute(self) -> Linear:
        return replace(self, weight=self.weight.abs(), bias=None if self.bias is None else self.bias.abs())

    def offset(self) -> Tensor | None:
        return self.bias

    def kept_whole(self) -> tuple[int, ...]:
        return (-1,)

    def reads(self, region: Regions, shapes: Sequence[Shape]) -> tuple[Regions, ...]:
        return (region.along([-1], 0, shapes[0][-1]),)
