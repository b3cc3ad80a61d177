"""Mixed-integer programs with Gurobi (gurobi.com). Without a licence it takes 2,000 columns and 2,000 rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from verifier.backends.protocol import MixedProgram, MixedResult, MixedStatus
from verifier.errors import BackendError

# By Gurobi's numbers. "Infeasible or unbounded" (4): no column is unbounded here.
STATUSES = {
    2: MixedStatus.ENDED,  # optimal
    3: MixedStatus.INFEASIBLE,
    4: MixedStatus.INFEASIBLE,
    9: MixedStatus.STOPPED,  # time limit
    11: MixedStatus.STOPPED,  # interrupted
    15: MixedStatus.ENDED,  # the target is reached
}
TOO_LARGE, NO_LICENCE = 10010, 10009
TOLERANCE = 1e-9  # the least that Gurobi takes


class Gurobi:
    """A `MixedSolver`."""

    def __init__(self, program: MixedProgram) -> None:
        try:
            import gurobipy
        except ImportError as error:
            raise BackendError(f"the solver Gurobi is not installed ({error}); pip install gurobipy") from error
        self.failure = gurobipy.GurobiError
        self.size = program.matrix.shape
        try:
            self.model = self._model(program, gurobipy)
        except self.failure as error:
            raise self._translated(error) from error

    def minimise(self, target: float, seconds: float) -> MixedResult:
        try:
            self.model.Params.BestObjStop = target
            self.model.Params.TimeLimit = max(0.0, min(seconds, 1e9))
            self.model.optimize()
            status = int(self.model.Status)
            found = self.model.SolCount > 0
            point = np.array([column.X for column in self.columns]) if found else None
        except self.failure as error:
            raise self._translated(error) from error
        if status not in STATUSES:
            raise BackendError(f"Gurobi could not solve a mixed-integer program: its status is {status}")
        return MixedResult(STATUSES[status], point)

    def _model(self, program: MixedProgram, gurobipy: Any) -> Any:
        environment = gurobipy.Env(empty=True)
        environment.setParam("OutputFlag", 0)
        environment.start()
        model = gurobipy.Model(env=environment)
        for name, value in {"MIPGap": 0.0, "IntFeasTol": TOLERANCE, "FeasibilityTol": TOLERANCE}.items():
            model.setParam(name, value)
        kinds = np.where(program.integral, gurobipy.GRB.BINARY, gurobipy.GRB.CONTINUOUS).tolist()
        columns = zip(program.lower.tolist(), program.upper.tolist(), program.cost.tolist(), kinds, strict=True)
        self.columns = [model.addVar(*column) for column in columns]
        for row, low, high in zip(program.matrix, program.low.tolist(), program.high.tolist(), strict=True):
            places = row.nonzero()[0].tolist()
            total = gurobipy.LinExpr(row[places].tolist(), [self.columns[place] for place in places])
            for end, sense in ((low, gurobipy.GRB.GREATER_EQUAL), (high, gurobipy.GRB.LESS_EQUAL)):
                if np.isfinite(end):
                    model.addLConstr(total, sense, end)
        return model

    def _translated(self, error: Any) -> BackendError:
        rows, columns = self.size
        if error.errno == TOO_LARGE:
            return BackendError(f"{columns} columns and {rows} rows are too many for the licence of Gurobi ({error})")
        if error.errno == NO_LICENCE:
            return BackendError(f"Gurobi has no valid licence ({error})")
        return BackendError(f"Gurobi failed: {error}")
