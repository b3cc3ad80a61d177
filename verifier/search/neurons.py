"""Branch and bound over the phases of neurons, and over inputs where no neuron is left to split.

Each subproblem is one disjunct of one input box. The worst are expanded first, so many at once as pays.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.dual import Objective
from verifier.bounding.program import Program
from verifier.core.events import Observer, Progress
from verifier.core.problem import Problem
from verifier.search.domains import Frontier
from verifier.search.expansion import Expander
from verifier.search.measured import BatchSize, SmallerTree
from verifier.search.outcome import Candidates, Limits, Outcome
from verifier.search.subproblems import Kept, Subproblems
from verifier.settings import SearchSettings

FIRST_FLOATS = 1 << 20  # elements of all nodes in a first batch: fewer are bounded in hardly less time


class NeuronSearch:
    """A search from `roots`, which `kept` describes. `run` may be called again to go on where it stopped."""

    def __init__(
        self,
        kept: Kept,
        roots: Subproblems,
        precise: Callable[[], Program],
        problem: Problem,
        settings: SearchSettings,
        limits: Limits,
        candidates: Candidates,
        observer: Observer,
    ) -> None:
        self.kept, self.program = kept, kept.program
        self.settings, self.limits, self.observer = settings, limits, observer
        rows = lambda domains: objective_of(problem, kept.program, domains.problem, domains.disjunct)  # noqa: E731
        self.expander = Expander(kept, rows, settings, limits, candidates, precise)
        self.frontier: Frontier[Subproblems] = Frontier(self._most_subproblems())
        self.frontier.push(roots)
        self.batch = BatchSize(max(16, FIRST_FLOATS // self.program.graph.size), self.expander.most)
        self.refreshing = SmallerTree()
        self.started = time.monotonic()
        self.bounded = self.stuck = 0
        self.left = float(roots.share.sum())
        self.stuck_bound = float("inf")
        self.leftover: list[Subproblems] = []

    def run(self, pause: float = float("inf")) -> Outcome:
        """Until all is proved, a violation is found, time is up, or `pause` seconds after at least one batch."""
        found = False
        pause_at = time.monotonic() + pause
        while not found and len(self.frontier) and time.monotonic() < self.limits.deadline:
            domains = self.frontier.pop(self.batch.size)
            began, refresh = time.monotonic(), self.refreshing.choose()
            expanded = self.expander.expand(domains, refresh, self._levels(len(domains)))
            found, seconds = expanded.found, time.monotonic() - began
            self.refreshing.note(refresh, len(domains), expanded.lacking, expanded.raised, seconds)
            self.batch.note(len(domains), seconds)
            self._count(domains, expanded.children, expanded.stuck)
            if time.monotonic() > pause_at:
                break
        return Outcome(
            found=found,
            open=len(self.frontier),
            stuck=self.stuck,
            bounded=self.bounded,
            proved=self.proved,
            bound=min(self.frontier.worst(), self.stuck_bound),
        )

    @property
    def proved(self) -> float:
        return min(max(1 - self.left, 0.0), 1.0) if len(self.frontier) or self.stuck else 1.0

    def undecided(self, boxes: int) -> Tensor:
        """Which of the problem's boxes have subproblems left, a mask `[boxes]`."""
        mask = torch.zeros(boxes, dtype=torch.bool, device=self.program.device)
        for batch in (*self.frontier.batches, *self.leftover):
            mask[batch.problem] = True
        return mask

    def _count(self, domains: Subproblems, children: Subproblems, left: Subproblems) -> None:
        self.frontier.push(children)
        self.bounded += len(domains)
        self.stuck += len(left)
        self.leftover.append(left)
        self.stuck_bound = min(self.stuck_bound, float(left.bound.min()) if len(left) else float("inf"))
        self.left += float(children.share.sum()) + float(left.share.sum()) - float(domains.share.sum())
        worst = min(self.frontier.worst(), self.stuck_bound)
        elapsed = time.monotonic() - self.started
        self.observer(Progress(elapsed, len(self.frontier), self.bounded, self.proved, worst))

    def _most_subproblems(self) -> int:
        size = 2 * self.program.graph.nodes[0].size * 4 + self.kept.count * 16 + 100
        return max(1, self.limits.memory // 4 // size)

    def _levels(self, count: int) -> int:
        """How many splits at once: several while the frontier is too small to fill a batch."""
        open_now, levels = count + len(self.frontier), 1
        while open_now * 2 ** (levels + 1) <= self.batch.size and levels < self.settings.levels:
            levels += 1
        return levels


def objective_of(problem: Problem, program: Program, which: Tensor, disjunct: Tensor) -> Objective:
    """The rows of disjunct `disjunct` `[n]` of box `which` `[n]`; one with fewer rows than others repeats its first, so
    that subproblems of any of them have as many weights."""
    owner = problem.owner[which]
    mine = owner == disjunct.unsqueeze(1)
    slot = mine.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : problem.most_rows]
    slot = torch.where(mine.gather(1, slot), slot, slot[:, :1])
    table = problem.row[which].gather(1, slot)
    output = program.graph.output
    rows = {output: problem.output_rows[table].reshape(*slot.shape, *program.graph.output_shape)}
    if problem.input_rows is not None:
        inputs = problem.input_rows[table].reshape(*slot.shape, *program.graph.input_shape)
        rows[0] = inputs + rows[0] if output == 0 else inputs
    return Objective(rows, problem.offset[which].gather(1, slot), problem.exact)
