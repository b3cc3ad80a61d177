"""Subproblems of the search over neurons that exact reasoning decides beside it, in processes of its own on the CPU.

A tree of linear programs with cuts takes a thousand times as long for a subproblem as a bound does, and closes many of
which bounds alone would make thousands. Whether that pays is measured: a few are handed over, and more as long as more
are decided in a second than the search closes. What is not decided goes back to it.
"""

from __future__ import annotations

import math
import os
import queue
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch

from verifier.backends.elsewhere import Elsewhere
from verifier.backends.protocol import Answer, Budget
from verifier.backends.subproblem import Subproblem, as_solved
from verifier.bounding.engine import bound_nodes
from verifier.core.stacked import join, pick
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.search.domains import Frontier
from verifier.search.measured import FasterProof
from verifier.search.subproblems import Kept, Subproblems
from verifier.search.task import Task

PATIENCE = 0.6  # of the time, for the search alone: most of what it can decide ends sooner
MOST_TIME = 300.0  # seconds of it that count: who has more is not kept waiting
GROWING = 0.9  # of the most subproblems that were ever open: with fewer the search needs no help
LONGEST = 3.0  # seconds for a subproblem: most that are decided take less than one
WORTH = 0.02  # of the pace of the search: a core less costs it a quarter, and what is handed over is the hardest
EXPLORED = 0.3  # of the time goes to hand-overs even where they do not pay: that costs the search a quarter of it
TRIED = 4  # subproblems, none of which was decided, after which the search gets them all back
BEST = 0.125  # of those that are kept for the processes, which the search takes when it has nothing else to do
MOST_PROCESSES = 8
LIVE_BYTES = 128  # for each undecided neuron and element of a node, while rows over all of them are worked out
MOST_WAITING = 32  # subproblems for each process
MOST_FAILURES = 2  # of processes: a crash loses one attempt, but what is too large stays so


@dataclass(frozen=True, eq=False)
class Returned:
    """What was settled since the last look: `proved` and `undecided` subproblems, and whether a violation was
    confirmed."""

    proved: Subproblems
    undecided: Subproblems
    found: bool


class _Record(FasterProof):
    """Whether to hand over, by what is decided in a second."""

    def _explores(self, choice: bool) -> bool:
        """The search never rests. What could not be decided says little about parts of it, so that some are tried."""
        return choice and self.spent[True] < EXPLORED * sum(self.spent)

    def worth(self, choice: bool) -> float:
        rate = super().worth(choice) if self.seconds[choice] else 0.0
        return rate if choice else rate * WORTH


class Dispatch:
    """Of subproblems that `kept` describes. `close` ends it, and no process is left."""

    def __init__(self, kept: Kept, task: Task, most: int) -> None:
        self.kept, self.task = kept, task
        self.first, self.begun = time.monotonic() + PATIENCE * min(task.limits.seconds, MOST_TIME), False
        self.record, self.failures = _Record(), 0
        self.spent, self.asked, self.decided = 0.0, 0, 0
        self.part = 0  # subproblems that the search took from here and has not settled yet
        self.reserve: Frontier[Subproblems] = Frontier(most)
        self.running: dict[Future[tuple[Answer, float]], Subproblems] = {}
        self.backends: list[Elsewhere] = []
        self.idle: queue.SimpleQueue[Elsewhere] = queue.SimpleQueue()
        self.threads, self.processes = torch.get_num_threads(), _processes(kept, task)

    def __len__(self) -> int:
        return len(self.running) + len(self.reserve)

    def worst(self) -> float:
        """Least bound of those held here."""
        return min([self.reserve.worst(), *(float(domains.bound.min()) for domains in self.running.values())])

    def note(self, closed: int, seconds: float) -> None:
        """The search worked so long, and has fewer open subproblems by `closed`."""
        self.record.note(False, 0 if self.part else max(closed, 0), seconds)

    def exchange(self, frontier: Frontier[Subproblems], turn: float, most_open: int) -> None:
        """Hand over as many as are likely to last for a `turn` of the search, in seconds. `most_open`: so many were
        open at once.

        Unless nothing is decided, all are kept here: the processes take the worst, which are no harder for them, and
        the search a part at a time from the best, or it would split all before the processes have looked at many."""
        self.begun = self.begun or (time.monotonic() >= self.first and len(frontier) >= GROWING * most_open)
        if not self._serves() or (self.asked >= TRIED and not self.decided):
            self._give_back(frontier)
        else:
            self._keep(frontier)
        if self._serves() and self.record.choose():
            self._hand_over(self.reserve if self.part else frontier, turn)
        self._share_cores()

    def _give_back(self, frontier: Frontier[Subproblems]) -> None:
        if len(self.reserve):
            frontier.push(self.reserve.pop(len(self.reserve)))
        self.part = 0

    def _keep(self, frontier: Frontier[Subproblems]) -> None:
        """Leave to the search one part of what is open."""
        if not len(self.reserve) and len(frontier):
            self.reserve.push(frontier.pop(len(frontier)))
            self.part = 0
        if not len(frontier) and len(self.reserve):
            self.record.note(False, self.part, 0.0)
            best, rest = _best(self.reserve.pop(len(self.reserve)))
            frontier.push(best)
            self.reserve.push(rest)
            self.part = len(best)

    def _hand_over(self, source: Frontier[Subproblems], turn: float) -> None:
        """The worst; the search keeps one."""
        if not self.backends:
            self._start()
        each = self.spent / self.asked if self.asked else turn
        lasting = min(1 + math.ceil(turn / max(each, 1e-3)), MOST_WAITING) * len(self.backends)
        count = min(lasting - len(self.running), len(source) - (source is not self.reserve))
        if count > 0:
            self._submit(source.pop(count))

    def returned(self, none: Subproblems, seconds: float = 0.0) -> Returned:
        """Waits up to so many seconds for the next answer. `none`: no subproblems."""
        if seconds > 0:
            wait(self.running, seconds, FIRST_COMPLETED)
        proved, undecided, found = [none], [none], False
        for future in [future for future in self.running if future.done()]:
            domains = self.running.pop(future)
            answer = self._answer(future)
            if answer is not None and answer.status is Status.SAT and answer.point is not None:
                found = found or self.task.confirms(answer.point, int(domains.problem))
            decided = answer is not None and answer.status is Status.UNSAT and answer.checked
            (proved if decided else undecided).append(domains)
        self._share_cores()
        return Returned(join(proved), join(undecided), found)

    def close(self, none: Subproblems) -> Subproblems:
        """Those that were still worked on."""
        left = join([none, *self.running.values(), *self.reserve.batches])
        self.running.clear()
        self.reserve.batches = []
        for backend in self.backends:
            backend.stop()
        if self.backends:
            self.pool.shutdown(cancel_futures=True)
        self.backends = []
        self._share_cores()
        return left

    def _serves(self) -> bool:
        able = self.task.exact and self.processes > 0 and self.failures < MOST_FAILURES
        return able and self.begun and self.task.limits.seconds > LONGEST

    def _start(self) -> None:
        self.program, self.problem = self.task.for_solvers()
        self.backends = [Elsewhere(self.program, self.problem) for _ in range(self.processes)]
        self.pool = ThreadPoolExecutor(self.processes)
        self.idle = queue.SimpleQueue()
        for backend in self.backends:
            self.idle.put(backend)

    def _submit(self, domains: Subproblems) -> None:
        found = bound_nodes(self.kept.program, domains.box, "interval", self.kept.intervals(domains)).without_forms()
        for place in range(len(domains)):
            one = pick(domains, slice(place, place + 1))
            known, box = as_solved(found.select(slice(place, place + 1))), as_solved(one.box)
            which, disjunct = int(one.problem), int(one.disjunct)
            subproblem = Subproblem(self.program, known, self.problem, box, which, disjunct)
            self.running[self.pool.submit(self._solve, subproblem)] = one

    def _solve(self, subproblem: Subproblem) -> tuple[Answer, float]:
        """In a thread for each process: the answer, and the seconds that it took."""
        backend = self.idle.get()
        try:
            reason = backend.supports(subproblem)
            if reason is not None:
                raise BackendError(reason)
            backend.start()
            began = time.monotonic()
            end = min(began + LONGEST, self.task.limits.deadline)
            return backend.solve(subproblem, Budget(end)), time.monotonic() - began
        finally:
            self.idle.put(backend)

    def _answer(self, future: Future[tuple[Answer, float]]) -> Answer | None:
        """None where the process failed."""
        try:
            answer, seconds = future.result()
        except BackendError:
            self.failures += 1
            return None
        decided = int(answer.status is Status.SAT or answer.checked)
        self.record.note(True, decided, seconds)
        self.spent, self.asked, self.decided = self.spent + seconds, self.asked + 1, self.decided + decided
        return answer

    def _share_cores(self) -> None:
        """A core for each process at work."""
        busy = min(len(self.backends), len(self.running))
        torch.set_num_threads(max(1, self.threads - busy))


def _processes(kept: Kept, task: Task) -> int:
    """So many as there are cores to spare, and as half of the memory has room for."""
    largest = max(node.size for node in kept.program.graph.nodes)
    each = kept.undecided.count * largest * LIVE_BYTES
    spare = max(1, len(os.sched_getaffinity(0)) // 2)
    return min(spare, MOST_PROCESSES, task.limits.memory // 2 // max(each, 1))


def _best(domains: Subproblems) -> tuple[Subproblems, Subproblems]:
    """Those nearest to a proof, and the rest."""
    order = domains.bound.argsort(descending=True)
    cut = max(1, int(BEST * len(order)))
    return pick(domains, order[:cut]), pick(domains, order[cut:])
