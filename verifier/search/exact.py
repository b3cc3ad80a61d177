"""Problems handed to an exact backend as a whole: each open disjunct over each input box is asked about once."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from verifier.backends.checked import Checked
from verifier.backends.child import ChildSolver
from verifier.backends.protocol import Budget
from verifier.backends.subproblem import Subproblem, as_solved
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.search.root import NOTHING, Known, Root
from verifier.search.task import Outcome, Task

MOST_UNDECIDED = 128  # neurons: with more of them, linear programs seldom end in time
MOST_PAIRS = 16  # of a box and a disjunct, each of which is a problem of its own


def decide_exactly(task: Task, still: Tensor, known: Known = NOTHING) -> Outcome | None:
    """The outcome if every disjunct that is `still` open `[boxes, D]` was refuted, with checked bounds, or a violation
    confirmed; else None, at once where the problem is too large or not piecewise linear. `known`: of the task's
    boxes."""
    if int(still.sum()) > MOST_PAIRS:
        return None
    root = Root(task, still, known)
    if root.undecided > MOST_UNDECIDED:
        return None
    for number, subproblem in enumerate(subproblems(task, root)):
        if not subproblem.straight:
            return None
        try:
            answer = Checked(ChildSolver).solve(subproblem, budget_of(task, len(root.pairs) - number))
        except BackendError:
            return None
        if answer.status is Status.SAT:
            return Outcome(found=True, open=0, stuck=0, bounded=number, proved=0.0, bound=-float("inf"))
        if answer.status is not Status.UNSAT or not answer.checked:
            return None
    return Outcome(found=False, open=0, stuck=0, bounded=len(still), proved=1.0, bound=float("inf"))


def subproblems(task: Task, root: Root) -> Iterator[Subproblem]:
    """One for each open pair of a box and a disjunct of it; points are confirmed by the task."""
    program, problem = task.for_solvers()
    for which, disjunct in root.pairs.tolist():
        one = slice(which, which + 1)
        found, box = as_solved(root.found.select(one)), as_solved(root.box.select(one))

        def confirm(point: Tensor, which: int = which) -> bool:
            return task.confirms(point, which)

        yield Subproblem(program, found, problem, box, which, disjunct, confirm)


def budget_of(task: Task, left: int) -> Budget:
    """An equal part of the time for each of the subproblems that are left."""
    return Budget(time.monotonic() + task.limits.seconds / left)
