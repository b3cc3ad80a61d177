"""What a user gets: the public names, the README's commands, and all of the package."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import verifier

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_ci_runs_exactly_the_test_command_of_the_readme():
    (command,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.endswith("-m pytest")]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_the_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"\b(?:onnx_models|vnnlib|benchmarks|tests)/[\w./-]*\w", text))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_folder_of_the_package_is_installed():
    folders = {path.parent for path in (ROOT / "verifier").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_data_folders_hold_no_package():
    assert not list((ROOT / "vnnlib").rglob("*.py")) and not list((ROOT / "onnx_models").rglob("*.py"))


def test_the_data_folders_say_where_each_file_is_from():
    for folder in ("onnx_models", "vnnlib"):
        readme = (ROOT / folder / "README.md").read_text()
        assert [path.name for path in (ROOT / folder).iterdir() if f"`{path.name}`" not in readme] == ["README.md"]


def test_the_version_stands_in_one_place():
    assert "version" not in PROJECT["project"] and "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", verifier.__version__)


def test_the_public_names_can_be_had():
    assert sorted(verifier.__all__) == sorted([*verifier._HOMES, "__version__"])
    for name in verifier.__all__:
        assert getattr(verifier, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = verifier.nonsense


@pytest.mark.parametrize("name", [name for name, (_, attribute) in verifier._HOMES.items() if attribute])
def test_no_submodule_can_take_the_place_of_a_public_name(name):
    assert importlib.util.find_spec(f"verifier.{name}") is None


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, verifier; dir(verifier); print({'torch', 'numpy', 'onnx', 'click'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"
