"""Small problems, handed to an exact backend as a whole: a disjunct over an input box with few undecided neurons."""

from __future__ import annotations

import time

import torch

from verifier.backends.child import ChildSolver
from verifier.backends.exact import obstacle, solve
from verifier.backends.protocol import Budget
from verifier.bounding.undecided import undecided_elements
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.search.root import Root
from verifier.search.task import Outcome, Task

MOST_UNDECIDED = 128  # neurons: with more of them, linear programs seldom end in time
MOST_PAIRS = 16  # of a box and a disjunct, each of which is a problem of its own


def decide_exactly(task: Task) -> Outcome | None:
    """The outcome if every open disjunct of every box was refuted, with checked bounds, or a violation confirmed; else
    None, at once where the problem is too large or not piecewise linear."""
    problem, limits = task.problem, task.limits
    if int(problem.real.sum()) > MOST_PAIRS:
        return None
    root = Root(task, problem.real)
    if undecided_elements(task.program, root.found).count > MOST_UNDECIDED:
        return None
    for number, (which, disjunct) in enumerate(root.pairs.tolist()):
        found, box = root.found.select(slice(which, which + 1)), root.box.select(slice(which, which + 1))
        if obstacle(task.precise(), found, problem) is not None:
            return None
        budget = Budget(time.monotonic() + limits.seconds / (len(root.pairs) - number))
        confirm = lambda point: task.candidates(point[None].to(root.box.lower), torch.tensor([which]))  # noqa: B023, E731
        try:
            answer = solve(task.precise(), found, problem, box, which, disjunct, budget, confirm, ChildSolver)
        except BackendError:
            return None
        if answer.status is Status.SAT:
            return Outcome(found=True, open=0, stuck=0, bounded=number, proved=0.0, bound=-float("inf"))
        if answer.status is not Status.UNSAT or not answer.checked:
            return None
    return Outcome(found=False, open=0, stuck=0, bounded=len(problem.real), proved=1.0, bound=float("inf"))
