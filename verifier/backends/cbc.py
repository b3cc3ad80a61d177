"""Mixed-integer programs with CBC (github.com/coin-or/Cbc), by files and the program that comes with PuLP.

The files have twelve digits: another reason why its word is no proof."""

from __future__ import annotations

from typing import Any

import numpy as np

from verifier.backends.protocol import MixedProgram, MixedResult, MixedStatus
from verifier.errors import BackendError

# By PuLP's two numbers, of the program and of its solution.
STATUSES = {
    (1, 1): MixedStatus.ENDED,  # optimal
    (1, 2): MixedStatus.STOPPED,  # time was up, with a solution
    (0, 0): MixedStatus.STOPPED,  # and without
    (-1, -1): MixedStatus.INFEASIBLE,
    (-1, 0): MixedStatus.INFEASIBLE,  # found by branching
}
SOLVED = (1, 2)  # the second numbers with which there is a point


class Cbc:
    """A `MixedSolver`. It knows no target, and goes on to the least cost."""

    def __init__(self, program: MixedProgram) -> None:
        try:
            import pulp
        except ImportError as error:
            raise BackendError(f"the solver CBC is not installed ({error}); pip install pulp") from error
        self.pulp: Any = pulp
        if not pulp.PULP_CBC_CMD(msg=False).available():
            raise BackendError("PuLP has no program of CBC for this machine; choose another solver")
        self.problem, self.columns = self._problem(program)

    def minimise(self, target: float, seconds: float) -> MixedResult:
        solver = self.pulp.PULP_CBC_CMD(msg=False, gapRel=0.0, timeLimit=max(0.0, min(seconds, 1e9)))
        try:
            self.problem.solve(solver)
        except (self.pulp.PulpError, OSError) as error:
            raise BackendError(f"CBC failed: {error}") from error
        status = self.problem.status, self.problem.sol_status
        if status not in STATUSES:
            raise BackendError(f"CBC could not solve a mixed-integer program: its status is {status}")
        return MixedResult(STATUSES[status], self._point() if status[1] in SOLVED else None)

    def _point(self) -> np.ndarray:
        """Columns that no row has are not in the files: any value will do."""
        return np.array([c.lowBound if c.varValue is None else c.varValue for c in self.columns], dtype=np.float64)

    def _problem(self, program: MixedProgram) -> tuple[Any, list[Any]]:
        pulp = self.pulp
        kinds = np.where(program.integral, pulp.LpInteger, pulp.LpContinuous).tolist()
        ends = zip(program.lower.tolist(), program.upper.tolist(), kinds, strict=True)
        columns = [pulp.LpVariable(f"v{number}", low, high, kind) for number, (low, high, kind) in enumerate(ends)]
        problem = pulp.LpProblem("subproblem", pulp.LpMinimize)
        problem += self._sum(columns, program.cost)
        for row, low, high in zip(program.matrix, program.low.tolist(), program.high.tolist(), strict=True):
            total = self._sum(columns, row)
            for end, sense in ((low, pulp.LpConstraintGE), (high, pulp.LpConstraintLE)):
                if np.isfinite(end):
                    problem += pulp.LpConstraint(total, sense, rhs=end)
        return problem, columns

    def _sum(self, columns: list[Any], row: np.ndarray) -> Any:
        return self.pulp.LpAffineExpression([(columns[place], float(row[place])) for place in row.nonzero()[0]])
