"""The search that the user asks one backend for: it is given all that the root's bounds leave open."""

from __future__ import annotations

from verifier.backends.protocol import Answer, Backend
from verifier.backends.tighteners import Tighteners
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.search.exact import budget_of, subproblems
from verifier.search.root import Root
from verifier.search.task import Outcome, Task

MOST_FAILURES = 2  # of a backend: a crash loses one attempt, but what is missing or refused stays so
TIGHTENING = 0.2  # of the time: where so much of it is not enough, trees are too dear to gain anything
LEAST_UNDECIDED = 20  # neurons: with fewer, solvers are done before processes that tighten their bounds have started


class WholeSearch:
    """`task` is in double precision and on the CPU. `solver`: the name of the one behind the backend. With `believing`,
    an UNSAT that rests on its word alone counts, and the outcome is marked."""

    def __init__(self, task: Task, backend: Backend, solver: str, believing: bool) -> None:
        self.task, self.backend, self.solver, self.believing = task, backend, solver, believing
        self.open: list[Answer] = []
        self.stuck: list[Answer] = []
        self.failures: list[BackendError] = []
        self.believed = False

    def first(self) -> Outcome:
        """The root's bounds. Raises `BackendError` where a disjunct has no rows to bound."""
        if not self.task.problem.constrained:
            raise BackendError(f"{self.solver} cannot decide this: a disjunct has no rows; use --method auto")
        self.root = Root(self.task, self.task.problem.real)
        return self._outcome(len(self.root.pairs), 0)

    def run(self) -> Outcome:
        """Better bounds of the neurons, then the backend, once for each open disjunct of each box. Raises
        `BackendError` where it cannot be asked, or failed, and no violation was found elsewhere."""
        if self.root.can_tighten():
            self.root.tighten()
        if self.root.few and self.root.undecided > LEAST_UNDECIDED:
            with Tighteners(self.task.program) as tighteners:
                self.root.tighten_by(tighteners.over, TIGHTENING)
        for number, subproblem in enumerate(subproblems(self.task, self.root)):
            reason = self.backend.supports(subproblem)
            if reason is not None:
                raise BackendError(f"{self.solver} cannot decide this: {reason}; use --method auto")
            try:
                answer = self.backend.solve(subproblem, budget_of(self.task, len(self.root.pairs) - number))
            except BackendError as error:
                self.failures.append(error)
                if len(self.failures) == MOST_FAILURES:
                    break
                continue
            if answer.status is Status.SAT:
                return self._outcome(0, 0, found=True)
            self._note(answer)
        if self.failures:
            raise self.failures[0]
        return self._outcome(len(self.open), len(self.stuck))

    def _note(self, answer: Answer) -> None:
        if answer.status is Status.TIMEOUT:
            self.open.append(answer)
        elif answer.status is Status.UNSAT and (answer.checked or self.believing):
            self.believed |= not answer.checked
        else:
            self.stuck.append(answer)

    def _outcome(self, open: int, stuck: int, found: bool = False) -> Outcome:
        total = int(self.task.problem.real.sum())
        left = [*self.stuck, *self.open]
        return Outcome(
            found,
            open,
            stuck,
            bounded=total,
            proved=1 - (open + stuck) / total,
            bound=float(self.root.bound.min()) if open + stuck else float("inf"),
            reason=left[0].reason if left else "",
            trusted=self.solver if self.believed else None,
        )
