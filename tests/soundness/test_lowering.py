"""Operators that the importer takes apart: bounds of the parts contain what onnxruntime computes with the whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from tests.frontend.onnx_models import load_nodes, node
from verifier.bounding.engine import METHODS
from verifier.bounding.program import unbounded_nodes
from verifier.core.query import Box
from verifier.frontend.network import Network
from verifier.frontend.replay import replay
from verifier.pipeline import bounds

SHAPE = (2, 3, 4)
FACTOR = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
OTHER = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
OFF_ON = np.array([-1.0, 2.0], dtype=np.float32)
POINTS = 40


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


mixed = node("MatMul", ("x", "factor"), ("z",))
"""Every case but those of pairs works on a linear map of the input, so that correlations matter."""


def one(name: str, inputs: tuple[str, ...] = ("z",), **attributes: Any) -> list[NodeProto]:
    return [mixed, node(name, inputs, ("y",), **attributes)]


def share(power: float) -> list[NodeProto]:
    return [
        mixed,
        node("Relu", ("z",), ("r",)),
        node("Pow", ("r", f"p{int(power)}"), ("part",)),
        node("ReduceSum", ("part", "last"), ("total",), keepdims=1),
        node("Div", ("part", "total")),
    ]


def behind(*nodes: NodeProto) -> list[NodeProto]:
    """A real output from a boolean one."""
    return [mixed, *nodes, node("Cast", ("b",), ("y",), to=TensorProto.FLOAT)]


CASES: dict[str, list[NodeProto]] = {
    **{f"softmax{axis}": one("Softmax", axis=axis) for axis in (0, 1, 2)},
    **{f"logsoftmax{axis}": one("LogSoftmax", axis=axis) for axis in (0, 2)},
    "softmax-written-out": [
        mixed,
        node("Exp", ("z",), ("part",)),
        node("ReduceSum", ("part", "last"), ("total",), keepdims=1),
        node("Div", ("part", "total")),
    ],
    "share-of-cubes": share(3.0),
    "share-of-squares": share(2.0),
    "matmul": [mixed, node("Transpose", ("x",), ("t",), perm=[0, 2, 1]), node("MatMul", ("z", "t"))],
    "product": one("Mul", ("x", "z")),
    "square": one("Mul", ("z", "z")),
    "quotient": [mixed, node("Exp", ("x",), ("e",)), node("Div", ("z", "e"))],
    "silu": [mixed, node("Sigmoid", ("z",), ("s",)), node("Mul", ("z", "s"))],
    "power-of-constant": one("Pow", ("p3", "z")),
    "reduce-product": one("ReduceProd", axes=[2]),
    "reduce-l2": one("ReduceL2", axes=[1, 2]),
    "reduce-logsumexp": one("ReduceLogSumExp", axes=[2]),
    "instance-normalization": one("InstanceNormalization", ("z", "ones", "ones"), epsilon=0.01),
    "less": behind(node("Less", ("z", "x"), ("b",))),
    "at-least-constant": behind(node("GreaterOrEqual", ("z", "other"), ("b",))),
    "equal": behind(node("Equal", ("z", "x"), ("b",))),
    "argmax-of-two": behind(node("ArgMax", ("z",), ("b",), axis=0)),
    **{f"argmax-last{last}": behind(node("ArgMax", ("z",), ("b",), axis=2, select_last_index=last)) for last in (0, 1)},
    "argmin": behind(node("ArgMin", ("z",), ("b",), axis=1, keepdims=0)),
    "equal-integers": behind(
        node("ArgMax", ("z",), ("i",), axis=0),
        node("ArgMax", ("x",), ("j",), axis=0),
        node("Equal", ("i", "j"), ("b",)),
    ),
    "one-hot": [mixed, node("ArgMax", ("z",), ("b",), axis=0), node("OneHot", ("b", "depth", "off_on"))],
    "where": [mixed, node("Greater", ("z", "other"), ("b",)), node("Where", ("b", "z", "x"))],
    **{
        kind.lower(): [mixed, node(kind, ("z", f"w{gates}", f"r{gates}"), ("", "y"), hidden_size=2)]
        for kind, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    },
    "einsum": [
        mixed,
        node("Einsum", ("x", "z"), ("s",), equation="bid,bjd->bij"),
        node("Softmax", ("s",), ("a",), axis=2),
        node("Einsum", ("a", "x"), equation="bij,bjd->bid"),
    ],
    "quantized": [
        mixed,
        node("QuantizeLinear", ("z", "step", "zero"), ("q",)),
        node("DequantizeLinear", ("q", "step", "zero")),
    ],
    "attention": [
        mixed,
        node("Reshape", ("z", "heads"), ("h",)),
        node("Transpose", ("h",), ("q",), perm=[0, 2, 1, 3]),
        node("Transpose", ("h",), ("k",), perm=[0, 2, 3, 1]),
        node("Mul", ("q", "half"), ("scaled",)),
        node("MatMul", ("scaled", "k"), ("scores",)),
        node("Softmax", ("scores",), ("shares",), axis=-1),
        node("MatMul", ("shares", "q"), ("m",)),
        node("Transpose", ("m",), ("t",), perm=[0, 2, 1, 3]),
        node("Reshape", ("t", "flat")),
    ],
    "layer-normalization-written-out": [
        mixed,
        node("ReduceMean", ("z",), ("mean",), axes=[-1]),
        node("Sub", ("z", "mean"), ("c",)),
        node("Pow", ("c", "p2"), ("sq",)),
        node("ReduceMean", ("sq",), ("var",), axes=[-1]),
        node("Add", ("var", "half"), ("more",)),
        node("Sqrt", ("more",), ("sd",)),
        node("Div", ("c", "sd")),
    ],
    "lrn": [mixed, node("Unsqueeze", ("z", "first"), ("u",)), node("LRN", ("u",), size=3, alpha=0.5, beta=0.75)],
    "lp-pool": one("LpPool", kernel_shape=[2], strides=[2], p=2),
    **{f"lp-normalization{p}": one("LpNormalization", axis=1, p=p) for p in (1, 2)},
    "hardmax": one("Hardmax", axis=2),
    "triangle": [mixed, node("Trilu", ("z",), ("u",), upper=0), node("Softmax", ("u",), axis=1)],
    "floor": [mixed, node("Floor", ("z",), ("f",)), node("Sub", ("z", "f"))],
}


def load_case(name: str, folder: Path) -> Network:
    constants = {"factor": FACTOR, "other": OTHER, "p2": np.float32(2), "p3": np.float32(3), "last": np.array([2])}
    constants |= {"ones": np.ones(3, dtype=np.float32), "depth": np.array(2), "off_on": OFF_ON}
    constants |= {"heads": np.array([2, 3, 2, 2]), "flat": np.array([2, 3, 4]), "half": np.float32(0.5)}
    constants |= {"step": np.float32(0.02), "zero": np.int8(-3), "first": np.array([0])}
    for gates in (1, 3, 4):
        constants |= {f"w{gates}": weights(1, 2 * gates, 4), f"r{gates}": weights(1, 2 * gates, 2)}
    return load_nodes(folder, CASES[name], SHAPE, constants=constants, opset=14)


def some_boxes(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator, found = np.random.default_rng(seed), []
    for width in (0.0, 1e-3, 0.3, 30.0):
        lower = (generator.standard_normal(24) * (1 + width)).astype(np.float32)
        found.append((lower, (lower + np.float32(width) * generator.random(24).astype(np.float32))))
    return found


@pytest.mark.parametrize("name", CASES)
def test_bounds_contain_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    network = load_case(name, tmp_path)
    replay(network)
    assert unbounded_nodes(network.graph) == []
    generator = np.random.default_rng(3)
    for lower, upper in some_boxes(seed=2):
        weights = generator.random((POINTS, 24))
        weights[: POINTS // 2] = weights[: POINTS // 2].round()
        x = np.clip((lower + weights * (upper - lower)).astype(np.float32), lower, upper)
        values = network.run(x.reshape(POINTS, *SHAPE)).astype(np.float64)
        box = Box(tuple(map(Fraction, lower.tolist())), tuple(map(Fraction, upper.tolist())))
        for method in METHODS:
            ((low, high),) = bounds(network, box, method)
            noise = 3e-5 * (1 + np.abs(values))  # of onnxruntime; where values jump, a point next to the jump has both
            assert not (values < low - noise).any() and not (values > high + noise).any(), method


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("equal", "at-least-constant", "less")])
def test_bounds_of_a_small_box_are_small(name: str, tmp_path: Path) -> None:
    """Within a factor of the width that samples show; steps excepted, a box may straddle one."""
    network = load_case(name, tmp_path)
    generator = np.random.default_rng(11)
    center, width = np.abs(generator.standard_normal(24)) + 0.5, 1e-3
    lower, upper = ((center + side * width).astype(np.float32) for side in (-1, 1))
    box = Box(tuple(map(Fraction, lower.tolist())), tuple(map(Fraction, upper.tolist())))
    ((low, high),) = bounds(network, box, "crown")
    x = np.where(generator.random((400, 24)) < 0.5, lower, upper)
    values = network.run(x.reshape(400, *SHAPE))
    seen = values.max(0) - values.min(0)
    assert not ((high - low) > 4 * seen + 0.05).any(), (high - low).max()  # where it is NaN nothing is asked
