"""Solvers of mixed-integer programs and of formulas as backends: all are given one program, and none is believed.

A solver's word that there is no violation is an unchecked UNSAT; `Reproved` has it proved again. A point it finds is
looked at like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from verifier.backends.child import ChildMixed
from verifier.backends.encoding import Encoding
from verifier.backends.mixed import mixed_program, unmixed
from verifier.backends.protocol import Answer, Backend, Budget, MixedProgram, MixedResult, MixedSolver, MixedStatus
from verifier.backends.refine import solve_refining
from verifier.backends.subproblem import Subproblem
from verifier.core.verdict import Status
from verifier.errors import BackendError

TOLERANCE = 1e-6  # of the margin's range: a least margin within it decides nothing, unless arithmetic is exact
FIRST_SHARE = 0.5  # of the time, for the solver whose answer is proved again


@dataclass(frozen=True)
class Home:
    """Where the solver of a name is found, which its process alone imports, and whether its arithmetic is `exact`."""

    place: str
    exact: bool = False


HOMES = {
    "highs": Home("verifier.backends.highs:HighsMixed"),
    "gurobi": Home("verifier.backends.gurobi:Gurobi"),
    "cbc": Home("verifier.backends.cbc:Cbc"),
    "z3": Home("verifier.backends.smt:Z3", exact=True),
}


@dataclass(frozen=True)
class Mixed:
    """A `Backend`: the solver of a name, made in a process of its own, or otherwise by `make`."""

    name: str
    make: Callable[[str, MixedProgram], MixedSolver] = ChildMixed

    def supports(self, subproblem: Subproblem) -> str | None:
        return subproblem.obstacle()

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        whole = subproblem.coarse() if HOMES[self.name].exact else subproblem
        return solve_refining(whole, budget, lambda part, encoding: self._attempt(part, encoding, budget))

    def _attempt(self, subproblem: Subproblem, encoding: Encoding, budget: Budget) -> Answer:
        answer = self._asked(subproblem, encoding, budget, apart=False)
        if answer.status is not Status.UNKNOWN or not encoding.neurons.jumps.any():
            return answer
        # the point may be at a jump, on the wrong side
        beside = self._asked(subproblem, encoding, budget, apart=True)
        return beside if beside.status is Status.SAT else answer

    def _asked(self, subproblem: Subproblem, encoding: Encoding, budget: Budget, apart: bool) -> Answer:
        home, program = HOMES[self.name], mixed_program(encoding, apart)
        margin = int(program.cost.argmax())
        low, high = float(program.lower[margin]), float(program.upper[margin])
        if low > 0:
            return Answer(Status.UNSAT, "the least margin is positive without any search", checked=True, bound=low)
        upper, tolerance = program.upper.copy(), TOLERANCE * (high - low)
        upper[margin] = min(high, 0.0 if home.exact else tolerance)
        result = self.make(home.place, replace(program, upper=upper)).minimise(-tolerance, budget.seconds)
        answer = self._answer(subproblem, program, result)
        if answer.status is not Status.UNKNOWN or result.point is None or apart or not encoding.neurons.within:
            return answer
        return replace(answer, loose=unmixed(encoding, result.point)[None])

    def _answer(self, subproblem: Subproblem, program: MixedProgram, result: MixedResult) -> Answer:
        if result.status is MixedStatus.INFEASIBLE:
            return Answer(Status.UNSAT, f"{self.name} says that there is no violation")
        if result.point is not None:
            if result.point.shape != program.cost.shape or not np.isfinite(result.point).all():
                raise BackendError(f"the point that {self.name} found does not fit the program, or is not finite")
            point = np.clip(result.point, program.lower, program.upper)[: subproblem.box.lower.numel()]
            if subproblem.violates(point):
                return Answer(Status.SAT, f"a point that {self.name} found violates", point=subproblem.shaped(point))
        if result.status is MixedStatus.STOPPED:
            return Answer(Status.TIMEOUT, f"time was up for {self.name}")
        return Answer(Status.UNKNOWN, f"the point that {self.name} found is no violation")


@dataclass(frozen=True)
class Reproved:
    """A `Backend`: what the first one only says, the other proves, or contradicts; and what the first one leaves open,
    the other may decide."""

    first: Backend
    proof: Backend

    def supports(self, subproblem: Subproblem) -> str | None:
        return self.first.supports(subproblem) or self.proof.supports(subproblem)

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        half = Budget(time.monotonic() + FIRST_SHARE * budget.seconds, budget.stop)
        said = self.first.solve(subproblem, half)
        if said.status is Status.SAT or said.checked:
            return said
        proof = self.proof.solve(replace(subproblem, cuts=said.cuts), budget)
        if proof.status is Status.SAT or proof.checked:
            return proof
        reason = f"{said.reason}, which is not proved: {proof.reason}"
        return replace(proof, status=Status.UNKNOWN, reason=reason) if said.status is Status.UNSAT else proof
