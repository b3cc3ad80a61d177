"""Rewrites keep the function and do what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.frontend.onnx_models import build, load_nodes, node
from verifier.core.graph import Graph, Input, Node
from verifier.frontend.onnx_import import import_graph
from verifier.frontend.replay import replay
from verifier.frontend.simplify import simplify
from verifier.ops import Permute, Relu, Reshape, Select

RANDOM = np.random.default_rng(0)


def names(graph: Graph) -> list[str]:
    return [entry.op.name for entry in graph.nodes]


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_dense_network_becomes_linear_and_relu(tmp_path: Path) -> None:
    nodes = [
        node("Sub", ("x", "zero"), ("a",)),
        node("Flatten", ("a",), ("b",)),
        node("MatMul", ("b", "w"), ("c",)),
        node("Add", ("c", "v"), ("d",)),
        node("Relu", ("d",), ("e",)),
        node("MatMul", ("e", "u"), ("f",)),
        node("Add", ("t", "f"), ("y",)),
    ]
    constants = {
        "zero": np.zeros((1, 1, 1, 5), np.float32),
        "w": normal(5, 4),
        "v": normal(4),
        "u": normal(4, 3),
        "t": normal(3),
    }
    network = load_nodes(tmp_path, nodes, (1, 1, 1, 5), constants=constants)
    assert names(network.graph) == ["Input", "Reshape", "Linear", "Relu", "Linear"]
    assert network.graph.nodes[-1].name == "y"
    replay(network)


def test_convolution_takes_a_channel_bias_but_not_a_positional_one(tmp_path: Path) -> None:
    for shift, expected in (((3, 1, 1), ["Conv"]), ((1, 1, 3, 3), ["Conv", "Scale"]), ((1,), ["Conv"])):
        nodes = [node("Conv", ("x", "w"), ("z",)), node("Add", ("z", "b"))]
        network = load_nodes(tmp_path, nodes, (1, 2, 5, 5), constants={"w": normal(3, 2, 3, 3), "b": normal(*shift)})
        assert names(network.graph) == ["Input", *expected]
        replay(network)


def test_a_layer_that_others_read_keeps_its_value(tmp_path: Path) -> None:
    nodes = [node("MatMul", ("x", "w"), ("a",)), node("Add", ("a", "b"), ("c",)), node("Mul", ("a", "c"))]
    network = load_nodes(tmp_path, nodes, (1, 3), constants={"w": normal(3, 3), "b": normal(3)})
    assert names(network.graph) == ["Input", "Linear", "Scale", "Multiply"]
    replay(network)


def test_a_second_constant_is_not_added_to_the_bias(tmp_path: Path) -> None:
    nodes = [node("Gemm", ("x", "w", "b"), ("a",)), node("Add", ("a", "b"))]
    network = load_nodes(tmp_path, nodes, (1, 3), constants={"w": normal(3, 3), "b": normal(3)})
    assert names(network.graph) == ["Input", "Linear", "Scale"]
    replay(network)


def test_moves_merge() -> None:
    x = torch.arange(24, dtype=torch.float64).reshape(1, 2, 3, 4)
    index = torch.randperm(24)[:12].reshape(3, 4)
    gaps = torch.tensor([[-1, 3], [11, -1]])
    graph = Graph(
        (
            Node("x", Input(), (), (2, 3, 4)),
            Node("a", Reshape((2, 3, 4), (6, 4)), (0,), (6, 4)),
            Node("b", Select(index, (6, 4)), (1,), (3, 4)),
            Node("c", Permute((1, 0)), (2,), (4, 3)),
            Node("d", Permute((1, 0)), (3,), (3, 4)),
            Node("e", Permute((1, 0)), (4,), (4, 3)),
            Node("f", Reshape((4, 3), (2, 6)), (5,), (2, 6)),
            Node("g", Select(gaps, (2, 6)), (6,), (2, 2)),
            Node("h", Relu(), (7,), (2, 2)),
        ),
        8,
    )
    simple = simplify(graph)
    assert names(simple) == ["Input", "Select", "Relu"]
    assert torch.equal(simple.evaluate(x), graph.evaluate(x))


def test_a_move_that_others_read_stays() -> None:
    nodes = [
        node("Transpose", ("x",), ("a",), perm=[1, 0, 2]),
        node("Transpose", ("a",), ("b",), perm=[1, 0, 2]),
        node("Mul", ("b", "c"), ("d",)),
        node("ReduceSum", ("a",), ("e",), keepdims=1),
        node("Add", ("d", "e")),
    ]
    graph = import_graph(build(nodes, (2, 2, 3), {"c": normal(2, 2, 3)}))
    x = torch.randn(4, 2, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(simplify(graph).evaluate(x), graph.evaluate(x), rtol=1e-14, atol=1e-14)


def test_nothing_to_do_returns_the_same_graph() -> None:
    graph = simplify(import_graph(build([node("Relu")], (1, 3))))
    assert simplify(graph) is graph
