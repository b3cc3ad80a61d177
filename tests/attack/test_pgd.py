"""The attack finds what is there, believes only the original, and reads disjuncts as the property means them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from verifier.attack.falsifier import Falsifier, Original
from verifier.attack.margin import random_points, violation_margin
from verifier.attack.pgd import Target
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.ops import Linear, Relu
from verifier.search.problem import build_problem
from verifier.settings import AttackSettings


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


def falsifier(graph: Graph, rows: tuple[Row, ...], honest: bool = True) -> Falsifier:
    query = Query(20, 1, (Disjunct(Box((Fraction(0),) * 20, (Fraction(1),) * 20), rows),))
    problem = build_problem(query, torch.float32, "cpu")
    box = problem.box.reshape(-1, 1, 20)

    def run(x: np.ndarray) -> np.ndarray:
        y = graph.evaluate(torch.from_numpy(x)).numpy()
        return y if honest else 0 * y

    target = Target(box, problem.margins, problem.owner, problem.disjuncts)
    return Falsifier(graph, target, query, Original(run, np.float32, (1, 20)), seed=0)


AT_LEAST = (Row((), ((0, Fraction(-1)),), Fraction(-9, 1000)),)  # y >= 0.009


def test_descent_reaches_a_thin_slab() -> None:
    found = falsifier(bump(0.5), AT_LEAST)
    assert found.quick(AttackSettings()) or found.thorough(AttackSettings())
    assert found.witness is not None and float(found.witness.y[0, 0]) >= 0.009


def test_only_the_original_counts() -> None:
    liar = falsifier(bump(0.5), AT_LEAST, honest=False)
    assert not liar.quick(AttackSettings()) and not liar.thorough(AttackSettings())
    assert liar.witness is None


def test_margin_of_a_disjunct_is_its_worst_row() -> None:
    margins = torch.tensor([[1.0, -2.0, -3.0, torch.nan]])
    found = violation_margin(margins, torch.tensor([[0, 0, 1, 2]]), 4)
    assert found[0, :2].tolist() == [1.0, -3.0]
    assert found[0, 2] > 0, "a NaN margin never violates"
    assert found[0, 3] == -torch.inf, "a disjunct without rows is violated anywhere"


def test_points_stay_in_their_box_and_start_at_the_centre() -> None:
    box = Interval(torch.tensor([[0.1, -3.0], [5.0, 5.0]]), torch.tensor([[0.3, 4.0], [5.0, 6.0]]))
    points = random_points(box, 9, torch.Generator().manual_seed(1))
    assert (points >= box.lower.unsqueeze(1)).all() and (points <= box.upper.unsqueeze(1)).all()
    torch.testing.assert_close(points[:, 0], (box.lower + box.upper) / 2)
