"""Which search works on a query, and for how long.

Splitting inputs is the right thing where they are few, splitting neurons where they are many. In between, the boxes
that splitting inputs leaves open are handed to the search over neurons, some at a time, as long as it decides most of
them in a turn; else both have turns, by what they prove in a second.
"""

from __future__ import annotations

import time
from dataclasses import replace

from torch import Tensor

from verifier.bounding.engine import Effort
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.precision import rounding_prevails
from verifier.core.events import ignore
from verifier.core.problem import Problem
from verifier.search.exact import decide_exactly
from verifier.search.inputs import InputSearch
from verifier.search.measured import FasterProof
from verifier.search.neurons import NeuronSearch
from verifier.search.root import Root
from verifier.search.splitting import splittable
from verifier.search.task import Outcome, Task

MANY_INPUTS = 40  # varying inputs beyond which splitting them is hopeless: nearly all would have to be split
FIRST_SEARCH = 0.5  # seconds of search, at least one batch, before the thorough attack: easy proofs need no attack
TURN = 2.0  # seconds: a search over neurons needs tens of batches, of a tenth of a second at least
PROMISING = 0.5  # share proved by the first splits of inputs, above which they are gone on with, however many there are
LAST_ROUNDS = 5  # subproblems that come of any open one, where a search is about to end
SEARCHED = 0.5  # of the time of a pass over the root's bounds: so long a search goes on before the next pass
SPLIT_SHARE = 0.05  # of the time: so long are inputs split before an exact backend is asked
EXACT_SHARE = 0.85  # of the time left, which an exact backend may have for a problem that is small enough for it
FIRST_HANDED = 256  # boxes handed over at first; their number doubles when most are decided in time, else it halves


class Strategy:
    """Decides a task with both searches, and with exact reasoning where it may serve. `run` may be called again to go
    on where it stopped."""

    def __init__(self, task: Task) -> None:
        self.task = task.in_double() if _rounding_prevails(task) else task
        self.inputs = InputSearch(self.task)
        self.handed = FIRST_HANDED
        self.decisive = False  # whether the last hand-over decided most of its boxes

    def ease(self, problem: Problem) -> None:
        """Go on with an easier question: the same rows over the same boxes, with higher offsets."""
        self.task = replace(self.task, problem=problem)
        self.inputs.ease(problem)

    def first(self) -> Outcome:
        """The cheap bounds, and some splitting of inputs."""
        return self.inputs.run(FIRST_SEARCH)

    def run(self) -> Outcome:
        """Until all is proved, a violation is found, or time is up."""
        problem = self.task.problem
        varying = int(splittable(problem.box).sum(1).max())
        if not varying or not self._neurons_serve() or self.inputs.late:
            return self.inputs.run()
        hopeless = varying > MANY_INPUTS and self.inputs.proved < PROMISING
        if hopeless and self._fit(len(problem.disjuncts)):
            return search_neurons(self.task, problem.real, self.inputs.whole)[1]
        return (self._exactly() if self.task.exact else None) or self._in_turns()

    def _exactly(self) -> Outcome | None:
        """A few more splits of inputs; if they do not do, most of the time to an exact backend, where it serves."""
        limits = self.task.limits
        outcome = self.inputs.run(SPLIT_SHARE * limits.seconds)
        if outcome.found or not outcome.open:
            return outcome
        end = time.monotonic() + EXACT_SHARE * limits.seconds
        return decide_exactly(replace(self.task, limits=replace(limits, deadline=end)))

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
            if found or not outcome.open or self.task.limits.seconds <= 0:
                return outcome

    def _hand_over(self) -> bool:
        """Some open boxes to the search over neurons, for a turn; those it does not decide come back. Whether a
        violation was found."""
        while self.handed > 1 and not self._fit(self.handed):
            self.handed //= 2
        task, domains = self.task, self.inputs.frontier.pop(self.handed)
        part = replace(
            task,
            problem=task.problem.select(domains.problem, domains.box),
            limits=replace(task.limits, deadline=min(task.limits.deadline, time.monotonic() + TURN)),
            candidates=lambda points, which: task.candidates(points, domains.problem[which]),
            observer=ignore,
        )
        search, outcome = search_neurons(part, domains.open)
        undecided = search.undecided(len(domains))
        self.inputs.take_back(domains, undecided, outcome.bounded)
        self.decisive = float(undecided.float().mean()) < 0.5
        self.handed = self.handed * 2 if self.decisive else max(1, self.handed // 2)
        return outcome.found

    def _neurons_serve(self) -> bool:
        """There are neurons to split, and every disjunct has rows to bound."""
        return bool(self.task.program.splittable) and self.task.problem.constrained

    def _fit(self, boxes: int) -> bool:
        """Each box needs bounds and planes of every node."""
        floats = boxes * self.task.program.graph.size
        return floats * 32 < self.task.limits.memory // 4


def _rounding_prevails(task: Task) -> bool:
    """By the first box. Rows that were rounded to single precision are not known any better in double."""
    box, effort = task.problem.box.select(slice(0, 1)), Effort(task.limits.memory // 2)
    return task.problem.exact and rounding_prevails(task.program, task.precise, box, effort)


def search_neurons(task: Task, still: Tensor, found: NodeBounds | None = None) -> tuple[NeuronSearch, Outcome]:
    """Searches over neurons for the disjuncts that are `still` open `[boxes, disjuncts]`, each from better bounds of
    the root than the one before, while these pay; the last of them. `found`: bounds of the nodes, where known."""
    root, bounded = Root(task, still, found), int(still.sum())
    if root.rounded and task.problem.exact:
        task = task.in_double()
        root = Root(task, still)
    while True:
        if root.can_tighten():
            root.tighten()
        search = NeuronSearch(*root.subproblems(), task)
        search.bounded = bounded
        began = time.monotonic()
        outcome = search.run(SEARCHED * root.seconds if root.can_tighten() else float("inf"))
        rest = LAST_ROUNDS * outcome.open * (time.monotonic() - began) / max(outcome.bounded - bounded, 1)
        if outcome.open and not outcome.found and rest < root.expected:  # few are left, and a pass begins all over
            outcome = search.run(rest)
        if outcome.found or not outcome.open or search.late:
            return search, outcome
        bounded = outcome.bounded
