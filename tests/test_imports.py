"""Who may import whom, and when: the layering of the package, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "verifier").rglob("*.py"))

# Each unit may import those below its own line. Units on one line do not import each other, but for EXCEPTIONS.
LAYERS = [
    {"errors"},
    {"settings"},
    {"core"},
    {"ops"},
    {"frontend", "bounding", "attack", "backends", "certify"},
    {"search"},
    {"pipeline"},
    {"optimisation"},
    {"run", "report", "cli", "__main__"},
]
EXCEPTIONS = {("backends", "bounding"), ("cli", "report"), ("cli", "run"), ("run", "report"), ("__main__", "cli")}
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}


def unit_of(path: Path) -> str:
    return path.relative_to(ROOT / "verifier").parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and unit of each import of our own package, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            inside = node.module == "verifier"
            names = [f"verifier.{alias.name}" if inside else str(node.module) for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "verifier" and not name.endswith("__version__"):
                yield node.lineno, [*name.split("."), ""][1]


def forbidden(source: str, target: str) -> bool:
    return source != target and LEVEL[target] >= LEVEL[source] and (source, target) not in EXCEPTIONS


def test_every_unit_has_its_place():
    assert sorted({unit_of(path) for path in FILES} - set(LEVEL)) == ["__init__"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    source = unit_of(path)
    if source == "__init__":
        return
    wrong = [(line, target) for line, target in imported(ast.parse(path.read_text())) if forbidden(source, target)]
    assert wrong == [], f"{source} must not import these (line, unit)"


def test_the_rule_itself_can_fail():
    tree = ast.parse("def f():\n    from verifier import search\n    import verifier.core.graph")
    assert list(imported(tree)) == [(2, "search"), (3, "core")]
    assert forbidden("bounding", "search") and forbidden("bounding", "frontend") and forbidden("report", "cli")
    assert not forbidden("search", "bounding") and not forbidden("cli", "report")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_cli_and_report_write_to_the_terminal(path):
    if unit_of(path) in ("cli", "report"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Name) and node.id == "print"), f"line {node.lineno}: print"
        writes = isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr")
        assert not writes, f"line {node.lineno}: a standard stream"


def test_reading_a_property_imports_no_solver_and_no_torch(tmp_path):
    question = tmp_path / "p.vnnlib"
    question.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))(assert (<= Y_0 0))"
    )
    code = "import sys, verifier; verifier.read_property(sys.argv[1]); print(' '.join(sys.modules))"
    out = subprocess.check_output([sys.executable, "-c", code, str(question)], cwd=ROOT, text=True)
    heavy = {"torch", "onnx", "onnxruntime", "highspy", "gurobipy", "pulp", "z3", "click", "rich"}
    assert "verifier.frontend.vnnlib" in out.split() and heavy & set(out.split()) == set()
