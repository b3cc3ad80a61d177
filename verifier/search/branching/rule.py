"""What a rule of branching is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.search.subproblems import Kept, Subproblems


@dataclass(frozen=True, eq=False)
class Choices:
    """Places to split, best first, `[n, k]` each: the `place` (a site, or behind them an input), its `score`, minus
    infinity where there is none, and the `point` at which to split it."""

    place: Tensor
    score: Tensor
    point: Tensor

    def best(self, most: int) -> Choices:
        """So many of them at most, in order."""
        score, rank = self.score.topk(min(most, self.score.shape[1]), 1)
        return Choices(self.place.gather(1, rank), score, self.point.gather(1, rank))

    def beside(self, other: Choices) -> Choices:
        """Those of both, in no order."""
        pairs = ((self.place, other.place), (self.score, other.score), (self.point, other.point))
        return Choices(*(torch.cat(pair, 1) for pair in pairs))


Rule = Callable[[Kept, Subproblems, Dual, int, float], Choices]
"""Takes subproblems, the dual that holds the planes of their bounds, how many places to choose for each at most, and
the exponent by which an input's width counts."""
