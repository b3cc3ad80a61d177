"""The command line on the real networks and properties of this repository, nothing replaced."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from verifier.cli import run

ROOT = Path(__file__).resolve().parents[2]


def files(network: str, question: str) -> list[str]:
    return [str(ROOT / "onnx_models" / f"{network}.onnx"), str(ROOT / "vnnlib" / f"{question}.vnnlib")]


@pytest.mark.parametrize(
    ("network", "question"), [("cartpole", "cartpole_unsafe_11"), ("acasxu_1_8", "acasxu_prop_2")], ids=str
)
def test_properties_known_to_hold(network, question, capsys, tmp_path):
    record = tmp_path / "record.json"
    assert run(["verify", *files(network, question), "--timeout", "250", "--json", str(record)]) == 0
    assert capsys.readouterr().out == "unsat\n"
    assert json.loads(record.read_text())["verdict"] == "unsat"


def test_a_property_known_to_be_violated(capsys):
    """ACAS Xu property 4 on network 1_8: the first output is the smallest, although it must not be."""
    model, question = files("acasxu_1_8", "acasxu_prop_4")
    assert run(["verify", model, question, "--quiet", "--sat-exit-codes"]) == 10
    out = capsys.readouterr().out
    assert out.startswith("sat\n((X_0 ") and out.endswith("))\n")
    x = np.float32([float(value) for value in re.findall(r"\(X_\d+ (\S+?)\)", out)])
    lower = np.float32([-0.303531156, -0.009549297, 0.0, 0.318181818, 0.083333333])
    upper = np.float32([-0.298552812, 0.009549297, 0.0, 0.5, 0.166666667])
    assert x.shape == (5,) and (lower <= x).all() and (x <= upper).all()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"input": x.reshape(1, 1, 1, 5)})
    assert y.ravel().argmin() == 0
    assert np.float32(re.findall(r"\(Y_\d+ (\S+?)\)", out)) == pytest.approx(y.ravel(), abs=1e-5)


@pytest.mark.parametrize("method", ["interval", "forward", "crown"])
def test_bounds_hold_at_corners(method, capsys):
    model, question = files("cartpole", "cartpole_unsafe_11")
    assert run(["bounds", model, question, "--method", method]) == 0
    rows = re.findall(r"^Y_\d+ +(\S+) +(\S+)$", capsys.readouterr().out, flags=re.MULTILINE)
    lower, upper = np.array(rows, dtype=float).T
    ends = np.float32([[0.0123, 0.0657], [0.9497, 1.0031], [-0.0854, -0.032], [-1.5082, -1.4548]])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 4)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, {"input": corner[None]})[0] for corner in corners])
    assert len(rows) == 2 and (lower <= outputs).all() and (outputs <= upper).all()


def test_info(capsys):
    assert run(["info", files("acasxu_1_8", "")[0]]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["nonlinear", "neurons", "300"] in lines
    assert ["Relu", "6", "300", "Relu", *["yes"] * 5, "exact"] in lines


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [("model", b"", "model"), ("model", b"not a network", "model"), ("question", b"(assert (<= X_0 1))", "question")],
)
def test_bad_files_are_named_in_one_line(name, content, text, capsys, tmp_path):
    paths = dict(zip(("model", "question"), files("cartpole", "cartpole_unsafe_11"), strict=True))
    bad = tmp_path / text
    bad.write_bytes(content)
    paths[name] = str(bad)
    assert run(["verify", paths["model"], paths["question"], "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and str(bad) in err


def test_a_property_of_another_network_is_refused(capsys):
    assert run(["verify", *files("acasxu_1_8", "cartpole_unsafe_11"), "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
