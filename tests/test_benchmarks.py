"""The benchmark scripts, with a stand-in for the interpreter that runs the verifier."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "benchmarks" / "vnncomp"

# Acts by the name of the property: a verdict word is answered, others are ways to go wrong.
STAND_IN = """#!{python}
import json, os, sys, time
arguments = sys.argv[sys.argv.index("verify") + 1:]
word = os.path.basename(arguments[1]).split(".")[0]
print("a line on stderr", file=sys.stderr)
if word == "hang":
    time.sleep(600)
if word == "fault":
    sys.exit("verifier: operator Foo is not supported")
if word == "crash":
    os.abort()
print(word)
if word == "sat":
    print("((X_0 1)\\n(Y_0 2))")
if "--json" in arguments:
    with open(arguments[arguments.index("--json") + 1], "w") as file:
        json.dump({{"reason": "because", "arguments": arguments}}, file)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    path = tmp_path / "interpreter"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


def run_instance(stand_in: Path, name: str, limit: str = "60") -> tuple[int, str]:
    folder = stand_in.parent / "results"
    folder.mkdir()
    done = subprocess.run(
        [SCRIPTS / "run_instance.sh", "v1", "family", "n.onnx", f"{name}.vnnlib", folder / "out.txt", limit],
        env={**os.environ, "VERIFIER_PYTHON": str(stand_in)},
        capture_output=True,
        text=True,
    )
    assert [path.name for path in folder.iterdir()] == ["out.txt"], "no draft is left behind"
    return done.returncode, (folder / "out.txt").read_text()


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("unsat", "unsat\n"),
        ("sat", "sat\n((X_0 1)\n(Y_0 2))\n"),
        ("unknown", "unknown\n"),
        ("fault", "error\n"),
        ("crash", "error\n"),
    ],
)
def test_run_instance_writes_verdict_and_witness(stand_in, name, result):
    assert run_instance(stand_in, name) == (0, result)


def test_run_instance_stops_what_hangs(stand_in):
    assert run_instance(stand_in, "hang", limit="1") == (0, "timeout\n")


def test_prepare_instance_always_exits_with_0(stand_in):
    for interpreter in (stand_in, stand_in.parent / "gone"):
        done = subprocess.run(
            [SCRIPTS / "prepare_instance.sh", "v1", "family", "n.onnx", "p.vnnlib"],
            env={**os.environ, "VERIFIER_PYTHON": str(interpreter)},
            capture_output=True,
        )
        assert done.returncode == 0


@pytest.mark.parametrize("script", ["install_tool.sh", "run_instance.sh"])
def test_another_version_of_the_protocol_is_refused(script):
    assert subprocess.run([SCRIPTS / script, "v2"], capture_output=True).returncode == 2


@pytest.fixture
def run_set(stand_in, monkeypatch):
    """Runs `run_set.py` with these arguments, on the stand-in."""
    specification = importlib.util.spec_from_file_location("run_set", ROOT / "benchmarks" / "run_set.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "run_set", module)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "KILL_GRACE", 0.0)

    def run(*arguments: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(stand_in))
            patch.setattr(sys, "argv", ["run_set.py", *map(str, arguments)])
            return module.main()

    return run


@pytest.fixture
def families(tmp_path) -> Path:
    """Two families; the second has a folder more in its paths."""
    folder = tmp_path / "set"
    for family, rows in {
        "one": [
            "onnx/n.onnx,vnnlib/sat.vnnlib,60",
            "onnx/n.onnx,vnnlib/fault.vnnlib,60",
            "onnx/n.onnx,vnnlib/crash.vnnlib,60",
        ],
        "two": ["onnx/a/n.onnx,vnnlib/a/unsat.vnnlib,60", "onnx/a/n.onnx,vnnlib/a/hang.vnnlib,60"],
    }.items():
        (folder / family).mkdir(parents=True)
        (folder / family / "instances.csv").write_text("\n".join(rows) + "\n")
    return folder


def read(table: Path) -> list[list[str]]:
    with table.open(newline="") as file:
        return [[row[0], Path(row[2]).stem, row[4]] for row in csv.reader(file)]


def test_run_set_writes_a_row_and_a_record_for_each(run_set, families, tmp_path, capsys):
    table = tmp_path / "out.csv"
    assert run_set(families, table, "--cap", "2", "--device", "cpu") == 0
    assert read(table) == [
        ["one", "sat", "sat"],
        ["one", "fault", "error"],
        ["one", "crash", "error"],
        ["two", "unsat", "unsat"],
        ["two", "hang", "timeout"],
    ]
    kept = tmp_path / "out.d"
    assert (kept / "one__n__sat.out").read_text().startswith("sat\n((X_0 1)")
    assert json.loads((kept / "one__n__fault.json").read_text())["reason"].endswith("operator Foo is not supported")
    arguments = json.loads((kept / "two__a_n__a_unsat.json").read_text())["arguments"]
    assert arguments[:2] == [str(families / "two/onnx/a/n.onnx"), str(families / "two/vnnlib/a/unsat.vnnlib")]
    assert arguments[-2:] == ["--device", "cpu"] and float(arguments[arguments.index("--timeout") + 1]) < 2
    shown = capsys.readouterr().out
    assert "1/5 one__n__sat  sat" in shown and "because" in shown and "MiB" in shown


def test_run_set_resumes_after_a_torn_line(run_set, families, tmp_path):
    table = tmp_path / "out.csv"
    table.write_text("one,onnx/n.onnx,vnnlib/sat.vnnlib,0.0,unknown,1.0\none,onnx/n.onnx,vnnlib/fault.vnnl")
    run_set(families, table, "--family", "one", "--match", "at")
    assert read(table) == [["one", "sat", "unknown"]], "what is there is not run again"
    run_set(families, table, "--family", "one", "--match", "fault")
    assert read(table) == [["one", "sat", "unknown"], ["one", "fault", "error"]]


def test_run_set_wants_a_benchmark_folder(run_set, tmp_path):
    with pytest.raises(SystemExit, match=r"no instances\.csv"):
        run_set(tmp_path, tmp_path / "out.csv")
