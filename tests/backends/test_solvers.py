"""What a solver may do wrong: be missing, fail, lie, stop. None of it becomes a checked answer."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.backends.test_checked import subproblems
from tests.search.questions import random_parts, small_graph
from tests.soundness.polygons import least_margin
from verifier.backends.checked import Checked
from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import Answer, Budget, LinearProgram, LpResult, LpStatus
from verifier.core.verdict import Status
from verifier.errors import BackendError


def ask(solver: Any, miss: float = -0.01, seed: int = 4) -> Answer:
    """A question whose least margin is `-miss`, with neurons to branch on."""
    graph = small_graph("relu", "two layers", seed)
    ((_, _, ((c, d, b),)),) = random_parts(graph, 1, 1, 1, seed)
    lower, upper = np.full(2, -2.0), np.full(2, 2.0)
    least = least_margin(graph, lower, upper, [(c, d, b)])
    (subproblem,) = subproblems(graph, [(lower, upper, [(c, d, b + least + miss)])], "interval")
    return Checked(solver).solve(subproblem, Budget())


def test_the_questions_take_branching() -> None:
    answer = ask(HighsSolver)
    assert answer.status is Status.UNSAT and answer.checked and answer.nodes > 2
    assert ask(HighsSolver, 0.001).status is Status.SAT


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(BackendError, match="HiGHS is not installed"):
        ask(HighsSolver)


@pytest.mark.parametrize("call", ["run", "passModel", "changeColsBounds", "addRows"])
def test_a_solver_that_raises(call: str) -> None:
    class Raising(HighsSolver):
        def __init__(self, program: LinearProgram) -> None:
            super().__init__(program)
            self.highs = Broken(self.highs, call)
            if call == "passModel":
                import highspy

                self._pass(program, highspy)

    with pytest.raises(BackendError, match="HiGHS failed"):
        ask(Raising)


class Broken:
    """Passes all calls on, but one."""

    def __init__(self, real: object, call: str) -> None:
        self.real, self.call = real, call

    def __getattr__(self, name: str) -> Any:
        if name == self.call:
            raise RuntimeError("out of memory")
        return getattr(self.real, name)


@pytest.mark.parametrize("name", ["kUnknown", "kSolveError", "kMemoryLimit", "kUnbounded"])
def test_an_unusual_status_is_tried_afresh_and_then_an_error(name: str) -> None:
    calls = []

    class Odd(HighsSolver):
        def _run(self, seconds: float) -> str:
            calls.append(super()._run(seconds))
            return name

    with pytest.raises(BackendError, match=name):
        ask(Odd)
    assert len(calls) == 2


def test_a_call_that_is_refused() -> None:
    class Refusing(HighsSolver):
        def bound_columns(self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
            super().bound_columns(columns + 10**6, lower, upper)

    with pytest.raises(BackendError, match="refused"):
        ask(Refusing)


LIES = {
    "infeasible": lambda r: LpResult(LpStatus.INFEASIBLE, r.value, r.point, r.multipliers),
    "beyond": lambda r: LpResult(LpStatus.BEYOND, 1e9, r.point, r.multipliers),
    "optimal": lambda r: LpResult(LpStatus.OPTIMAL, 1e9, r.point, r.multipliers),
    "no multipliers": lambda r: LpResult(LpStatus.INFEASIBLE, r.value, r.point, r.multipliers[:0]),
    "no numbers": lambda r: LpResult(LpStatus.BEYOND, 1e9, r.point * np.nan, r.multipliers * np.nan),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("miss", [-0.05, 0.05])
def test_a_lie_is_never_a_checked_proof_of_what_is_wrong(lie: str, miss: float) -> None:
    class Lying(HighsSolver):
        def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
            return LIES[lie](super().minimise(cutoff, seconds, fresh))

    answer = ask(Lying, miss)
    assert answer.status is Status.UNSAT and not answer.checked


def test_an_answer_that_is_no_number_is_a_failure() -> None:
    class Nan(HighsSolver):
        def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
            return replace(super().minimise(cutoff, seconds, fresh), status=LpStatus.OPTIMAL, value=float("nan"))

    with pytest.raises(BackendError, match="finite"):
        ask(Nan)


@pytest.mark.parametrize("missing", ["point", "multipliers"])
def test_an_answer_of_the_wrong_size_is_a_failure(missing: str) -> None:
    class Short(HighsSolver):
        def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
            result = super().minimise(cutoff, seconds, fresh)
            return replace(result, **{missing: getattr(result, missing)[:-1]})

    with pytest.raises(BackendError, match="size"):
        ask(Short)


def test_noise_on_multipliers_and_points_changes_no_proof() -> None:
    """Poor bounds cost nodes, or are believed and marked; a wrong proof they do not make."""
    for seed in range(3):
        generator = np.random.default_rng(seed)

        class Noisy(HighsSolver):
            def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
                r = super().minimise(cutoff, seconds, fresh)
                noise = 1 + 0.3 * generator.normal(size=len(r.multipliers))  # noqa: B023
                return LpResult(r.status, r.value, r.point, r.multipliers * noise)

        assert ask(Noisy, 0.01).status in (Status.SAT, Status.UNKNOWN)


def test_a_solver_out_of_time() -> None:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(60, 80))
    middle = matrix @ generator.random(80)
    program = LinearProgram(generator.normal(size=80), matrix, middle, middle + 0.1, np.zeros(80), np.ones(80))
    solver = HighsSolver(program)
    assert solver.minimise(float("inf"), 0.0).status is LpStatus.STOPPED
    assert solver.minimise(float("inf"), 60.0).status is LpStatus.OPTIMAL
    assert solver.minimise(float("inf"), 0.0, fresh=True).status is LpStatus.STOPPED


def test_a_search_out_of_time_is_no_answer() -> None:
    calls = []

    class Slow(HighsSolver):
        def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
            calls.append(seconds)
            return super().minimise(cutoff, 0.0 if len(calls) > 3 else seconds, fresh=True)

    answer = ask(Slow)
    assert answer.status is Status.TIMEOUT and not answer.checked and len(calls) == answer.programs == 4


def test_ctrl_c_comes_through() -> None:
    class Interrupted(HighsSolver):
        def __init__(self, program: LinearProgram) -> None:
            super().__init__(program)
            self.highs = SimpleNamespace(
                run=self._interrupt,
                **{name: getattr(self.highs, name) for name in ("setOptionValue", "getRunTime", "changeColsBounds")},
            )

        def _interrupt(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(Interrupted)
