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

PATIENCE = 2.0  # seconds of search before the first hand-over: what is easy ends sooner
LONGEST = 4.0  # seconds for a subproblem: most that are decided take less than one
MOST_PROCESSES = 8
MOST_WAITING = 32  # subproblems for each process
MOST_FAILURES = 2  # of processes: a crash loses one attempt, but what is too large stays so


@dataclass(frozen=True, eq=False)
class Returned:
    """What was settled since the last look: `proved` and `undecided` subproblems, and whether a violation was
    confirmed."""

    proved: Subproblems
    undecided: Subproblems
    found: bool


class Dispatch:
    """Of subproblems that `kept` describes. `close` ends it, and no process is left."""

    def __init__(self, kept: Kept, task: Task) -> None:
        self.kept, self.task = kept, task
        self.first = time.monotonic() + PATIENCE
        self.record, self.failures = FasterProof(), 0
        self.spent, self.asked = 0.0, 0
        self.running: dict[Future[tuple[Answer, float]], Subproblems] = {}
        self.backends: list[Elsewhere] = []
        self.idle: queue.SimpleQueue[Elsewhere] = queue.SimpleQueue()
        self.threads = torch.get_num_threads()

    def __len__(self) -> int:
        return len(self.running)

    def worst(self) -> float:
        """Least bound of those handed over."""
        return min((float(domains.bound.min()) for domains in self.running.values()), default=float("inf"))

    def note(self, closed: int, seconds: float) -> None:
        """The search has fewer open subproblems by `closed` after so long."""
        self.record.note(False, max(closed, 0), seconds)

    def hand_over(self, frontier: Frontier[Subproblems], turn: float) -> None:
        """The worst ones, as many as are likely to last for a `turn` of the search, in seconds; one stays."""
        if not self._serves() or len(frontier) < 2 or not self.record.choose():
            return
        if not self.backends:
            self._start()
        each = self.spent / self.asked if self.asked else turn
        lasting = min(1 + math.ceil(turn / max(each, 1e-3)), MOST_WAITING) * len(self.backends)
        count = min(lasting - len(self.running), len(frontier) - 1)
        if count > 0:
            self._submit(frontier.pop(count))
        self._share_cores()

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
        left = join([none, *self.running.values()])
        self.running.clear()
        for backend in self.backends:
            backend.stop()
        if self.backends:
            self.pool.shutdown(cancel_futures=True)
        self.backends = []
        self._share_cores()
        return left

    def _serves(self) -> bool:
        enough = self.failures < MOST_FAILURES and time.monotonic() >= self.first
        return self.task.exact and enough and self.task.limits.seconds > LONGEST

    def _start(self) -> None:
        self.program, self.problem = self.task.for_solvers()
        count = min(max(1, len(os.sched_getaffinity(0)) // 2), MOST_PROCESSES)
        self.backends = [Elsewhere(self.program, self.problem) for _ in range(count)]
        self.pool = ThreadPoolExecutor(count)
        self.idle = queue.SimpleQueue()
        for backend in self.backends:
            self.idle.put(backend)

    def _submit(self, domains: Subproblems) -> None:
        found = bound_nodes(self.kept.program, domains.box, "interval", self.kept.intervals(domains)).without_forms()
        for place, (which, disjunct) in enumerate(
            zip(domains.problem.tolist(), domains.disjunct.tolist(), strict=True)
        ):
            one = slice(place, place + 1)
            box = as_solved(domains.box.select(one))
            subproblem = Subproblem(self.program, as_solved(found.select(one)), self.problem, box, which, disjunct)
            self.running[self.pool.submit(self._solve, subproblem)] = pick(domains, one)

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
        decided = answer.status is Status.SAT or answer.checked
        self.record.note(True, int(decided), seconds)
        self.spent, self.asked = self.spent + seconds, self.asked + 1
        return answer

    def _share_cores(self) -> None:
        """A core for each process at work."""
        busy = min(len(self.backends), len(self.running))
        torch.set_num_threads(max(1, self.threads - busy))
