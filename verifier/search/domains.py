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
    `share` `[n]` part of the whole input set (float64); `nodes` `[n, *shape]` bounds of some nodes over it."""

    box: Interval
    problem: Tensor
    open: Tensor
    bound: Tensor
    share: Tensor
    nodes: dict[int, Interval]

    def __len__(self) -> int:
        return len(self.problem)

    def select(self, index: Tensor | slice) -> DomainBatch:
        return pick(self, index)

    def replace(self, **changes: object) -> DomainBatch:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class Stacked(Protocol):
    """Subproblems of either search: a stacked value with a bound and a share of the whole for each."""

    @property
    def bound(self) -> Tensor: ...

    @property
    def share(self) -> Tensor: ...

    def __len__(self) -> int: ...


MOST_BATCHES = 32  # in a frontier, before they are joined

Batch = TypeVar("Batch", bound=Stacked)


class Frontier(Generic[Batch]):
    """The open subproblems. Worst bound first; beyond `most` of them newest first, which keeps their number bounded.

    Each batch is kept in order, so that the worst of all are a few leading parts, and nothing else is copied."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.batches: list[Batch] = []

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def push(self, batch: Batch) -> None:
        if len(batch):
            self.batches.append(_worst_first(batch))
        if len(self.batches) > MOST_BATCHES and len(self) <= self.most:
            self.batches = [_worst_first(join(self.batches))]

    def pop(self, count: int) -> Batch:
        if len(self) > self.most:
            return self._newest(count)
        sizes = [len(batch) for batch in self.batches]
        worst = torch.cat([batch.bound for batch in self.batches]).argsort()[:count]
        taken = torch.bincount(_owners(sizes, worst), minlength=len(sizes)).tolist()
        parts = [pick(batch, slice(0, n)) for batch, n in zip(self.batches, taken, strict=True) if n]
        rest = [pick(batch, slice(n, None)) for batch, n in zip(self.batches, taken, strict=True)]
        self.batches = [batch for batch in rest if len(batch)]
        return join(parts)

    def _newest(self, count: int) -> Batch:
        """Of the last batches, those nearest to a proof."""
        last = self.batches.pop()
        while self.batches and len(last) < count:
            last = _worst_first(join([self.batches.pop(), last]))
        cut = max(0, len(last) - count)
        if cut:
            self.batches.append(pick(last, slice(0, cut)))
        return pick(last, slice(cut, None))

    def worst(self) -> float:
        return min((float(batch.bound[0]) for batch in self.batches), default=float("inf"))


def _worst_first(batch: Batch) -> Batch:
    return pick(batch, batch.bound.argsort())


def _owners(sizes: list[int], places: Tensor) -> Tensor:
    """Which of consecutive stretches of these `sizes` each place is in."""
    ends = torch.tensor(sizes, device=places.device).cumsum(0)
    return torch.searchsorted(ends, places, right=True)
