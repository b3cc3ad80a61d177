"""Choices that a search makes from what it measures while it runs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

GROWTH = 1.1  # a larger batch must be bounded at this many times the rate to be kept
EXPLORED = 0.1  # of the time goes to the alternative that was worse
MEMORY = 0.8  # of earlier batches in the measurements


class BatchSize:
    """From `first` it doubles while larger batches are bounded at a higher rate, up to `most`."""

    def __init__(self, first: int, most: int) -> None:
        self.most, self.size, self.rate, self.settled = most, min(first, most), 0.0, False

    def note(self, count: int, seconds: float) -> None:
        if self.settled or count < self.size:
            return
        rate = count / max(seconds, 1e-9)
        if rate < GROWTH * self.rate:
            self.settled, self.size = True, max(1, self.size // 2)
        elif self.size == self.most:
            self.settled = True
        else:
            self.rate, self.size = rate, min(2 * self.size, self.most)


class Alternative(ABC):
    """Yes or no, whichever is worth more; each is tried, and the worse one again now and then."""

    def __init__(self) -> None:
        self.seconds, self.spent = [0.0, 0.0], [0.0, 0.0]

    def choose(self) -> bool:
        if not self.spent[1]:
            return True
        best = not self.spent[0] or self.worth(True) > self.worth(False)
        return best != self._explores(not best)

    def _explores(self, choice: bool) -> bool:
        """Whether there is enough to spare for the choice that was worse."""
        return self.spent[choice] < EXPLORED * sum(self.spent)

    @abstractmethod
    def worth(self, choice: bool) -> float: ...

    def _took(self, choice: bool, seconds: float) -> None:
        self.spent[choice] += max(seconds, 1e-9)
        self.seconds[choice] = MEMORY * self.seconds[choice] + max(seconds, 1e-9)


class FasterProof(Alternative):
    """What proves more in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.proved = [0.0, 0.0]

    def note(self, choice: bool, proved: float, seconds: float) -> None:
        self._took(choice, seconds)
        self.proved[choice] = MEMORY * self.proved[choice] + proved

    def worth(self, choice: bool) -> float:
        return self.proved[choice] / self.seconds[choice]


class SmallerTree(Alternative):
    """What is expected to end a binary tree sooner: where a split raises a bound by the share r of what it lacks, about
    2^(1/r) subproblems are needed, each at the price measured. A rise counts far more than a price. Subproblems that
    the worse choice leaves open have been split in vain, so that their number is limited, too."""

    def __init__(self) -> None:
        super().__init__()
        self.bounded = [0, 0]
        self.count, self.lacking, self.raised = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]

    def note(self, choice: bool, count: int, lacking: float, raised: float, seconds: float) -> None:
        """A batch of `count` subproblems whose parents' bounds lacked so much in sum, and rose by so much."""
        self._took(choice, seconds)
        self.bounded[choice] += count
        for sums, value in ((self.count, count), (self.lacking, lacking), (self.raised, raised)):
            sums[choice] = MEMORY * sums[choice] + value

    def _explores(self, choice: bool) -> bool:
        return super()._explores(choice) and self.bounded[choice] + 1 <= EXPLORED * sum(self.bounded)

    def worth(self, choice: bool) -> float:
        price = self.seconds[choice] / max(self.count[choice], 1e-9)
        share = self.raised[choice] / max(self.lacking[choice], 1e-30)
        return -math.log(max(price, 1e-12)) - math.log(2) / max(share, 1e-3)


def rise_of(before: Tensor, after: Tensor) -> tuple[float, float]:
    """What the parents' bounds lacked to zero, and how much of it their children gained; sums."""
    lacking = torch.nan_to_num(-before.clamp(max=0), posinf=0.0)
    raised = torch.nan_to_num(torch.minimum(after - before, lacking), nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
    return float(lacking.sum()), float(raised.sum())
