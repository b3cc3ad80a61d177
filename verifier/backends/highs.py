"""Linear programs with HiGHS (highs.dev), whose dual simplex goes on from the last basis, and mixed-integer ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from verifier.backends.protocol import LinearProgram, LpResult, LpStatus, MixedProgram, MixedResult, MixedStatus
from verifier.errors import BackendError

# "Unbounded or infeasible": no column is unbounded here.
STATUSES = {
    "kOptimal": LpStatus.OPTIMAL,
    "kObjectiveBound": LpStatus.BEYOND,
    "kInfeasible": LpStatus.INFEASIBLE,
    "kUnboundedOrInfeasible": LpStatus.INFEASIBLE,
    "kTimeLimit": LpStatus.STOPPED,
    "kInterrupt": LpStatus.STOPPED,
}
MIXED_STATUSES = {
    "kOptimal": MixedStatus.ENDED,
    "kObjectiveTarget": MixedStatus.ENDED,
    "kInfeasible": MixedStatus.INFEASIBLE,
    "kUnboundedOrInfeasible": MixedStatus.INFEASIBLE,
    "kTimeLimit": MixedStatus.STOPPED,
    "kInterrupt": MixedStatus.STOPPED,
}


class _Highs:
    """HiGHS with a program in it, and with its failures as `BackendError`."""

    def __init__(self, program: LinearProgram, options: dict[str, object]) -> None:
        try:
            import highspy
        except ImportError as error:
            raise BackendError(f"the solver HiGHS is not installed ({error}); pip install highspy") from error
        self.highs: Any = highspy.Highs()
        self.inf = highspy.kHighsInf
        for name, value in {"output_flag": False, "threads": 1, **options}.items():
            self._call("setOptionValue", name, value)
        self._pass(program, highspy)

    def _pass(self, program: LinearProgram, highspy: Any) -> None:
        model = highspy.HighsLp()
        model.num_row_, model.num_col_ = program.matrix.shape
        model.col_cost_, model.col_lower_, model.col_upper_ = program.cost, program.lower, program.upper
        model.row_lower_, model.row_upper_ = self._finite(program.low), self._finite(program.high)
        starts, index, value = _sparse(program.matrix)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = starts, index, value
        if isinstance(program, MixedProgram):
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            model.integrality_ = [kinds[whole] for whole in program.integral.astype(int)]
        self._call("passModel", model)

    def _run(self, seconds: float) -> str:
        """The status's name. A warning is no failure: the status then says what happened."""
        # HiGHS counts the seconds of all runs together
        self._call("setOptionValue", "time_limit", float(self.highs.getRunTime()) + max(0.0, min(seconds, 1e9)))
        try:
            self.highs.run()
            return str(self.highs.getModelStatus().name)
        except Exception as error:
            raise BackendError(f"HiGHS failed: {error}") from error

    def _call(self, name: str, *arguments: object) -> None:
        try:
            status = getattr(self.highs, name)(*arguments)
        except Exception as error:
            raise BackendError(f"HiGHS failed in {name}: {error}") from error
        if status is not None and status.name == "kError":
            raise BackendError(f"HiGHS refused {name}")

    def _finite(self, ends: np.ndarray) -> np.ndarray:
        return np.clip(ends, -self.inf, self.inf)


class HighsMixed(_Highs):
    """A `MixedSolver`. Its absolute gap is left as it is: a cost in the range that matters is far larger."""

    def __init__(self, program: MixedProgram) -> None:
        super().__init__(program, {"mip_rel_gap": 0.0, "mip_feasibility_tolerance": 1e-9})

    def minimise(self, target: float, seconds: float) -> MixedResult:
        self._call("setOptionValue", "objective_target", target)
        status = self._run(seconds)
        if status not in MIXED_STATUSES:
            raise BackendError(f"HiGHS could not solve a mixed-integer program: its status is {status}")
        solution = self.highs.getSolution()
        found = self.highs.getInfo().primal_solution_status > 0 and MIXED_STATUSES[status] is not MixedStatus.INFEASIBLE
        return MixedResult(MIXED_STATUSES[status], np.array(solution.col_value, dtype=np.float64) if found else None)


class HighsSolver(_Highs):
    """A `LinearSolver`. Presolve is off, since it would forget the basis; scaling too, since nearly all columns
    run from 0 to 1; one thread, since the programs are small."""

    def __init__(self, program: LinearProgram) -> None:
        super().__init__(program, {"presolve": "off", "simplex_scale_strategy": 0, "solver": "simplex"})

    def bound_columns(self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        self._call("changeColsBounds", len(columns), columns.astype(np.int32), lower, upper)

    def add_rows(self, matrix: np.ndarray, high: np.ndarray) -> None:
        starts, index, value = _sparse(matrix)
        below = np.full(len(high), -self.inf)
        self._call("addRows", len(high), below, self._finite(high), len(index), starts[:-1], index, value)

    def delete_rows(self, rows: np.ndarray) -> None:
        self._call("deleteRows", len(rows), rows.astype(np.int32))

    def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
        if fresh:
            self._call("clearSolver")
        self._call("setOptionValue", "objective_bound", cutoff)
        status = self._run(seconds)
        if status not in STATUSES and not fresh:
            return self.minimise(cutoff, seconds, fresh=True)
        if status not in STATUSES:
            raise BackendError(f"HiGHS could not solve a linear program: its status is {status}")
        return self._result(STATUSES[status])

    def _result(self, status: LpStatus) -> LpResult:
        solution = self.highs.getSolution()
        multipliers = np.array(solution.row_dual, dtype=np.float64)
        if status is LpStatus.INFEASIBLE:
            found = self.highs.getDualRay()
            if found[1]:
                multipliers = np.array(found[2], dtype=np.float64)
        if not len(multipliers):
            multipliers = np.zeros(self.highs.getNumRow())
        point = np.array(solution.col_value, dtype=np.float64)
        return LpResult(status, float(self.highs.getInfo().objective_function_value), point, multipliers)


def _sparse(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row starts, column indices and values of the numbers that are not 0."""
    row, column = matrix.nonzero()
    starts = np.searchsorted(row, np.arange(len(matrix) + 1)).astype(np.int32)
    return starts, column.astype(np.int32), matrix[row, column]
