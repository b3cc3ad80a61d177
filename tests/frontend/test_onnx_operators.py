"""Every ONNX operator against onnxruntime, over opsets and attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.frontend.onnx_cases import (
    ARITHMETIC,
    CONVOLUTION,
    DENSE,
    ELEMENTWISE,
    MOVEMENT,
    NORMALIZATION,
    REDUCTIONS,
    RESIZE,
    Case,
    normal,
    whole,
)
from tests.frontend.onnx_composed_cases import ATTENTION, EINSUM, QUANTIZED, RECURRENT
from tests.frontend.onnx_models import load_nodes, node
from verifier.errors import VerifierError
from verifier.frontend.onnx_ops import registered
from verifier.frontend.replay import replay

CASES = [
    *(*ELEMENTWISE, *ARITHMETIC, *DENSE, *CONVOLUTION, *NORMALIZATION, *MOVEMENT, *REDUCTIONS, *RESIZE),
    *(*RECURRENT, *EINSUM, *QUANTIZED, *ATTENTION),
]
ONE_BY_ONE = [(case, opset) for case in CASES for opset in case.opsets]


@pytest.mark.parametrize(("case", "opset"), ONE_BY_ONE, ids=[f"{case.name}-{opset}" for case, opset in ONE_BY_ONE])
def test_agrees_with_onnxruntime(case: Case, opset: int, tmp_path: Path) -> None:
    constants = {
        f"c{place}": np.asarray(value) for place, value in enumerate(case.inputs) if not isinstance(value, str | None)
    }
    names = [
        value if isinstance(value, str) else "" if value is None else f"c{place}"
        for place, value in enumerate(case.inputs)
    ]
    nodes = [node(case.name, names, case.outputs, **case.attributes)]
    if "x" not in names:  # the operator works on booleans only: give it some that depend on the input
        nodes = [node("Greater", ("x", "zero"), ("positive",)), node(case.name, ("positive",), case.outputs)]
        constants = {"zero": np.float32(0)}
    network = load_nodes(tmp_path, nodes, case.shape, constants=constants, opset=opset, output_kind=case.kind)
    points = np.random.default_rng(0).standard_normal((4, *case.shape)).astype(np.float32)
    points = np.abs(points) + np.float32(0.1) if case.positive else points
    points[0, ...] = points[0].round() if not case.positive else points[0]
    replay(network, points)
    assert network.run(points[:1]).shape[1:] == network.graph.output_shape


def test_every_registered_operator_has_a_case() -> None:
    tested = {case.name for case in CASES}
    elsewhere = {"Constant", "Shape", "Size", "ConstantOfShape", "Range", "OneHot", "And", "Or", "Xor", "Scatter"}
    elsewhere |= {"DequantizeLinear"}
    assert {name for _, name, _ in registered()} <= tested | elsewhere


@pytest.mark.parametrize("name", ["And", "Or", "Xor"])
def test_logic(name: str, tmp_path: Path) -> None:
    nodes = [
        node("Greater", ("x", "low"), ("a",)),
        node("Greater", ("x", "high"), ("b",)),
        node(name, ("a", "b"), ("c",)),
        node("Cast", ("c",), ("y",), to=TensorProto.FLOAT),
    ]
    constants = {"low": np.float32(-0.5), "high": np.float32(0.5)}
    network = load_nodes(tmp_path, nodes, (1, 30), constants=constants)
    replay(network)
    assert 0 < network.run(np.random.default_rng(0).standard_normal((1, 30))).mean() < 1


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ("x",), ("shape",)),
        node("Gather", ("shape", "one"), ("channels",), axis=0),
        node("Mul", ("channels", "two"), ("double",)),
        node("Unsqueeze", ("double", "axes"), ("size",)),
        node("Concat", ("minus", "size"), ("target",), axis=0),
        node("Reshape", ("x", "target"), ("z",)),
        node("ConstantOfShape", ("target_of_ones",), ("ones",)),
        node("Add", ("z", "ones"), ("y",)),
    ]
    constants = {
        **{"one": np.array(1), "two": np.array(2), "axes": whole(0), "minus": whole(-1)},
        "target_of_ones": whole(1, 6),
    }
    network = load_nodes(tmp_path, nodes, (2, 3, 4), constants=constants)
    replay(network)
    assert network.output_shape == (4, 6)
    assert [entry.op.name for entry in network.graph.nodes] == ["Input", "Reshape"]


def test_variable_positions(tmp_path: Path) -> None:
    """Slice, Range, Gather and ScatterND at positions that the input holds."""
    nodes = [
        node("Gather", ("x", "first"), ("place",), axis=0),
        node("Cast", ("place",), ("start",), to=TensorProto.INT64),
        node("Add", ("start", "two"), ("end",)),
        node("Slice", ("x", "start", "end", "axes"), ("part",)),
        node("Squeeze", ("start", "axes"), ("start_scalar",)),
        node("Squeeze", ("end", "axes"), ("end_scalar",)),
        node("Range", ("start_scalar", "end_scalar", "one"), ("range",)),
        node("Unsqueeze", ("range", "last"), ("indices",)),
        node("ScatterND", ("zeros", "indices", "part"), ("written",)),
        node("Gather", ("x", "range"), ("same",), axis=0),
        node("Concat", ("written", "same"), ("y",), axis=0),
    ]
    constants = {
        **{"first": whole(0), "two": whole(2), "axes": whole(0), "one": np.array(1), "last": whole(-1)},
        "zeros": np.zeros(6, dtype=np.float32),
    }
    network = load_nodes(tmp_path, nodes, (6,), constants=constants)
    points = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    points[:, 0] = [0, 1, 2, 3, 4]
    assert replay(network, points) == 0.0


@pytest.mark.parametrize("zero", [None, np.int8(-7)])
def test_a_quantized_layer(zero: np.int8 | None, tmp_path: Path) -> None:
    """As exporters write one: an input that is quantized and back, and weights that are stored as integers."""
    zeros = () if zero is None else ("zero",)
    nodes = [
        node("QuantizeLinear", ("x", "step", *zeros), ("q",)),
        node("DequantizeLinear", ("q", "step", *zeros), ("r",)),
        node("DequantizeLinear", ("w", "steps", "zeros"), ("weights",), axis=1),
        node("MatMul", ("r", "weights")),
    ]
    weights = np.random.default_rng(2).integers(-128, 128, (4, 3)).astype(np.int8)
    constants = {"step": np.float32(0.03), "w": weights, "steps": np.float32([0.1, 0.2, 0.01])}
    constants |= {"zeros": np.array([0, 3, -4], np.int8), "zero": np.int8(0) if zero is None else zero}
    network = load_nodes(tmp_path, nodes, (2, 4), constants=constants)
    replay(network)
    names = [entry.op.name for entry in network.graph.nodes]
    assert names.count("Round") == 1 and names.count("Linear") == 1
    assert replay(network, np.full((1, 2, 4), 1e6)) < 1e-3


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([node("LSTM", ("x", "w", "r"), hidden_size=2, clip=1.0)], "'clip'"),
        ([node("LSTM", ("x", "w", "r", "", "short"), hidden_size=2)], "different lengths"),
        ([node("RNN", ("x", "w", "r"), hidden_size=8, activations=["HardSigmoid"])], "'HardSigmoid'"),
        ([node("Attention", ("x", "x", "x"), q_num_heads=1, kv_num_heads=1, is_causal=1)], "leave places out"),
        ([node("Einsum", ("x", "x"), equation="ijk->i")], "does not fit 2 inputs"),
        ([node("Einsum", ("x",), equation="ij->i")], "does not fit inputs"),
    ],
)
def test_what_is_refused_is_named(nodes: list[Any], text: str, tmp_path: Path) -> None:
    constants = {"w": normal(1, 8, 3), "r": normal(1, 8, 8), "short": np.array([2], np.int32)}
    with pytest.raises(VerifierError, match=text):
        load_nodes(tmp_path, nodes, (4, 1, 3), constants=constants, opset=23)


def test_one_hot(tmp_path: Path) -> None:
    nodes = [
        node("ArgMax", ("x",), ("best",), axis=1, keepdims=0),
        node("OneHot", ("best", "depth", "values"), ("y",), axis=0),
    ]
    constants = {"depth": np.array(5), "values": np.array([-1.0, 2.0], dtype=np.float32)}
    replay(load_nodes(tmp_path, nodes, (3, 5), constants=constants))


def test_a_cast_that_wraps_is_not_guessed(tmp_path: Path) -> None:
    network = load_nodes(tmp_path, [node("Cast", to=TensorProto.INT8)], (1, 2), output_kind=TensorProto.INT8)
    replay(network, np.array([[1.5, -127.9]]))
    with pytest.raises(VerifierError):
        replay(network, np.array([[300.0, 1.0]]))
