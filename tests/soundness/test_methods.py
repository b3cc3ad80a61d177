"""Every method of the user gives the verdict that an enumeration of the activation regions gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.soundness.regions import least_margin
from tests.soundness.test_enumeration import SETTINGS, as_network, random_layers, vnnlib
from verifier.backends import relaxation
from verifier.backends.milp import HOMES, Mixed
from verifier.backends.protocol import Answer, Budget
from verifier.backends.subproblem import Subproblem
from verifier.core.verdict import Status, Verdict
from verifier.errors import BackendError, UsageError
from verifier.frontend.vnnlib import parse_property
from verifier.pipeline import verify
from verifier.settings import METHODS, SOLVERS, Settings

WAYS = [(method, solver) for method, solvers in METHODS.items() for solver in solvers or (None,)]


def ask(miss: float, folder: Path, settings: Settings, seed: int = 3) -> Verdict:
    """About a conjunction whose least margin is `-miss`, over a box on which the root's bounds do not do."""
    generator = np.random.default_rng(seed)
    layers = random_layers(generator, (2, 6, 5, 2))
    lower, upper = np.full(2, -2.0), np.full(2, 2.0)
    c, d, b = np.round(generator.normal(size=(2, 2)) * 4) / 4, np.zeros((2, 2)), np.zeros(2)
    b = b + np.round((least_margin(layers, lower, upper, [(c, d, b)]) + miss) * 2**20) / 2**20
    text = vnnlib(lower, upper, [(c, d, b)])
    return verify(as_network(layers, folder), parse_property(text, "p"), settings)


@pytest.mark.parametrize("trust", ["checked", "solver"])
@pytest.mark.parametrize(("method", "solver"), WAYS)
def test_hardly_violated_and_hardly_not(method: str, solver: str | None, trust: str, tmp_path: Path) -> None:
    if solver is None and trust == "solver":
        return
    settings = replace(SETTINGS, method=method, solver=solver, trust=trust, timeout=60.0)
    violated, proved = ask(0.01, tmp_path, settings), ask(-0.01, tmp_path, settings)
    assert violated.status is Status.SAT and violated.checked and violated.witness is not None
    assert proved.status is Status.UNSAT, str(proved)
    assert proved.trusted == (solver if trust == "solver" else None) and proved.checked == (trust == "checked")
    assert trust == "checked" or f"on the word of {solver} alone" in proved.reason


def test_what_is_not_proved_again_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxation, "certain_bound", lambda *arguments, **more: float("nan"))
    verdict = ask(-0.01, tmp_path, replace(SETTINGS, method="milp"))
    assert verdict.status is Status.UNKNOWN and "highs says that there is no violation" in verdict.reason


def test_a_lie_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mixed, "solve", lambda self, subproblem, budget: Answer(Status.UNSAT, "a lie"))
    monkeypatch.setattr("verifier.pipeline.Falsifier.quick", lambda self, settings: False)
    monkeypatch.setattr("verifier.pipeline.Falsifier.thorough", lambda self, settings: False)
    assert ask(0.01, tmp_path, replace(SETTINGS, method="milp")).status is Status.SAT
    assert ask(-0.01, tmp_path, replace(SETTINGS, method="milp")).checked


def test_a_failure_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Mixed, subproblem: Subproblem, budget: Budget) -> Answer:
        raise BackendError("Gurobi has no valid licence")

    monkeypatch.setattr(Mixed, "solve", fail)
    with pytest.raises(BackendError, match="licence"):
        ask(-0.01, tmp_path, replace(SETTINGS, method="milp", solver="gurobi"))


def test_bounds_and_splits_alone_use_no_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a backend was asked")

    monkeypatch.setattr("verifier.search.strategy.decide_exactly", refuse)
    monkeypatch.setattr("verifier.search.strategy.FIRST_SEARCH", 0.0)
    assert ask(-0.01, tmp_path, replace(SETTINGS, method="bab")).status is Status.UNSAT


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"method": "guess"}, "auto, bab, milp, smt"),
        ({"trust": "blind"}, "checked, solver"),
        ({"solver": "abacus"}, "unknown solver"),
        ({"solver": "gurobi"}, "serves the method milp, not auto"),
        ({"method": "milp", "solver": "z3"}, "serves the method smt, not milp"),
        ({"method": "bab", "trust": "solver"}, "never rests on a solver's word"),
    ],
)
def test_wrong_combinations(wrong: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Settings(**wrong)


def test_every_solver_of_a_method_has_a_home() -> None:
    assert set(HOMES) == set(SOLVERS)
