"""Formulas with Z3 (github.com/Z3Prover/z3), in exact arithmetic: every number of the program is read as the rational
it is, and every integral column, which tells phases apart, is a Boolean."""

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
        self.solver = z3.SolverFor("QF_LRA")
        self.reals = {place: z3.Real(f"v{place}") for place in (~program.integral).nonzero()[0].tolist()}
        phases = {place: z3.Bool(f"p{place}") for place in program.integral.nonzero()[0].tolist()}
        self.columns = [
            self.reals[place] if place in self.reals else z3.If(phases[place], z3.RealVal(1), z3.RealVal(0))
            for place in range(len(program.cost))
        ]
        for place, column in self.reals.items():
            self._between(program.lower[place], column, program.upper[place])
        self.cost = self._sum(program.cost)
        for row, low, high in zip(program.matrix, program.low, program.high, strict=True):
            self._between(low, self._sum(row), high)

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
        found = [model.eval(column, model_completion=True) for column in self.columns]
        return np.array([nearest(Fraction(v.numerator_as_long(), v.denominator_as_long())) for v in found])

    def _sum(self, row: np.ndarray) -> Any:
        return self.z3.Sum([self._exact(row[place]) * self.columns[place] for place in row.nonzero()[0]])

    def _between(self, low: float, value: Any, high: float) -> None:
        if np.isfinite(low):
            self.solver.add(value >= self._exact(low))
        if np.isfinite(high):
            self.solver.add(value <= self._exact(high))

    def _exact(self, number: float) -> Any:
        return self.z3.Q(*float(number).as_integer_ratio())
