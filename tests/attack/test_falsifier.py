"""The attack finds what is there, and believes only the original."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.attack.questions import network, query_of, row
from verifier.attack import hunt
from verifier.attack.falsifier import Falsifier, Original
from verifier.core.graph import Graph, Input, Node
from verifier.core.problem import build_problem
from verifier.core.query import Query, Row
from verifier.ops import Abs, Floor, Linear, Relu, Sign
from verifier.settings import AttackSettings

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
SETTINGS = AttackSettings()
UNIT = (0.0, 1.0)


def falsifier(graph: Graph, query: Query, honest: bool = True, device: str = "cpu") -> Falsifier:
    def run(x: np.ndarray) -> np.ndarray:
        y = graph.evaluate(torch.from_numpy(x)).numpy()
        return y if honest else 0 * y

    original = Original(run, np.float32, graph.input_shape)
    return Falsifier(graph.to(torch.float32, device), build_problem(query, torch.float32, device), query, original, 0)


def attack(found: Falsifier) -> bool:
    with torch.no_grad():
        return found.quick(SETTINGS) or found.thorough(SETTINGS)


def bump(width: float) -> Graph:
    """y = relu(x - (1 - width)) of the first of 20 inputs in [0, 1]: positive in a thin slab only."""
    weight = torch.zeros(1, 20)
    weight[0, 0] = 1.0
    nodes = (
        Node("x", Input(), (), (1, 20)),
        Node("z", Linear(weight, torch.tensor([width - 1.0])), (0,), (1, 1)),
        Node("y", Relu(), (1,), (1, 1)),
    )
    return Graph(nodes, 2)


AT_LEAST = (Row((), ((0, Fraction(-1)),), Fraction(-9, 1000)),)  # y >= 0.009


@pytest.mark.parametrize("device", DEVICES)
def test_descent_reaches_a_thin_slab(device: str) -> None:
    found = falsifier(bump(0.5), query_of([(UNIT,) * 20], AT_LEAST), device=device)
    assert attack(found)
    assert found.witness is not None and float(found.witness.y[0, 0]) >= 0.009


def test_only_the_original_counts() -> None:
    liar = falsifier(bump(0.5), query_of([(UNIT,) * 20], AT_LEAST), honest=False)
    assert not attack(liar) and liar.witness is None


@pytest.mark.parametrize("device", DEVICES)
def test_steps_do_not_stop_it(device: str) -> None:
    """The sign of a sum of 40 inputs, positive in a corner that no random point meets."""
    graph = network(40, Sign())
    query = query_of([((-1.0, 0.026),) * 40], [row({0: -1}, -1)])
    assert attack(falsifier(graph, query, device=device))


@pytest.mark.parametrize("device", DEVICES)
def test_few_inputs_are_searched_all_over(device: str) -> None:
    """One cell of 62 times 62, and no slope leads there."""
    weight, corner = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([-41.0, -7.0])
    nodes = (
        Node("x", Input(), (), (1, 2)),
        Node("cell", Floor(), (0,), (1, 2)),
        Node("away", Linear(weight, corner), (1,), (1, 2)),
        Node("distance", Abs(), (2,), (1, 2)),
        Node("hit", Linear(torch.tensor([[-1.0, -1.0]]), torch.tensor([1.0])), (3,), (1, 1)),
        Node("y", Relu(), (4,), (1, 1)),
    )
    query = query_of([((0, 62), (0, 62))], [row({0: -1}, -1)])
    found = falsifier(Graph(nodes, 5), query, device=device)
    assert attack(found)
    assert found.witness is not None and np.floor(found.witness.x).tolist() == [[41.0, 7.0]]


def test_every_disjunct_of_every_box_is_tried() -> None:
    """Only the last of 12 disjuncts, in the last of 7 boxes, can be met."""
    boxes: list[Sequence[tuple[float, float]]] = [((low, low + 1),) * 20 for low in range(7)]
    disjuncts = [[row({0: 1}, -bound)] for bound in range(2, 13)]
    found = falsifier(network(20), query_of(boxes, *disjuncts, [row({0: -1}, -138.9)]))
    assert attack(found)
    assert found.witness is not None and (found.witness.x > 6.9).all()


def test_what_the_search_suspects_is_improved() -> None:
    """Near, but no violation: a few steps make it one. The first time there is no time for them yet."""
    found = falsifier(network(20), query_of([(UNIT,) * 20], [row({0: -1}, -18.9)]))
    near, box = torch.full((3, 1, 20), 0.9), torch.zeros(3, dtype=torch.long)
    with torch.no_grad():
        assert not found.suspects(near, box)
        assert found.suspects(near, box) and found.witness is not None


@pytest.mark.parametrize(("deadline", "done"), [(-1.0, 0), (1.0, 1), (6.5, 2), (float("inf"), 5)])
def test_descent_ends_where_there_is_no_time_for_a_step_like_the_last(
    deadline: float, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seen = 0.0, 0
    monkeypatch.setattr(hunt, "time", SimpleNamespace(monotonic=lambda: now))
    for _ in hunt._stepped(SimpleNamespace(blind=False, step=lambda: None), 5, deadline):  # type: ignore[arg-type]
        now, seen = now + 3.0, seen + 1
    assert seen == done
