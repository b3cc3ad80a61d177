"""What a solver that is asked as a whole may do wrong: be missing, unlicensed, killed, lie. None of it is believed."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.test_checked import subproblems
from tests.search.questions import Part, Small, random_parts, small_graph
from tests.soundness.polygons import least_margin
from verifier.backends import cbc, gurobi, highs
from verifier.backends.cbc import Cbc
from verifier.backends.checked import Checked
from verifier.backends.child import Child, ChildMixed, made
from verifier.backends.encoding import encode
from verifier.backends.gurobi import Gurobi
from verifier.backends.highs import HighsMixed
from verifier.backends.milp import HOMES, Mixed, Reproved
from verifier.backends.mixed import mixed_program
from verifier.backends.protocol import Answer, Budget, MixedProgram, MixedResult, MixedStatus
from verifier.backends.smt import Z3
from verifier.backends.subproblem import Subproblem
from verifier.core.graph import Graph
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.ops import Relu

PACKAGES = {"highs": "highspy", "gurobi": "gurobipy", "cbc": "pulp", "z3": "z3"}


def question(miss: float = -0.01, seed: int = 4) -> Subproblem:
    """Its least margin is `-miss`, and its bounds leave neurons open."""
    graph = small_graph("relu", "two layers", seed)
    ((_, _, ((c, d, b),)),) = random_parts(graph, 1, 1, 1, seed)
    lower, upper = np.full(2, -2.0), np.full(2, 2.0)
    least = least_margin(graph, lower, upper, [(c, d, b)])
    return subproblems(graph, [(lower, upper, [(c, d, b + least + miss)])], "interval")[0]


def random_mixed(columns: int, rows: int) -> MixedProgram:
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(rows, columns)) * (generator.random((rows, columns)) < 0.01)
    integral = np.arange(columns) % 2 == 0
    ends = np.full(rows, -np.inf), np.full(rows, 1e3), np.zeros(columns), np.ones(columns)
    return MixedProgram(generator.normal(size=columns), matrix, *ends, integral)


@pytest.mark.parametrize("name", HOMES)
def test_each_solver_in_its_own_process(name: str) -> None:
    proved, violated = (Mixed(name).solve(question(miss), Budget()) for miss in (-0.01, 0.01))
    assert proved.status is Status.UNSAT and not proved.checked and name in proved.reason
    assert violated.status is Status.SAT and violated.point is not None


@pytest.mark.parametrize("name", HOMES)
def test_a_killed_process_is_a_failure_of_the_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(ChildMixed):
        def __init__(self, home: str, program: MixedProgram) -> None:
            super().__init__(home, program)
            send = self.child.send

            def send_and_kill(call: str, *arguments: object, answered: bool = False) -> None:
                send(call, *arguments, answered=answered)
                os.kill(self.child.process.pid, signal.SIGKILL)

            self.child.send = send_and_kill  # type: ignore[method-assign]

    with pytest.raises(BackendError, match="process died"):
        Mixed(name, Killed).solve(question(), Budget())
    assert Mixed(name).solve(question(), Budget()).status is Status.UNSAT


def test_a_process_leads_its_own_group_and_takes_its_folder_along() -> None:
    child = Child(HOMES["highs"].place, random_mixed(4, 4))
    assert os.getpgid(child.process.pid) == child.process.pid
    with open(f"/proc/{child.process.pid}/environ", "rb") as file:
        folder = dict(pair.split(b"=", 1) for pair in file.read().split(b"\0") if pair)[b"TMPDIR"]
    assert os.path.isdir(folder)
    child.end()
    assert child.process.poll() is not None and not os.path.exists(folder)


@pytest.mark.parametrize("name", HOMES)
def test_a_missing_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(BackendError, match="is not installed"):
        Mixed(name, made).solve(question(), Budget())


def test_a_program_too_large_for_the_licence() -> None:
    for shape in ((2001, 10), (10, 2001)):
        with pytest.raises(BackendError, match="too many for the licence"):
            Gurobi(random_mixed(*shape)).minimise(-1.0, 10.0)
    Gurobi(random_mixed(2000, 10)).minimise(-1.0, 10.0)


def test_no_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRB_LICENSE_FILE", "/nowhere/gurobi.lic")
    with pytest.raises(BackendError, match="licence"):
        Mixed("gurobi").solve(question(), Budget())


def test_a_cbc_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import pulp

    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", "/nowhere/cbc")
    with pytest.raises(BackendError, match="no program of CBC"):
        Mixed("cbc", made).solve(question(), Budget())
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", "/bin/false")
    with pytest.raises(BackendError, match="CBC failed"):
        Mixed("cbc", made).solve(question(), Budget())


@pytest.mark.parametrize(("name", "module"), [("highs", highs), ("gurobi", gurobi), ("cbc", cbc)])
def test_a_status_that_is_not_in_the_table(name: str, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIXED_STATUSES" if name == "highs" else "STATUSES", {})
    with pytest.raises(BackendError, match="its status is"):
        Mixed(name, made).solve(question(), Budget())


def test_a_formula_that_z3_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import z3

    monkeypatch.setattr(z3.Solver, "check", lambda self: z3.unknown)
    monkeypatch.setattr(z3.Solver, "reason_unknown", lambda self: "incomplete")
    with pytest.raises(BackendError, match="gave up: incomplete"):
        Mixed("z3", made).solve(question(), Budget())


@pytest.mark.parametrize("make", [HighsMixed, Gurobi, Cbc, Z3])
def test_a_solver_out_of_time(make: Any) -> None:
    """A box of binaries with an odd sum: no relaxation helps."""
    count = 60
    row = np.full((1, count), 2.0)
    ends = np.array([count - 1.0]), np.array([count - 1.0]), np.zeros(count), np.ones(count)
    knapsack = MixedProgram(np.arange(count) / count, row, *ends, np.ones(count, dtype=bool))
    assert make(knapsack).minimise(-1.0, 0.0).status in (MixedStatus.STOPPED, MixedStatus.INFEASIBLE)


@dataclass
class Fake:
    """A solver that says what it is told to."""

    status: MixedStatus
    point: np.ndarray | None = None

    def __call__(self, home: str, program: MixedProgram) -> Fake:
        self.program = program
        return self

    def minimise(self, target: float, seconds: float) -> MixedResult:
        return MixedResult(self.status, self.point)


def test_a_lie_is_found_out() -> None:
    liar = Mixed("highs", Fake(MixedStatus.INFEASIBLE))
    said = liar.solve(question(0.01), Budget())
    assert said.status is Status.UNSAT and not said.checked
    assert Reproved(liar, Checked()).solve(question(0.01), Budget()).status is Status.SAT
    proved = Reproved(liar, Checked()).solve(question(-0.01), Budget())
    assert proved.status is Status.UNSAT and proved.checked


def test_what_is_not_proved_again_is_unknown() -> None:
    @dataclass(frozen=True)
    class Helpless(Checked):
        status: Status = Status.TIMEOUT

        def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
            return Answer(self.status, "no proof was found")

    liar = Mixed("highs", Fake(MixedStatus.INFEASIBLE))
    for status in (Status.TIMEOUT, Status.UNKNOWN, Status.UNSAT):  # an unchecked one
        answer = Reproved(liar, Helpless(status=status)).solve(question(), Budget())
        assert answer.status is Status.UNKNOWN and not answer.checked and "no proof" in answer.reason
    late = Mixed("highs", Fake(MixedStatus.STOPPED))
    assert Reproved(late, Helpless()).solve(question(), Budget()).status is Status.TIMEOUT
    assert Reproved(late, Checked()).solve(question(), Budget()).checked


def test_points_are_looked_at() -> None:
    subproblem = question(-0.01)
    size = len(mixed_program(encode(subproblem)).cost)
    for status, expected in ((MixedStatus.ENDED, Status.UNKNOWN), (MixedStatus.STOPPED, Status.TIMEOUT)):
        assert Mixed("highs", Fake(status, np.zeros(size))).solve(subproblem, Budget()).status is expected
    for point in (np.zeros(size - 1), np.full(size, np.nan)):
        with pytest.raises(BackendError, match="does not fit"):
            Mixed("highs", Fake(MixedStatus.ENDED, point)).solve(subproblem, Budget())


def test_points_that_are_not_confirmed_leave_the_question_open() -> None:
    asked: list[torch.Tensor] = []
    subproblem = replace(question(0.01), confirm=lambda x: bool(asked.append(x)))
    assert Mixed("highs", made).solve(subproblem, Budget()).status is Status.UNKNOWN and asked


def wide(radius: float) -> tuple[Graph, Part]:
    """Two hidden layers of 256 neurons over 784 inputs."""
    b = Small(1, 784, seed=0)
    for size in (256, 256, 10):
        z = b.dense(len(b.nodes) - 1, size)
        if size > 10:
            b.same(Relu(), z)
    middle = np.round(np.random.default_rng(0).random(784) * 16) / 16
    return b.graph(), (middle - radius, middle + radius, [(np.eye(10)[:1], np.zeros((1, 784)), np.zeros(1))])


@pytest.mark.parametrize("radius", [1 / 64, 4.0])
def test_two_layers_of_256_fit_into_the_free_licence(radius: float) -> None:
    """Binaries for undecided neurons only, two columns and three rows for each: even if no neuron is decided."""
    graph, part = wide(radius)
    encoding = encode(subproblems(graph, [part], "interval")[0])
    program, count = mixed_program(encoding), len(encoding.neurons)
    assert (count > 480) if radius > 1 else (100 < count < 400), count
    assert program.matrix.shape == (3 * count + 1, 784 + 2 * count + 1)
    assert max(program.matrix.shape) <= 2000 < 784 + 3 * 512  # the last: pre-activation, value and phase of each
    assert Gurobi(program).minimise(-np.inf, 0.0).status is MixedStatus.STOPPED


def test_coarse_bounds_are_wider_by_little() -> None:
    old = question()
    assert len(old.found.intervals) > 3
    for position, coarse in old.coarse().found.intervals.items():
        exact = old.found.intervals[position]
        for wide, end, sign in ((coarse.lower, exact.lower, -1), (coarse.upper, exact.upper, 1)):
            assert (sign * (wide - end) >= 0).all() and (sign * (wide - end) <= end.abs() / 1024).all()
            digits = wide.frexp().mantissa * 2**12
            assert (digits == digits.round()).all() and (wide.sign() == end.sign()).all()
