"""The loop that both searches share: the worst subproblems are expanded, their open children come back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Generic

from verifier.core.events import Progress
from verifier.search.domains import Batch, Frontier
from verifier.search.task import Outcome, Task


class Driver(ABC, Generic[Batch]):
    """A search from `roots`; `most`: subproblems that its frontier may hold, nearly. `run` may be called again to go on
    where it stopped. `left`: share of the input set that is not proved; `stuck`: those that cannot be split further;
    `least`: seconds that a batch takes at least."""

    def __init__(self, task: Task, roots: Batch, most: int) -> None:
        self.task = task
        self.frontier: Frontier[Batch] = Frontier(most)
        self.frontier.push(roots)
        self.started = time.monotonic()
        self.bounded = self.stuck = self.most_open = 0
        self.stuck_bound = float("inf")
        self.left = float(roots.share.sum())
        self.least = 0.0

    @abstractmethod
    def turn(self) -> tuple[Batch, Batch, Batch, bool]:
        """Expand some of the frontier: these, their open children, those that cannot be split, and whether a violation
        was confirmed."""

    @property
    def open(self) -> int:
        """Subproblems that are left, those that cannot be split aside."""
        return len(self.frontier)

    @property
    def late(self) -> bool:
        """No time for another batch."""
        return self.task.limits.seconds <= self.least

    def run(self, pause: float = float("inf")) -> Outcome:
        """Until all is proved, a violation is found, time is up, or `pause` seconds after at least one batch."""
        found, pause_at = False, time.monotonic() + pause
        while not found and self.open and not self.late:
            domains, children, stuck, found = self.turn()
            self._count(domains, children, stuck)
            if time.monotonic() > pause_at:
                break
        return self.outcome(found)

    def outcome(self, found: bool = False) -> Outcome:
        """Where the search stands."""
        return Outcome(found, self.open, self.stuck, self.bounded, self.proved, self._worst())

    @property
    def proved(self) -> float:
        """Share of the input set."""
        return min(max(1 - self.left, 0.0), 1.0) if self.open or self.stuck else 1.0

    def _count(self, domains: Batch, children: Batch, stuck: Batch) -> None:
        self.frontier.push(children)
        self.bounded += len(domains)
        self.stuck += len(stuck)
        self.most_open = max(self.most_open, self.open)
        if len(stuck):
            self.stuck_bound = min(self.stuck_bound, float(stuck.bound.min()))
        self.left += float(children.share.sum()) + float(stuck.share.sum()) - float(domains.share.sum())
        elapsed = time.monotonic() - self.started
        self.task.observer(Progress(elapsed, self.open, self.bounded, self.proved, self._worst()))

    def _worst(self) -> float:
        return min(self.frontier.worst(), self.stuck_bound)
