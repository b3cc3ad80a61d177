"""A solver in a process of its own, and what happens when that is killed, hangs, or is left alone."""

from __future__ import annotations

import gc
import os
import signal

import numpy as np
import pytest

from tests.backends.test_dual_bound import random_program
from tests.backends.test_solvers import ask
from verifier.backends import child
from verifier.backends.child import ChildSolver
from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import LinearProgram, LpResult, LpStatus
from verifier.core.verdict import Status
from verifier.errors import BackendError


def test_it_answers_as_in_this_process() -> None:
    here, there = ask(HighsSolver), ask(ChildSolver)
    assert there.status is Status.UNSAT and there.checked
    assert (there.nodes, there.programs, there.bound) == (here.nodes, here.programs, here.bound)
    assert ask(ChildSolver, 0.001).status is Status.SAT


def test_a_killed_process_is_a_failure_of_the_backend() -> None:
    class Killed(ChildSolver):
        def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
            result = super().minimise(cutoff, seconds, fresh)
            os.kill(self.child.process.pid, signal.SIGKILL)
            return result

    with pytest.raises(BackendError, match="process died"):
        ask(Killed)
    assert ask(ChildSolver).checked


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE", 0.1)
    solver = ChildSolver(random_program(1)[0])
    assert solver.minimise(float("inf"), 60.0).status is LpStatus.OPTIMAL
    os.kill(solver.child.process.pid, signal.SIGSTOP)
    assert solver.minimise(float("inf"), 0.0).status is LpStatus.STOPPED
    assert solver.child.process.poll() is not None
    with pytest.raises(BackendError, match="process died"):
        solver.minimise(float("inf"), 60.0)


def test_what_is_refused_there_is_an_error_here() -> None:
    program = random_program(2)[0]
    solver = ChildSolver(program)
    solver.bound_columns(np.array([10**6]), np.zeros(1), np.ones(1))
    with pytest.raises(BackendError, match="refused"):
        solver.minimise(float("inf"), 60.0)
    broken = LinearProgram(program.cost, program.matrix, program.low, program.high, program.lower[:0], program.upper)
    with pytest.raises(BackendError):
        ChildSolver(broken).minimise(float("inf"), 60.0)


def test_no_process_is_left_behind() -> None:
    solver = ChildSolver(random_program(3)[0])
    process = solver.child.process
    assert process.poll() is None
    del solver
    gc.collect()
    assert process.poll() is not None
