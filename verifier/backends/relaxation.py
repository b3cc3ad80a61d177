"""The linear program of a tree's nodes: one program in a solver's memory, of which nodes bound columns and to which
they add cuts. Our own copy of it is what the solver's multipliers are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from verifier.backends.dual_bound import certain_bound
from verifier.backends.encoding import Encoding
from verifier.backends.protocol import Budget, LinearProgram, LinearSolver, LpResult, LpStatus
from verifier.errors import BackendError

CUTOFF = 1e-6  # of the margin's range: a cost above this is rebuilt as a positive bound, whatever the tolerances


class Relaxation:
    """`program` as it stands, `base_rows` of which are no cuts; so many `programs` were solved. `stopped`: time was up,
    and the last result says nothing."""

    def __init__(self, encoding: Encoding, solver: Callable[[LinearProgram], LinearSolver], budget: Budget) -> None:
        program = encoding.program
        self.neurons, self.budget = encoding.neurons, budget
        self.program = replace(program, lower=program.lower.copy(), upper=program.upper.copy())
        self.solver = solver(program)
        self.base_rows = len(program.low)
        self.cutoff = CUTOFF * float(program.upper[-1] - program.lower[-1])
        self.programs, self.stopped = 0, False

    @property
    def cuts(self) -> int:
        return len(self.program.low) - self.base_rows

    def fix(self, phase: np.ndarray, distance: float = 0.0) -> None:
        """Bounds of the neurons' columns in these phases `[N]`, at a distance from jumps."""
        lower, upper = self.neurons.phase_bounds(phase, distance)
        real = self.neurons.real
        columns, own = self.neurons.columns[real], self.program
        changed = (own.lower[columns] != lower[real]) | (own.upper[columns] != upper[real])
        own.lower[columns], own.upper[columns] = lower[real], upper[real]
        if changed.any():
            which = columns[changed]
            self.solver.bound_columns(which, own.lower[which], own.upper[which])

    def solve(self, fresh: bool = False) -> LpResult:
        self.programs += 1
        self.stopped |= self.budget.spent()
        result = self.solver.minimise(self.cutoff, self.budget.seconds, fresh)
        self.stopped |= result.status is LpStatus.STOPPED
        if result.status is LpStatus.OPTIMAL:
            sizes = result.multipliers.shape, result.point.shape
            if sizes != (self.program.low.shape, self.program.cost.shape):
                raise BackendError("the solver's answer does not have the size of the linear program")
            if not (np.isfinite(result.value) and np.isfinite(result.point).all()):
                raise BackendError("the solver's answer is not finite")
        return result

    def closes(self, result: LpResult) -> bool:
        """Whether the solver claims that there is no violation."""
        return result.status in (LpStatus.BEYOND, LpStatus.INFEASIBLE) or result.value > self.cutoff

    def proved(self, result: LpResult) -> float:
        """The margin that the multipliers prove, whatever the solver claims: infinite where they prove that there is no
        point at all, minus infinity where they prove nothing."""
        if len(result.multipliers) != len(self.program.low):
            return -float("inf")
        costless = result.status is LpStatus.INFEASIBLE
        bound = certain_bound(self.program, result.multipliers, costless)
        if costless:
            return float("inf") if bound > 0 else -float("inf")
        return bound if np.isfinite(bound) else -float("inf")

    def clipped(self, point: np.ndarray) -> np.ndarray:
        """A solver's point, between the bounds of the columns."""
        return np.clip(point, self.program.lower, self.program.upper)

    def append(self, matrix: np.ndarray, high: np.ndarray) -> None:
        """Cuts  matrix v <= high."""
        self.solver.add_rows(matrix, high)
        old = self.program
        self.program = replace(
            old,
            matrix=np.concatenate([old.matrix, matrix]),
            low=np.concatenate([old.low, np.full(len(high), -np.inf)]),
            high=np.concatenate([old.high, high]),
        )

    def drop_slack(self, point: np.ndarray) -> None:
        """Cuts that are far from a point go."""
        old = self.program
        slack = old.high[self.base_rows :] - old.matrix[self.base_rows :] @ point
        gone = (slack > 1e-9).nonzero()[0] + self.base_rows
        if not len(gone):
            return
        self.solver.delete_rows(gone)
        kept = np.setdiff1d(np.arange(len(old.low)), gone)
        self.program = replace(old, matrix=old.matrix[kept], low=old.low[kept], high=old.high[kept])
