"""Replay must let rounding pass and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.frontend.onnx_models import load_nodes, node
from verifier.core.graph import Graph
from verifier.core.operator import Op
from verifier.core.query import Box, Disjunct, Query
from verifier.core.verdict import Status
from verifier.errors import ModelError, ReplayError
from verifier.frontend.network import Network
from verifier.frontend.replay import replay
from verifier.ops import Floor, Linear, Scale
from verifier.pipeline import verify

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "a": RANDOM.standard_normal((20, 30)).astype(np.float32),
    "b": RANDOM.standard_normal(30).astype(np.float32),
    "c": RANDOM.standard_normal((30, 5)).astype(np.float32),
}
LAYERS = [
    node("MatMul", ("x", "a"), ("p",)),
    node("Add", ("p", "b"), ("q",)),
    node("Sigmoid", ("q",), ("r",)),
    node("MatMul", ("r", "c"), ("y",)),
]


def with_op(network: Network, position: int, op: Op) -> Network:
    nodes = list(network.graph.nodes)
    nodes[position] = replace(nodes[position], op=op)
    return replace(network, graph=Graph(tuple(nodes), network.graph.output))


def test_agreement_is_measured(tmp_path: Path) -> None:
    assert 0 < replay(load_nodes(tmp_path, LAYERS, (1, 20), constants=WEIGHTS)) < 1e-5


@pytest.mark.parametrize("error", [1e-4, 1e-2, 1.0])
def test_a_single_wrong_weight_is_found(error: float, tmp_path: Path) -> None:
    network = load_nodes(tmp_path, LAYERS, (1, 20), constants=WEIGHTS)
    layer = network.graph.nodes[1].op
    assert isinstance(layer, Linear)
    weight = layer.weight.clone()
    weight[0, 0] += 100 * error
    with pytest.raises(ReplayError, match=r"model\.onnx.*disagree"):
        replay(with_op(network, 1, replace(layer, weight=weight)))


def test_a_network_for_which_there_is_no_time_is_not_taken_for_compared(tmp_path: Path) -> None:
    network = load_nodes(tmp_path, LAYERS, (1, 20), constants=WEIGHTS)
    assert replay(network, deadline=-1.0) is None
    box = Box((Fraction(0),) * 20, (Fraction(1),) * 20)
    question = Query(20, math.prod(network.output_shape), (Disjunct(box, ()),))
    verdict = verify(network, question, timeout=1e-9)
    assert verdict.status is Status.TIMEOUT and "onnxruntime" in verdict.reason


@pytest.mark.parametrize(("seconds", "compared"), [(0.0, 2), (float("inf"), 8)])
def test_a_network_that_takes_long_is_compared_at_few_points(
    seconds: float, compared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen, run = load_nodes(tmp_path, LAYERS, (1, 20), constants=WEIGHTS), [], Network.run
    monkeypatch.setattr(Network, "run", lambda self, x: (seen.append(x), run(self, x))[1])
    replay(network, seconds=seconds)
    assert len(seen) == compared
    layer = network.graph.nodes[1].op
    assert isinstance(layer, Linear)
    with pytest.raises(ReplayError, match=f"of {compared} inputs"):
        replay(with_op(network, 1, replace(layer, weight=1.01 * layer.weight)), seconds=seconds)


def test_a_wrong_graph_with_steps_is_found(tmp_path: Path) -> None:
    network = load_nodes(
        tmp_path, [node("Floor", ("x",), ("z",)), node("Mul", ("z", "c"))], (1, 6), constants={"c": np.float32(3)}
    )
    replay(network)
    with pytest.raises(ReplayError):
        replay(with_op(network, 2, Scale(torch.tensor(3.5, dtype=torch.float64))))


def test_a_jump_at_a_tie_is_excused_but_not_everywhere(tmp_path: Path) -> None:
    """Our graph's threshold is off by one rounding, as another order of summation could make it."""
    threshold = np.float32(0.3)
    nodes = [node("Sub", ("x", "c"), ("p",)), node("Sign", ("p",))]
    network = load_nodes(tmp_path, nodes, (1, 1), constants={"c": threshold})
    shift = torch.tensor(-float(np.nextafter(threshold, np.float32(1))), dtype=torch.float64)
    rounded = with_op(network, 1, Scale(None, shift))
    tie, clear = np.array([[threshold]]), np.array([[0.7]])
    replay(rounded, np.stack([tie, clear, clear]))
    with pytest.raises(ReplayError):
        replay(rounded, tie)
    with pytest.raises(ReplayError):
        replay(with_op(network, 1, Scale(None, shift * 1.001)), np.stack([tie, clear, clear]))


def test_a_floor_in_the_wrong_place_is_not_excused(tmp_path: Path) -> None:
    network = load_nodes(tmp_path, [node("Ceil")], (1, 4))
    with pytest.raises(ReplayError):
        replay(with_op(network, 1, Floor()))


def test_inputs_that_onnxruntime_refuses(tmp_path: Path) -> None:
    nodes = [node("Cast", ("x",), ("i",), to=7), node("Gather", ("c", "i"))]
    network = load_nodes(tmp_path, nodes, (1,), constants={"c": np.array([1.5, 2.5], dtype=np.float32)})
    assert replay(network, np.array([[0.0], [5.0], [1.0]])) == 0
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        replay(network, np.array([[5.0]]))


def test_not_a_number_must_be_shared(tmp_path: Path) -> None:
    network = load_nodes(tmp_path, [node("Log")], (1, 1))
    replay(network, np.array([[-1.0], [0.0], [2.0]]))
    with pytest.raises(ReplayError):
        replay(with_op(network, 1, Scale()), np.array([[-1.0], [1.0]]))
