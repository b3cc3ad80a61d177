"""`verifier verify`: what goes where, and with which exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.fakes import OUTCOMES, SAT, UNKNOWN, UNSAT
from verifier.cli import run
from verifier.core.verdict import Verdict
from verifier.report.record import file_digest


@pytest.mark.parametrize("word", ["sat", "unsat", "unknown"])
def test_the_first_line_of_stdout_is_the_verdict(word, pretend, files, capsys):
    pretend(OUTCOMES[word])
    assert run(["verify", *files]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == word
    assert OUTCOMES[word].reason in err and OUTCOMES[word].reason not in out


def test_the_witness_follows_and_nothing_else(pretend, files, capsys):
    pretend(SAT)
    run(["verify", *files])
    assert capsys.readouterr().out == "sat\n((X_0 0.5)\n(X_1 0.25)\n(Y_0 inf))\n"


def test_stderr_tells_the_rest(pretend, files, capsys):
    pretend(UNKNOWN)
    run(["verify", *files])
    err = capsys.readouterr().err
    assert "proved 75.000 % of the input set, worst open bound -0.5" in err
    assert "attack 0.50 s" in err and "load" in err
    assert "warning: float16 was widened" in err
    assert "WARNING: bounds are not sound" in err


def test_quiet_keeps_loud_warnings_only(pretend, files, capsys):
    pretend(SAT)
    run(["verify", *files, "--quiet"])
    out, err = capsys.readouterr()
    assert out.startswith("sat\n") and err == "WARNING: bounds are not sound\n"


@pytest.mark.parametrize(("verdict", "code"), [(SAT, 10), (UNSAT, 20), (UNKNOWN, 0)])
def test_sat_exit_codes(verdict: Verdict, code: int, pretend, files):
    pretend(verdict)
    assert run(["verify", *files, "--sat-exit-codes"]) == code


def test_the_form_of_vnnlib_2(pretend, files, capsys):
    calls = pretend(UNSAT)
    model, question = files
    assert run(["verify", question, "--network", f"N={model}", "--timeout", "7"]) == 0
    assert capsys.readouterr().out == "unsat\n" and len(calls) == 1


def test_settings_arrive_and_loading_is_taken_off_the_timeout(pretend, files):
    calls = pretend(UNSAT)
    run(["verify", *files, "--timeout", "50", "--seed", "9", "--memory", "1.5GiB", "--device", "cpu"])
    (settings,) = calls
    assert 0 < settings.timeout < 50
    assert (settings.seed, settings.memory, settings.device) == (9, 3 << 29, "cpu")
    assert (settings.method, settings.solver, settings.trust) == ("auto", None, "checked")


def test_the_way_to_decide_arrives(pretend, files):
    calls = pretend(UNSAT)
    run(["verify", *files, "--method", "milp", "--solver", "gurobi", "--trust", "solver"])
    (settings,) = calls
    assert (settings.method, settings.solver, settings.trust) == ("milp", "gurobi", "solver")


@pytest.mark.parametrize(
    ("verdict", "checked", "trusted"),
    [(SAT, True, None), (UNSAT, True, None), (UNKNOWN, False, None), (replace(UNSAT, trusted="cbc"), False, "cbc")],
)
def test_the_record_says_what_an_answer_rests_on(verdict, checked, trusted, pretend, files, tmp_path):
    pretend(verdict)
    run(["verify", *files, "--json", str(tmp_path / "r.json")])
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["checked"], record["trusted"]) == (checked, trusted)


def test_a_timeout_spent_on_loading_is_a_timeout(pretend, files, capsys):
    calls = pretend(UNSAT)
    assert run(["verify", *files, "--timeout", "1e-9"]) == 0
    assert capsys.readouterr().out == "timeout\n" and not calls


def test_the_record(pretend, files, tmp_path):
    pretend(SAT)
    run(["verify", *files, "--json", str(tmp_path / "r.json"), "--seed", "4", "--timeout", "50"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert (record["verdict"], record["reason"]) == ("sat", SAT.reason)
    assert record["settings"]["seed"] == 4 and record["settings"]["timeout"] == 50
    assert record["model"]["sha256"] == file_digest(Path(files[0]))
    assert record["property"]["sha256"] == file_digest(Path(files[1]))
    assert record["statistics"] == {"restarts": 3, "margin": "nan"}
    assert record["witness"]["x"] == [0.5, 0.25] and record["witness"]["y"] == ["inf"]
    assert record["witness"]["x_shape"] == [1, 2] and record["witness"]["rounded"] == [1]
    assert record["stages"]["attack"] == 0.5
    assert {"verifier", "python", "torch", "onnxruntime"} <= set(record["versions"])
    assert record["machine"]["cores"] >= 1 and record["peak_memory_bytes"] > 1 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.onnx", "p.vnnlib", "r.json"]


def test_the_witness_file_is_written_for_sat_only(pretend, files, tmp_path):
    path = tmp_path / "w.txt"
    pretend(UNSAT)
    run(["verify", *files, "--witness", str(path)])
    assert not path.exists()
    pretend(SAT)
    run(["verify", *files, "--witness", str(path)])
    assert path.read_text() == "((X_0 0.5)\n(X_1 0.25)\n(Y_0 inf))\n"


def test_a_gzipped_neighbour_is_found(pretend, files, tmp_path, capsys):
    calls = pretend(UNSAT)
    Path(files[0]).rename(files[0] + ".gz")
    assert run(["verify", *files]) == 0 and len(calls) == 1
