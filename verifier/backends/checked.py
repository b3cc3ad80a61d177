"""The backend that needs no trust: our own tree over the phases of the undecided neurons, every leaf proved again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import Answer, Budget, LinearProgram, LinearSolver
from verifier.backends.refine import solve_refining
from verifier.backends.subproblem import Subproblem
from verifier.backends.tree import Tree
from verifier.errors import BackendError


@dataclass(frozen=True)
class Checked:
    """A `Backend`. `solver` of the linear programs, in this process or elsewhere."""

    solver: Callable[[LinearProgram], LinearSolver] = HighsSolver

    def supports(self, subproblem: Subproblem) -> str | None:
        return subproblem.obstacle()

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        """UNSAT counts only where the answer is `checked`."""
        try:
            return solve_refining(
                subproblem, budget, lambda part, encoding: Tree(part, encoding, self.solver, budget).run()
            )
        except MemoryError as error:
            raise BackendError("exact reasoning ran out of memory") from error
