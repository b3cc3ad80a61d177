"""Every point of the real network is in the program, and in every cut, in exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.backends.points import between, columns_at, in_phases, inside
from tests.backends.test_checked import pooled, subproblems
from tests.search.questions import ACTIVATIONS, SHAPES, random_parts, small_graph
from tests.soundness.exact import fractions
from verifier.backends.encoding import Encoding, encode
from verifier.backends.envelope import Envelopes
from verifier.backends.mixed import mixed_program
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.problem import Problem
from verifier.ops import Maximum, Minimum

POINTS = 6


@dataclass(frozen=True)
class Case:
    program: Program
    problem: Problem
    found: NodeBounds
    encoding: Encoding


def encoded(graph: Graph, seed: int) -> Case:
    subproblem = subproblems(graph, random_parts(graph, 1, 1, 2, seed), "interval")[0]
    return Case(subproblem.program, subproblem.problem, subproblem.found, encode(subproblem))


def exact_point(case: Case, x: torch.Tensor) -> list[Fraction]:
    """The columns at an input whose values are all exact in double precision."""
    graph, problem = case.program.graph, case.problem
    found = graph.evaluate_all(x.reshape(1, 1, 2))
    values = [fractions(found[position]) for position in range(len(graph.nodes))]
    margins = problem.margins(x.reshape(1, 2), flat(found[graph.output]), torch.tensor([0]))
    return columns_at(case.encoding, graph, values, max(fractions(margins)))


def check(graph: Graph, seed: int) -> None:
    case = encoded(graph, seed)
    problem, encoding = case.problem, case.encoding
    generator, linear = np.random.default_rng(seed), encoding.program
    lower, upper = flat(problem.box.lower)[0].numpy(), flat(problem.box.upper)[0].numpy()
    envelopes, mixed = Envelopes(encoding), mixed_program(encoding)
    wanted = np.ones(len(encoding.neurons), dtype=bool)
    cuts = [envelopes.at(generator.uniform(linear.lower, linear.upper), wanted) for _ in range(5)]
    for _ in range(POINTS):
        x = np.clip(np.round(generator.uniform(lower, upper) * 64) / 64, lower, upper)
        point = exact_point(case, torch.from_numpy(x))
        assert between(linear.lower, linear.upper, point)
        assert inside(linear.matrix, linear.low, linear.high, point)
        assert inside(mixed.matrix, mixed.low, mixed.high, in_phases(encoding, point))
        for cut in cuts:
            assert inside(cut.matrix, np.full(len(cut.high), -np.inf), cut.high, point)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_real_points_are_inside(activation: str, shape: str) -> None:
    check(small_graph(activation, shape, 3), 3)


@pytest.mark.parametrize("op", [Maximum(), Minimum()], ids=["max", "min"])
def test_real_points_of_the_largest_of_several(op: Maximum | Minimum) -> None:
    for count in (2, 3):
        check(pooled(op, 5, count), 5)


def test_cuts_are_tight_at_corners() -> None:
    """A cut for a corner of the box, where the envelope is the function itself, is off by rounding only."""
    case = encoded(small_graph("relu", "one layer", 3), 3)
    problem, encoding = case.problem, case.encoding
    corner = torch.stack([flat(problem.box.lower)[0, 0], flat(problem.box.upper)[0, 1]])
    point = np.array([float(v) for v in exact_point(case, corner)])
    columns = encoding.neurons.columns[:, 1]
    raised = point.copy()
    raised[columns] += 1.0  # far above every envelope
    cuts = Envelopes(encoding).at(raised, np.ones(len(columns), dtype=bool))
    assert len(cuts.high) == len(columns)
    assert np.abs(cuts.matrix @ point - cuts.high).max() < 1e-10
