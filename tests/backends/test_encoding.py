"""Every point of the real network is in the program, and in every cut, in exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.backends.test_checked import pooled, subproblems
from tests.search.questions import ACTIVATIONS, SHAPES, random_parts, small_graph
from verifier.backends.encoding import Encoding, encode
from verifier.backends.envelope import Envelopes
from verifier.backends.mixed import mixed_program
from verifier.backends.neurons import NodeNeurons, node_neurons
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
    program, encoding, problem = case.program, case.encoding, case.problem
    values = program.graph.evaluate_all(x.reshape(1, 1, 2))
    neurons, point = encoding.neurons, [Fraction(v) for v in x.tolist()]
    point += [Fraction(0)] * (len(encoding.program.cost) - len(point))
    seen: dict[int, int] = {}
    for number, node in enumerate(neurons.node.tolist()):
        place = seen[node] = seen.get(node, -1) + 1
        _fill(case, values, number, node_neurons(program, case.found, node, {}), place, point)
    margins = problem.margins(x.reshape(1, 2), flat(values[program.graph.output]), torch.tensor([0]))
    point[-1] = max(Fraction(v) for v in margins[0].tolist())
    return point


def _fill(
    case: Case, values: dict[int, torch.Tensor], number: int, group: NodeNeurons, place: int, point: list[Fraction]
) -> None:
    """The columns of one neuron, the `place`-th of its node."""
    neurons, real = case.encoding.neurons, case.encoding.neurons.real[number]
    columns, node = neurons.columns[number][real].tolist(), int(neurons.node[number])
    element, sources = int(group.elements[place]), case.program.graph.nodes[node].inputs
    if neurons.bend[number]:
        left = Fraction(float(flat(values[sources[0]])[0, element])) - Fraction(float(neurons.start[number]))
        for column, size in zip(columns, neurons.sizes[number][real].tolist(), strict=True):
            point[column] = min(max(left / Fraction(size), Fraction(0)), Fraction(1))
            left -= Fraction(size)
        return
    y = Fraction(float(flat(values[node])[0, element]))
    arguments = group.source[place][real[: group.source.shape[1]]].tolist()
    for column, gain, argument in zip(columns, neurons.gains[number][real].tolist(), arguments, strict=True):
        point[column] = (y - Fraction(float(flat(values[sources[argument]])[0, element]))) / Fraction(gain or 1)


def inside(matrix: np.ndarray, low: np.ndarray, high: np.ndarray, point: list[Fraction]) -> bool:
    for row, least, most in zip(matrix.tolist(), low.tolist(), high.tolist(), strict=True):
        value = sum((Fraction(a) * v for a, v in zip(row, point, strict=True) if a), Fraction(0))
        if (np.isfinite(least) and value < Fraction(least)) or (np.isfinite(most) and value > Fraction(most)):
            return False
    return True


def in_phases(encoding: Encoding, point: list[Fraction]) -> list[Fraction]:
    """The columns of the mixed-integer program: a binary is 1 where its column has begun, idle columns are left out."""
    neurons = encoding.neurons
    bend, slot = neurons.bend[:, None], np.arange(neurons.real.shape[1])
    marked = neurons.real & (~bend | (slot > 0))
    idle = neurons.columns[neurons.bend & (neurons.real.sum(1) > 1) & (neurons.gains[:, 0] == 0), 0]
    binaries = [Fraction(point[column] > 0) for column in neurons.columns[marked].tolist()]
    return [value for column, value in enumerate(point) if column not in idle] + binaries


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
        ends = zip(linear.lower.tolist(), point, linear.upper.tolist(), strict=True)
        assert all(Fraction(low) <= value <= Fraction(high) for low, value, high in ends)
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
