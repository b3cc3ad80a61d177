"""`verifier bounds` and `verifier info`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

from tests.cli.fakes import UNSAT
from verifier.cli import run
from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.operator import Op
from verifier.frontend.onnx_ops import registered
from verifier.ops import OPERATORS, Linear, Relu
from verifier.ops.support import METHODS
from verifier.report.operators import BEGIN, with_table
from verifier.report.table import format_table


def test_bounds_are_printed_exactly_and_cut_with_a_note(pretend, files, capsys):
    pretend(UNSAT)
    assert run(["bounds", *files, "--method", "interval"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("box 1 of 7, interval\n")
    assert out.count("Y_49     -0.1    0.3\n") == 5 and "Y_50" not in out
    assert "the first 50 of 60 outputs" in out and "the first 5 of 7 boxes" in out


@dataclass(frozen=True)
class Mystery(Op):
    """An operator without bounds."""

    def evaluate(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]


def test_info_counts_and_names_what_cannot_be_bounded(files, capsys, monkeypatch):
    nodes = (
        Node("x", Input(), (), (1, 2)),
        Node("c", Constant(torch.zeros(1, 3)), (), (1, 3)),
        Node("h", Linear(torch.ones(3, 2), torch.ones(3)), (0,), (1, 3), "Gemm"),
        Node("r", Relu(), (2,), (1, 3), "Relu"),
        Node("s", Relu(), (3,), (1, 3), "Relu"),
        Node("m", Mystery(), (4,), (1, 3), "Foo"),
    )
    network = SimpleNamespace(
        path=files[0], sha256="ab12", graph=Graph(nodes, 5), input_name="x", input_shape=(1, 2), input_dtype="float32",
        output_name="m", opset=17,
    )  # fmt: skip
    fake = ModuleType("verifier.frontend.network")
    fake.load = lambda path: network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "verifier.frontend.network", fake)
    assert run(["info", files[0]]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["parameters", "12"] in lines and ["nonlinear", "neurons", "9"] in lines and ["opset", "17"] in lines
    assert ["operator", "nodes", "values", "from", "ONNX", *METHODS] in lines
    assert ["Relu", "2", "6", "Relu", *["yes"] * 5, "exact"] in lines
    assert ["Linear", "1", "3", "Gemm", "yes", "yes", "yes", "-", "-", "exact"] in lines
    assert ["Mystery", "1", "3", "Foo", *["no"] * 6] in lines
    assert "Foo (tensor 'm', shape [1, 3])" in " ".join(lines[-1])
    assert not any(line[:1] == ["Constant"] for line in lines)


def test_info_without_a_network_lists_all_operators(capsys):
    assert run(["info"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert {operator.__name__ for operator in OPERATORS} <= set(rows)
    assert rows["Relu"] == [*["yes"] * 5, "exact"] and rows["ScatterND"] == ["no"] * 6 and rows["Tanh"][-1] == "pieces"
    assert {name for _, name, _ in registered()} <= set(out.replace(",", " ").replace(".", " ").split())


def test_the_table_in_the_readme_is_current():
    """Else: python -m verifier.report.operators README.md"""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    assert text.count(BEGIN) == 1 and with_table(text) == text
    assert with_table(text.replace("Relu", "Rellu")) == text


def test_tables_align():
    assert format_table(("name", "n"), [("a", "10"), ("longer", "7")], right=(1,)).splitlines() == [
        "name     n",
        "------  --",
        "a       10",
        "longer   7",
    ]
