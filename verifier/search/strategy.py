"""Which search works on a query, and for how long.

Splitting inputs is the right thing where they are few, splitting neurons where they are many. In between, the boxes
that splitting inputs leaves open are handed to the search over neurons, some at a time, as long as it decides most of
them in a turn; else both have turns, by what they prove in a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.program import Program
from verifier.core.events import Observer, ignore
from verifier.core.problem import Problem
from verifier.core.stacked import cast
from verifier.search.exact import decide_exactly
from verifier.search.inputs import InputSearch
from verifier.search.measured import FasterProof
from verifier.search.neurons import NeuronSearch
from verifier.search.outcome import Candidates, Limits, Outcome
from verifier.search.root import Root
from verifier.settings import SearchSettings

MANY_INPUTS = 40  # varying inputs beyond which splitting them is hopeless: nearly all would have to be split
TURN = 1.0  # seconds
PROMISING = 0.5  # share proved by the first splits of inputs, above which they are gone on with, however many there are
SEARCHED = 0.5  # of the time of a pass over the root's bounds: so long a search goes on before the next pass
SPLIT_SHARE = 0.05  # of the time: so long are inputs split before an exact backend is asked
EXACT_SHARE = 0.85  # of the time left, which an exact backend may have for a problem that is small enough for it
FIRST_HANDED = 16  # boxes handed over at first; their number doubles when they are decided in time, else it halves


class Strategy:
    """Decides `problem` with both searches. `run` may be called again to go on where it stopped.

    `programs`: the one to bound with, and how to get the slower one in double precision for close calls."""

    def __init__(
        self,
        programs: tuple[Program, Callable[[], Program]],
        problem: Problem,
        settings: SearchSettings,
        limits: Limits,
        candidates: Candidates,
        observer: Observer,
    ) -> None:
        self.programs, self.problem, self.settings, self.limits = programs, problem, settings, limits
        self.candidates, self.observer = candidates, observer
        self.inputs = InputSearch(programs, problem, settings, limits, candidates, observer)
        self.handed = FIRST_HANDED
        self.decisive = False  # whether the last hand-over decided most of its boxes

    def first(self, pause: float) -> Outcome:
        """The cheap bounds, and `pause` seconds of splitting inputs."""
        return self.inputs.run(pause)

    def run(self) -> Outcome:
        """Until all is proved, a violation is found, or time is up."""
        if not self._neurons_serve():
            return self.inputs.run()
        varying = (self.problem.box.upper > self.problem.box.lower).flatten(1).sum(1)
        hopeless = int(varying.max()) > MANY_INPUTS and self.inputs.proved < PROMISING
        if hopeless and self._fit(len(self.problem.disjuncts)):
            return self._neurons(self.problem, self.problem.real, self.limits, self.candidates, self.observer)[1]
        return self._exactly() or self._in_turns()

    def _exactly(self) -> Outcome | None:
        """A few more splits of inputs; if they do not do, most of the time to an exact backend, where it serves."""
        now = time.monotonic()
        outcome = self.inputs.run(SPLIT_SHARE * (self.limits.deadline - now))
        if outcome.found or not outcome.open:
            return outcome
        now = time.monotonic()
        limits = Limits(now + EXACT_SHARE * (self.limits.deadline - now), self.limits.memory)
        return decide_exactly(self.programs, self.problem, self.settings, limits, self.candidates)

    def _in_turns(self) -> Outcome:
        """Hand-overs while they are decisive: they leave fewer boxes open, and splits of inputs leave more. Else the
        one that proves more in a second."""
        handing = FasterProof()
        while True:
            hand = self.decisive or handing.choose()
            before, began = self.inputs.proved, time.monotonic()
            found = self._hand_over() if hand else self.inputs.run(TURN).found
            handing.note(hand, self.inputs.proved - before, time.monotonic() - began)
            outcome = self.inputs.outcome(found)
            if found or not outcome.open or time.monotonic() >= self.limits.deadline:
                return outcome

    def _hand_over(self) -> bool:
        """Some open boxes to the search over neurons, for a turn; those it does not decide come back. Whether a
        violation was found."""
        while self.handed > 1 and not self._fit(self.handed):
            self.handed //= 2
        domains = self.inputs.frontier.pop(self.handed)
        problem = self.problem.select(domains.problem, domains.box)
        limits = Limits(min(self.limits.deadline, time.monotonic() + TURN), self.limits.memory)
        candidates = lambda points, which: self.candidates(points, domains.problem[which])  # noqa: E731
        search, outcome = self._neurons(problem, domains.open, limits, candidates, ignore)
        undecided = search.undecided(len(domains))
        self.inputs.take_back(domains, undecided, outcome.bounded)
        self.decisive = float(undecided.float().mean()) < 0.5
        self.handed = max(1, self.handed // 2) if bool(undecided.any()) else self.handed * 2
        return outcome.found

    def _neurons(
        self, problem: Problem, still: Tensor, limits: Limits, candidates: Candidates, observer: Observer
    ) -> tuple[NeuronSearch, Outcome]:
        """Searches over neurons, each from better bounds of the root than the one before, while these pay; the last."""
        program, precise = self.programs
        root, bounded = Root(program, problem, still, self.settings, limits), int(still.sum())
        if root.rounded and problem.exact:
            root = Root(precise(), cast(problem, torch.float64), still, self.settings, limits)
        narrowed = lambda points, which: candidates(points.to(problem.box.lower.dtype), which)  # noqa: E731
        while True:
            if root.can_tighten():
                root.tighten()
            kept, roots = root.subproblems()
            search = NeuronSearch(kept, roots, precise, root.problem, self.settings, limits, narrowed, observer)
            search.bounded = bounded
            outcome = search.run(SEARCHED * root.seconds if root.can_tighten() else float("inf"))
            if outcome.found or not outcome.open or time.monotonic() >= limits.deadline:
                return search, outcome
            bounded = outcome.bounded

    def _neurons_serve(self) -> bool:
        """There are neurons to split, and every disjunct has a row: without one, any point violates it."""
        pairs = zip(self.problem.disjuncts.tolist(), self.problem.owner.tolist(), strict=True)
        return bool(self.programs[0].splittable) and all(set(range(count)) <= set(owner) for count, owner in pairs)

    def _fit(self, boxes: int) -> bool:
        """Each box needs bounds and planes of every node."""
        floats = boxes * self.programs[0].graph.size
        return floats * 32 < self.limits.memory // 4
