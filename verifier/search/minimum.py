"""The minimum of a linear form of the outputs over boxes of inputs, from below and from above.

That the form is above some value everywhere is a question like any other: its margin is the form minus that value. The
searches are asked to prove what is below the lowest value attained by no less than the gap asked for. Where they find a
lower point instead, they go on with a lower value: what was proved stays proved. In the meantime the worst open bound,
which they keep, is a bound of the minimum (best-first branch and bound, Land and Doig 1960).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from verifier.core.events import Enclosed, Event, Progress
from verifier.core.extremum import Extremum
from verifier.core.problem import NUMPY
from verifier.core.rationals import round_fractions
from verifier.errors import VerifierError
from verifier.search.incumbent import Incumbent, shifted
from verifier.search.strategy import Strategy
from verifier.search.task import Outcome, Task
from verifier.settings import Gap

AIMED = Fraction(99, 100)  # of the gap, so that rounding does not leave a little more than was asked for


class Minimum:
    """Of what `incumbent` is about, over the boxes of the task, whose problem has that one row for each box. `lower`
    only rises; the task's observer is told where things stand whenever a batch is done. The task's own candidates and
    offsets play no part."""

    def __init__(self, task: Task, incumbent: Incumbent, gap: Gap, generator: torch.Generator) -> None:
        self.incumbent, self.gap, self.generator = incumbent, gap, generator
        self.lower = -float("inf")
        self.bounded = self.open = self.stuck = 0
        self.tell = task.observer
        self.offset = self._aim(task.problem.offset.dtype)
        problem = replace(task.problem, offset=torch.full_like(task.problem.offset, self.offset))
        self.strategy = Strategy(replace(task, problem=problem, candidates=self._suspects, observer=self._listen))

    @property
    def reached(self) -> bool:
        """The gap asked for, exactly."""
        low, high = self.lower, self.incumbent.upper
        return low > -float("inf") and Fraction(high) - Fraction(low) <= Fraction(self.gap.at(high))

    def first(self) -> None:
        """The cheap bounds, and some splitting of inputs."""
        self._note(self.strategy.first())

    def run(self) -> None:
        """Until the gap is reached, nothing can be split further, or time is up."""
        found = True
        while found and not self.reached:
            self._ease()
            outcome = self.strategy.run()
            self._note(outcome)
            found = outcome.found

    def extremum(self, reason: str) -> Extremum:
        """Where things stand."""
        known, counts = self.incumbent, {"domains": self.bounded, "open": self.open, "stuck": self.stuck}
        assert known.x is not None and known.y is not None
        if self.lower > known.upper:
            raise VerifierError(f"{self.lower!r} was proved, but {known.upper!r} is attained; please report this")
        return Extremum(
            "min", self.lower, known.upper, known.x, known.y, known.value, self.reached, reason, dict(counts)
        )

    @property
    def _threshold(self) -> Fraction:
        """What the form is proved to be above where a margin is positive."""
        return self.incumbent.constant - Fraction(self.offset)

    def _aim(self, dtype: torch.dtype) -> float:
        """The offset of the row with which a positive margin is as good as the gap asks for."""
        upper = self.incumbent.upper
        value = Fraction(upper) - AIMED * Fraction(self.gap.at(upper))
        return float(round_fractions([self.incumbent.constant - value], NUMPY[dtype], -1)[0])

    def _ease(self) -> None:
        """Aim lower if a lower value is known by now."""
        problem = self.strategy.problem
        offset = self._aim(problem.offset.dtype)
        if offset > self.offset:
            self.offset = offset
            self.strategy.ease(replace(problem, offset=torch.full_like(problem.offset, offset)))

    def _suspects(self, points: Tensor, which: Tensor) -> bool:
        """Whether one of the points `[n, *input]` is so low that the search has to aim lower."""
        if not self.incumbent.offer(points, which) or self.incumbent.upper > self._threshold:
            return False
        self.incumbent.polish(self.generator)
        return True

    def _listen(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.bounded, self.open = event.bounded, event.open
            self._raise(event.bound)
            self.tell(Enclosed(event.elapsed, self.extremum("the search goes on")))
        else:
            self.tell(event)

    def _note(self, outcome: Outcome) -> None:
        self.bounded, self.open, self.stuck = outcome.bounded, outcome.open, outcome.stuck
        self._raise(outcome.bound)

    def _raise(self, margin: float) -> None:
        """A bound of all open margins. What is open no more has a positive one."""
        self.lower = max(self.lower, shifted(min(margin, 0.0), self._threshold, -1))
