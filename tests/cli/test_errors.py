"""Every fault is one line on stderr with its exit code, and no verdict."""

from __future__ import annotations

import pytest

from tests.cli.fakes import UNSAT
from verifier.cli import run
from verifier.errors import BackendError, PropertyError, ReplayError, UnsupportedError, VerifierError

RAISED = [
    (UnsupportedError("operator 'Foo'\nis not supported"), 3, "operator 'Foo' is not supported"),
    (ReplayError("differs by 0.5"), 3, "differs by 0.5"),
    (PropertyError("p.vnnlib:3:4: unknown variable Z_0"), 3, "p.vnnlib:3:4: unknown variable Z_0"),
    (BackendError("no licence"), 4, "no licence"),
    (VerifierError("broken"), 70, "broken"),
    (ZeroDivisionError("division"), 70, "internal error, please report: ZeroDivisionError: division"),
    (KeyboardInterrupt(), 130, "interrupted"),
]


@pytest.mark.parametrize(("error", "code", "text"), RAISED)
def test_errors_become_one_line_and_an_exit_code(error, code, text, pretend, files, capsys):
    pretend(error)
    assert run(["verify", *files, "--quiet"]) == code
    out, err = capsys.readouterr()
    last = err.splitlines()[1:]  # the first is the loud notice
    assert out == "" and len(last) == 1
    assert last[0].startswith("verifier: ") and text in last[0]


@pytest.mark.parametrize("way", ["option", "variable"])
def test_the_traceback_is_shown_on_request_only(way, pretend, files, capsys, monkeypatch):
    pretend(ZeroDivisionError("division"))
    if way == "variable":
        monkeypatch.setenv("VERIFIER_DEBUG", "1")
    assert run([*(["--debug"] if way == "option" else []), "verify", *files]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["verify"], "Missing argument"),
        (["verify", "{model}"], "MODEL and PROPERTY are needed"),
        (["verify", "{question}", "{model}"], "the network comes first"),
        (["verify", "{model}", "{question}", "--network", "N={model}"], "exactly one property"),
        (["verify", "{question}", "--network", "N={model}", "--network", "M={model}"], "exactly one network"),
        (["verify", "{question}", "--network", "{model}"], "NAME=MODEL"),
        (["verify", "{model}", "{question}", "--timeout", "0"], "positive number of seconds"),
        (["verify", "{model}", "{question}", "--timeout", "nan"], "positive number of seconds"),
        (["verify", "{model}", "{question}", "--timeout", "soon"], "soon"),
        (["verify", "{model}", "{question}", "--memory", "4 parsecs"], "not a size"),
        (["verify", "{model}", "{question}", "--memory", "1K"], "at least 64 MiB"),
        (["verify", "{model}", "{question}", "--device", "abacus"], "abacus"),
        (["verify", "{model}", "{question}", "--method", "guess"], "guess"),
        (["verify", "{model}", "{question}", "--solver", "abacus"], "abacus"),
        (["verify", "{model}", "{question}", "--solver", "cbc"], "cbc serves the method milp, not auto"),
        (["verify", "{model}", "{question}", "--method", "smt", "--solver", "cbc"], "serves the method milp, not smt"),
        (["verify", "{model}", "{question}", "--trust", "solver"], "leave out --trust solver"),
        (["verify", "{model}", "{question}", "--json", "{model}/x/r.json"], "cannot write"),
        (["bounds", "{model}", "{question}", "--method", "guess"], "guess"),
        (["prove"], "prove"),
        (["--colour"], "--colour"),
    ],
)
def test_wrong_calls_exit_with_2_and_ask_nothing(arguments, text, pretend, files, capsys):
    calls = pretend(UNSAT)
    model, question = files
    assert run([argument.format(model=model, question=question) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and text in err and not calls


@pytest.mark.parametrize("command", ["verify", "bounds"])
@pytest.mark.parametrize("missing", [0, 1])
def test_missing_files_exit_with_3(command, missing, pretend, files, capsys):
    calls = pretend(UNSAT)
    paths = list(files)
    paths[missing] += ".gone"
    assert run([command, *paths]) == 3
    assert f"'{paths[missing]}' does not exist" in capsys.readouterr().err and not calls


def test_folders_are_not_files(files, tmp_path, capsys):
    assert run(["info", str(tmp_path)]) == 3
    assert "is not a file" in capsys.readouterr().err
