"""The benchmark scripts, with a stand-in for the interpreter that runs the verifier."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.search.questions import small_graph
from tests.search.test_branching import roots_of
from verifier.bounding.engine import bound_nodes
from verifier.bounding.program import prepare
from verifier.core.stacked import pick
from verifier.search.branching.parts import split

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


@pytest.fixture
def variants(monkeypatch):
    """The script's module; what it sets for its whole process is as before afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(time, "monotonic", time.monotonic)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(torch, "set_grad_enabled", lambda enabled: None)
    with torch.no_grad():
        yield importlib.import_module("search_variants")


def test_search_variants_writes_a_row_for_each(variants, monkeypatch, tmp_path):
    family = tmp_path / "few"
    family.mkdir()
    files = ROOT / "onnx_models" / "acasxu_1_8.onnx", ROOT / "vnnlib" / "acasxu_prop_2.vnnlib"
    (family / "instances.csv").write_text(f"{files[0]},{files[1]},60\n")
    monkeypatch.setattr(variants, "INSTANCES", (("few", "1_8", "prop_2", 1), ("other", "", "", 0)))
    monkeypatch.setattr(variants, "VARIANTS", variants.VARIANTS[:2])
    table = tmp_path / "out.csv"
    arguments = [str(tmp_path), str(table), "--match", "few", "--seconds", "0.2"]
    monkeypatch.setattr(sys, "argv", ["search_variants.py", *arguments])
    variants.main()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows[:3]] == ["root", "default", "widths"] and rows[-1]["variant"] == "in turns"
    for row in rows[1:]:
        assert row["family"] == "few" and int(row["subproblems"]) > 0
        assert (row["proved"] == "1") == (row["share"] == "1.0000" and row["open"] == "0")


def test_filtered_branching_takes_the_children_with_the_best_bounds(variants):
    """Beside bounds of the children that are worked out one by one."""
    kept, roots, dual = roots_of(small_graph("relu", "two layers", 1), 2)
    chosen = variants.filtered(variants.neurons_first, 3)(kept, roots, dual, 1, 1.5)
    listed = variants.neurons_first(kept, roots, dual, 3, 1.5)
    moved = False
    for row in range(len(roots)):
        parent, merits = pick(roots, [row]), []
        for rank in range(3):
            children = split(kept, parent, listed.place[[row], rank], listed.point[[row], rank])
            own = kept.dual(children, dual.objective.select(torch.tensor([row, row])))
            multipliers = own.projected(kept.multipliers(children))
            gains = (own.value(multipliers) - parent.bound) / -parent.bound
            merits.append(float(gains.clamp(1e-6, 1).prod()))
        best = merits.index(max(merits))
        assert max(merits) > 1.01 * sorted(merits)[-2] and int(chosen.place[row, 0]) == int(listed.place[row, best])
        moved = moved or best > 0
    assert moved, "else the shortlist's order would do"


def test_throughput_leaves_the_error_terms_out() -> None:
    """The stand-in for a pass without rounding still fits what it replaces, and changes nothing but what rounding
    costs: the debt, and the part of it that the constant terms bear."""
    specification = importlib.util.spec_from_file_location("throughput", ROOT / "benchmarks" / "throughput.py")
    assert specification is not None and specification.loader is not None
    throughput = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(throughput)
    for graph in throughput.networks().values():
        program = prepare(graph, torch.float32)
        found = bound_nodes(program, throughput.small_boxes(program, 2), "interval")
        forms = []
        for bare in (False, True):
            torch.manual_seed(0)
            with throughput.without_rounding() if bare else nullcontext():
                forms.append(throughput.one_pass(program, found, 2))
        assert torch.equal(forms[0].coefficients, forms[1].coefficients)
        sound, bare_ones = (form.bias - form.debt for form in forms)
        assert (sound < bare_ones).all() and torch.allclose(sound, bare_ones, rtol=1e-2)
