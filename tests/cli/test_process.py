"""What only a real process shows: what is imported when, closed pipes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "onnx", "onnxruntime", "highspy", "gurobipy", "pulp", "z3", "rich"}
PRETEND = "import sys; from tests.cli import fakes; sys.modules.update(fakes.{}); from verifier.cli import main; main()"


def start(code: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["verify", "--help"], 0),
        (["optimise", "--help"], 0),
        (["verify", "gone.onnx", "gone.vnnlib"], 3),
        (["info", "gone.onnx"], 3),
        (["verify", "--timeout", "-1", "gone.onnx", "gone.vnnlib"], 2),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments, code):
    watch = f"import sys; from verifier.cli import run; print(run(sys.argv[1:]), {HEAVY} & set(sys.modules))"
    process = start(watch, *arguments, stdout=subprocess.PIPE)
    out, err = process.communicate()
    assert out.splitlines()[-1] == f"{code} set()", err


def test_python_m_is_the_command():
    command = [sys.executable, "-m", "verifier", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("verifier ")


@pytest.mark.parametrize("command", ["verify", "bounds"])
def test_a_reader_that_went_away_is_no_error(command, files, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    record = ["--json", str(tmp_path / "r.json")] if command == "verify" else []
    process = start(PRETEND.format("modules(fakes.SAT)"), command, *files, *record, stdout=writer)
    os.close(writer)
    _, err = process.communicate()
    assert process.returncode == 141
    assert "Traceback" not in err and "BrokenPipe" not in err
    assert command == "bounds" or (tmp_path / "r.json").exists()


def test_interrupting_is_clean(files):
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # background jobs ignore it
    process = start(heard + PRETEND.format("sleepy_modules()"), "verify", *files, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "verifier: interrupted\n")


def test_a_terminal_gets_a_live_line_on_stderr_only(files):
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PRETEND.format("modules(fakes.UNSAT)"), "verify", *files],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(end)
    assert process.stdout is not None and process.stdout.read() == b"unsat\n"
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
    os.close(terminal)
    assert process.wait() == 0
    assert b"7 open" in shown and b"\x1b[?25h" in shown, "the cursor is shown again"
    assert b"bounds are not sound" in shown
