"""Formulas with Z3 (github.com/Z3Prover/z3), in exact arithmetic: every number of the program is read as the rational
it is, and every integral column, which tells phases apart, is a Boolean. The fewer digits the numbers have, the faster
it is, by far."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import numpy as np

from verifier.backends.protocol import MixedProgram, MixedResult, MixedStatus
from verifier.core.rationals import nearest
from verifier.errors import BackendError

MOST_MILLISECONDS = 4e9  # that fit into Z3's number of them
STATUSES = {"sat": MixedStatus.ENDED, "unsat": MixedStatus.INFEASIBLE, "unknown": MixedStatus.STOPPED}
STOPPED = ("timeout", "canceled")  # reasons for which Z3 does not know


class Z3:
    """A `MixedSolver`, which does not minimise. Without tolerances, so that its infeasible needs no margin."""

    def __init__(self, program: MixedProgram) -> None:
        try:
            import z3
        except ImportError as error:
            raise BackendError(f"the solver Z3 is not installed ({error}); pip install z3-solver") from error
        self.z3: Any = z3
        self.solver = z3.Solver()
        self.solver.set("arith.solver", 2)  # the older one: on these formulas it is no slower and ends more often
        self.integral = program.integral
        make = [z3.Bool if whole else z3.Real for whole in program.integral]
        self.columns = [kind(f"v{place}") for place, kind in enumerate(make)]
        for place in (~program.integral).nonzero()[0]:
            self._between(program.lower[place], self.columns[place], program.upper[place])
        self.cost = self._sum(program.cost)
        for row, low, high in zip(program.matrix, program.low, program.high, strict=True):
            self._add(row, low, high)

    def minimise(self, target: float, seconds: float) -> MixedResult:
        """Any point, and if there is one, a second look for one with a cost of at most `target`: the first often lies
        on the edge, where rounding decides."""
        end = time.monotonic() + seconds
        try:
            status = self._check(seconds)
            point = self._point() if status is MixedStatus.ENDED else None
            if status is MixedStatus.ENDED:
                self.solver.add(self.cost <= self._exact(target))
                if self._check(end - time.monotonic()) is MixedStatus.ENDED:
                    point = self._point()
            return MixedResult(status, point)
        except self.z3.Z3Exception as error:
            raise BackendError(f"Z3 failed: {error}") from error

    def _check(self, seconds: float) -> MixedStatus:
        self.solver.set("timeout", int(max(1.0, min(1000 * seconds, MOST_MILLISECONDS))))
        status = STATUSES[str(self.solver.check())]
        if status is MixedStatus.STOPPED and self.solver.reason_unknown() not in STOPPED:
            raise BackendError(f"Z3 gave up: {self.solver.reason_unknown()}")
        return status

    def _point(self) -> np.ndarray:
        model = self.solver.model()
        whole = self.integral.tolist()
        found = [model.eval(column, model_completion=True) for column in self.columns]
        return np.array([float(bool(v)) if w else self._nearest(v) for v, w in zip(found, whole, strict=True)])

    def _nearest(self, value: Any) -> float:
        return nearest(Fraction(value.numerator_as_long(), value.denominator_as_long()))

    def _add(self, row: np.ndarray, low: float, high: float) -> None:
        """A row with one Boolean is one row in either case: that is faster than a number that depends on it."""
        whole = (self.integral & (row != 0)).nonzero()[0]
        value = self._sum(np.where(self.integral, 0.0, row))
        if len(whole) != 1:
            chosen = [self.z3.If(self.columns[place], self._exact(row[place]), 0) for place in whole]
            self._between(low, value + self.z3.Sum(chosen), high)
            return
        for place in whole:
            self._between(low, value + self._exact(row[place]), high, self.columns[place])
            self._between(low, value, high, self.z3.Not(self.columns[place]))

    def _sum(self, row: np.ndarray) -> Any:
        return self.z3.Sum([self._exact(row[place]) * self.columns[place] for place in row.nonzero()[0]])

    def _between(self, low: float, value: Any, high: float, where: Any = True) -> None:
        if np.isfinite(low):
            self.solver.add(self.z3.Implies(where, value >= self._exact(low)))
        if np.isfinite(high):
            self.solver.add(self.z3.Implies(where, value <= self._exact(high)))

    def _exact(self, number: float) -> Any:
        return self.z3.Q(*float(number).as_integer_ratio())
