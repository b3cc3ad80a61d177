"""`verifier optimise`: what goes where, with which exit code, and what an interrupted run leaves."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.cli.fakes import UNSAT
from tests.cli.test_end_to_end import files as real_files
from verifier.cli import run
from verifier.core.events import Enclosed, StageFinished
from verifier.core.extremum import Extremum

X, Y = np.float32([[0.5, 0.25]]), np.float32([[2.0]])
COUNTS = {"domains": 3, "open": 1234, "stuck": 0}
FOUND = {
    "min": Extremum("min", -0.1, 0.2, X, Y, 0.125, True, "the gap is reached", COUNTS),
    "max": Extremum("max", 0.3, float("inf"), X, Y, 0.375, False, "time is up", COUNTS),
}
POINT = "((X_0 0.5)\n(X_1 0.25)\n(Y_0 2.0))\n"
LOW = f"minimum of Y_0: between -0.1 and 0.2 (gap 0.3), attained at\n{POINT}"
HIGH = f"maximum of Y_0: between 0.3 and inf (gap inf), attained at\n{POINT}"

Pretend = Callable[..., list[Any]]


@pytest.fixture
def optimising(pretend: Callable[[object], object], monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """`optimising()` stands in for the search and returns the list of calls; `interrupted`: the sense during which
    Ctrl-C is pressed."""

    def install(interrupted: str = "") -> list[Any]:
        calls: list[Any] = []

        def optimise(network, query, output, sense, settings, observer, timeout):  # type: ignore[no-untyped-def]
            calls.append((output, sense, settings, timeout))
            observer(StageFinished("search", 0.5))
            observer(Enclosed(1.0, FOUND[sense]))
            if sense == interrupted:
                raise KeyboardInterrupt
            return FOUND[sense]

        pretend(UNSAT)
        module = ModuleType("verifier.optimisation")
        module.__dict__["optimise"] = optimise
        monkeypatch.setitem(sys.modules, "verifier.optimisation", module)
        monkeypatch.delitem(sys.modules, "verifier.report.witness")
        return calls

    return install


@pytest.mark.parametrize(("sense", "text"), [("both", LOW + HIGH), ("min", LOW), ("max", HIGH)])
def test_the_intervals_go_to_stdout_and_the_rest_to_stderr(sense, text, optimising, files, capsys):
    optimising()
    assert run(["optimise", *files, "--output", "Y_0", "--sense", sense]) == 0
    out, err = capsys.readouterr()
    assert out == text
    for found in FOUND.values():
        assert (found.reason in err) == (sense in (found.sense, "both"))
    assert "onnxruntime computes" in err and "search" in err


def test_quiet_says_nothing_else(optimising, files, capsys):
    optimising()
    assert run(["optimise", *files, "--output", "Y_0", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_settings_arrive_and_the_time_is_shared(optimising, files):
    calls = optimising()
    options = ["--gap", "0.5", "--relative-gap", "0.25", "--seed", "9", "--memory", "1GiB", "--timeout", "60"]
    run(["optimise", *files, "--output", "Y_0", "--device", "cpu", *options])
    (output, _, settings, first), (*_, second) = calls
    assert (output, settings.gap.absolute, settings.gap.relative) == ("Y_0", 0.5, 0.25)
    assert (settings.seed, settings.memory, settings.device) == (9, 1 << 30, "cpu")
    assert 0 < first <= 30 and first < second <= 60


@pytest.mark.parametrize(("sense", "text"), [("min", LOW), ("max", LOW + HIGH)])
def test_an_interrupted_run_leaves_what_is_proved(sense, text, optimising, files, tmp_path, capsys):
    optimising(interrupted=sense)
    assert run(["optimise", *files, "--output", "Y_0", "--json", str(tmp_path / "r.json")]) == 130
    out, err = capsys.readouterr()
    assert out == text and err.endswith("verifier: interrupted\n")
    extrema = json.loads((tmp_path / "r.json").read_text())["extrema"]
    assert sorted(extrema) == (["minimum"] if sense == "min" else ["maximum", "minimum"])


def test_the_record(optimising, files, tmp_path):
    optimising()
    run(["optimise", *files, "--output", "Y_0", "--json", str(tmp_path / "r.json"), "--gap", "0.5"])
    record = json.loads((tmp_path / "r.json").read_text())
    low = record["extrema"]["minimum"]
    assert record["output"] == "Y_0" and record["settings"]["gap"] == {"absolute": 0.5, "relative": 1e-4}
    assert (low["lower"], low["upper"], low["value"], low["reached"]) == (-0.1, 0.2, 0.125, True)
    assert low["x"] == [0.5, 0.25] and low["x_shape"] == [1, 2] and low["y"] == [2.0]
    assert record["extrema"]["maximum"]["upper"] == "inf"
    assert {"model", "property", "versions", "machine", "stages", "elapsed"} <= set(record)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "Missing option '--output'"),
        (["--output", "Y_0", "--gap", "-1"], "gaps must be numbers from 0 on"),
        (["--output", "Y_0", "--relative-gap", "nan"], "gaps must be numbers from 0 on"),
        (["--output", "Y_0", "--sense", "least"], "least"),
        (["--output", "Y_0", "--timeout", "0"], "positive number of seconds"),
        (["--output", "Y_0", "--json", "/gone/r.json"], "cannot write"),
    ],
)
def test_wrong_calls_exit_with_2(options, text, optimising, files, capsys):
    calls = optimising()
    assert run(["optimise", *files, *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and text in err and not calls


@pytest.mark.parametrize(
    ("form", "text"), [("Y_0 - Y_9", "has 5 outputs"), ("Y_0 - * Y_1", "column 7"), ("X_0", "column 1")]
)
def test_forms_that_do_not_fit_exit_with_2(form, text, capsys):
    assert run(["optimise", *real_files("acasxu_1_8", "acasxu_prop_4"), "--output", form, "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and text in err and len(err.splitlines()) == 1


def test_a_real_network(capsys):
    """Bounds and samples of the cart pole network: Y_0 - Y_1 over its property's box."""
    model, question = real_files("cartpole", "cartpole_unsafe_11")
    assert run(["optimise", model, question, "--output", "Y_0 - Y_1", "--timeout", "250"]) == 0
    out, err = capsys.readouterr()
    assert err.count("the gap asked for is reached") == 2
    ends = re.findall(r"between (\S+) and (\S+) ", out)
    (low, least), (most, high) = [[float(end) for end in pair] for pair in ends]
    assert low <= least < most <= high and least - low < 1e-4 and high - most < 1e-4
    from verifier import load

    corners = np.float32([[0.0123, 0.0657], [0.9497, 1.0031], [-0.0854, -0.032], [-1.5082, -1.4548]])
    places = np.random.default_rng(0).random((1000, 4), dtype=np.float32)
    y = load(model).run(corners[:, 0] + places * (corners[:, 1] - corners[:, 0])).reshape(-1, 2).astype(float)
    values = y[:, 0] - y[:, 1]
    assert low - 1e-5 <= values.min() and values.max() <= high + 1e-5
