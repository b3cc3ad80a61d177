"""Branch and bound over the phases of neurons, and over inputs where no neuron is left to split.

Each subproblem is one disjunct of one input box. The worst are expanded first, so many at once as pays.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from verifier.bounding.dual import Objective
from verifier.bounding.engine import ROW_OPERATIONS
from verifier.bounding.program import Program
from verifier.core.problem import Problem
from verifier.core.stacked import pick
from verifier.search.dispatch import Dispatch
from verifier.search.driver import Driver
from verifier.search.expansion import Expander
from verifier.search.measured import BatchSize, SmallerTree
from verifier.search.subproblems import Kept, Subproblems
from verifier.search.task import Outcome, Task

LEAST_PASSES = 8  # through the network, forwards and backwards, for any subproblem
AWAITED = 0.5  # seconds for an answer where there is nothing else to do
FIRST_FLOATS = 1 << 20  # elements of all nodes in a first batch: fewer are bounded in hardly less time


class NeuronSearch(Driver[Subproblems]):
    """A search from `roots`, which `kept` describes."""

    def __init__(self, kept: Kept, roots: Subproblems, task: Task) -> None:
        size = 2 * kept.program.graph.nodes[0].size * 4 + kept.undecided.count * 16 + 100
        super().__init__(task, roots, max(1, task.limits.memory // 4 // size))
        self.kept = kept
        rows = lambda domains: objective_of(task.problem, kept.program, domains.problem, domains.disjunct)  # noqa: E731
        self.expander = Expander(kept, rows, task.settings, task.limits, task.candidates, task.precise, task.rule)
        self.batch = BatchSize(max(1, FIRST_FLOATS // kept.program.graph.size), self.expander.most)
        self.refreshing = SmallerTree()
        self.leftover: list[Subproblems] = []
        self.dispatch, self.none = Dispatch(kept, task, self.frontier.most), pick(roots, slice(0, 0))
        self.least = LEAST_PASSES * kept.program.operations_to(kept.program.graph.output) / ROW_OPERATIONS

    @property
    def open(self) -> int:
        return len(self.frontier) + len(self.dispatch)

    def run(self, pause: float = float("inf")) -> Outcome:
        try:
            return super().run(pause)
        finally:
            self.frontier.push(self.dispatch.close(self.none))

    def turn(self) -> tuple[Subproblems, Subproblems, Subproblems, bool]:
        idle = not len(self.frontier) and not len(self.dispatch.reserve)
        back = self.dispatch.returned(self.none, AWAITED if idle else 0.0)
        self.left -= float(back.proved.share.sum())
        self.bounded += len(back.proved)
        self.dispatch.exchange(self.frontier, self.least, self.most_open)
        self.frontier.push(back.undecided)
        if back.found or not len(self.frontier):
            return self.none, self.none, self.none, back.found
        return self._expand(self.frontier.pop(self.batch.size))

    def _expand(self, domains: Subproblems) -> tuple[Subproblems, Subproblems, Subproblems, bool]:
        began, refresh = time.monotonic(), self.refreshing.choose()
        expanded = self.expander.expand(domains, refresh, self._levels(len(domains)))
        seconds = time.monotonic() - began
        self.refreshing.note(refresh, len(domains), expanded.lacking, expanded.raised, seconds)
        self.dispatch.note(len(domains) - len(expanded.children) - len(expanded.stuck), seconds)
        if not refresh:  # new bounds take several times as long: only like is compared with like
            self.batch.note(len(domains), seconds)
        self.least = seconds  # the next batch is hardly smaller
        self.leftover.append(expanded.stuck)
        return domains, expanded.children, expanded.stuck, expanded.found

    def undecided(self, boxes: int) -> Tensor:
        """Which of the problem's boxes have subproblems left, a mask `[boxes]`."""
        mask = torch.zeros(boxes, dtype=torch.bool, device=self.kept.program.device)
        for batch in (*self.frontier.batches, *self.leftover):
            mask[batch.problem] = True
        return mask

    def _worst(self) -> float:
        return min(super()._worst(), self.dispatch.worst())

    def _levels(self, count: int) -> int:
        """How many splits at once: several while the frontier is too small to fill a batch."""
        open_now, levels = count + len(self.frontier), 1
        while open_now * 2 ** (levels + 1) <= self.batch.size and levels < self.task.settings.levels:
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
