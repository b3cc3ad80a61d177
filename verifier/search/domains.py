"""Subproblems as stacked tensors, and the frontier of those still open."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.stacked import join, pick


@dataclass(frozen=True, eq=False)
class DomainBatch:
    """`box` `[n, *input]`; `problem` `[n]` the input box of the query it is part of; `open` `[n, disjuncts]` which
    disjuncts of that box are not refuted here; `bound` `[n]` best lower bound so far of the worst open disjunct;
    `share` `[n]` part of the whole input set (float64)."""

    box: Interval
    problem: Tensor
    open: Tensor
    bound: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.problem)

    def select(self, index: Tensor | slice) -> DomainBatch:
        return pick(self, index)

    def replace(self, **changes: Tensor | Interval) -> DomainBatch:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class Stacked(Protocol):
    """Subproblems of either search: a stacked value with a bound for each."""

    @property
    def bound(self) -> Tensor: ...

    def __len__(self) -> int: ...


Batch = TypeVar("Batch", bound=Stacked)


class Frontier(Generic[Batch]):
    """The open subproblems. Worst bound first; beyond `most` of them newest first, which keeps their number bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.batches: list[Batch] = []

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def push(self, batch: Batch) -> None:
        if len(batch):
            self.batches.append(batch)

    def pop(self, count: int) -> Batch:
        if len(self) > self._most:
            last = self.batches.pop()
            while self.batches and len(last) < count:
                last = join([self.batches.pop(), last])
            order = torch.arange(len(last) - 1, -1, -1, device=last.bound.device)
        else:
            last = join(self.batches)
            self.batches = []
            order = last.bound.argsort() if len(last) > count else torch.arange(len(last), device=last.bound.device)
        if len(last) > count:
            self.push(pick(last, order[count:]))
        return pick(last, order[:count])

    def worst(self) -> float:
        return min((float(b.bound.min()) for b in self.batches), default=float("inf"))
