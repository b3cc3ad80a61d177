"""The search over neurons alone, on hundreds of small networks, against an enumeration of all activation regions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.search.questions import (
    ACTIVATIONS,
    SHAPES,
    Part,
    margin_of,
    query_of,
    random_disjunct,
    random_parts,
    small_graph,
    values_at,
)
from tests.soundness.polygons import least_margin
from tests.soundness.regions import Layers
from tests.soundness.regions import least_margin as least_margin_by_programs
from verifier.bounding.program import prepare
from verifier.core.events import ignore
from verifier.core.graph import Graph
from verifier.core.problem import Problem, build_problem
from verifier.core.query import Query
from verifier.ops import Linear
from verifier.search.neurons import NeuronSearch
from verifier.search.outcome import Limits, Outcome
from verifier.search.root import open_root
from verifier.settings import AscentSettings, SearchSettings

CLOSE = 1e-4  # margins below this may be left undecided
NEVER = Limits(deadline=float("inf"), memory=1 << 30)
BATCHES = 400
HASTY = AscentSettings(iterations=2)  # poor bounds: many splits
answers: dict[bool, int] = {True: 0, False: 0}


class Confirm:
    """Says whether one of the points is a violation, in double precision, and that all are in their boxes."""

    def __init__(self, graph: Graph, problem: Problem) -> None:
        self.graph, self.problem = graph, problem

    def __call__(self, points: Tensor, which: Tensor) -> bool:
        points = points.reshape(len(which), 2)
        box = self.problem.box.select(which)
        assert (box.lower <= points).all() and (points <= box.upper).all()
        return bool((self.problem.closest(points.double(), values_at(self.graph, points), which) <= 0).any())


def search_of(
    graph: Graph, query: Query, settings: SearchSettings | None = None, limits: Limits = NEVER
) -> NeuronSearch:
    settings = settings or SearchSettings()
    program = prepare(graph, torch.float32)
    problem = build_problem(query, torch.float32, "cpu")
    exact = build_problem(query, torch.float64, "cpu")
    kept, roots = open_root(program, problem, problem.real, settings, limits)
    confirm = Confirm(graph, exact)
    precise = lambda: prepare(graph, torch.float64)  # noqa: E731
    return NeuronSearch(kept, roots, precise, problem, settings, limits, confirm, ignore)


def outcome_of(search: NeuronSearch) -> Outcome:
    """At most `BATCHES` batches."""
    for _ in range(BATCHES):
        outcome = search.run(pause=0.0)
        if outcome.found or not outcome.open:
            return outcome
    return outcome


def check(graph: Graph, parts: list[Part], settings: SearchSettings | None = None, limits: Limits = NEVER) -> None:
    with torch.no_grad():
        outcome = outcome_of(search_of(graph, query_of(parts), settings, limits))
        margin = margin_of(graph, parts)
    what = f"{outcome}, but the least margin is {margin}"
    if margin > CLOSE:
        assert outcome.complete and outcome.proved == 1.0, what
    if margin < -CLOSE:
        assert outcome.found, what
    if outcome.complete:
        assert margin > -1e-9, what
        answers[False] += 1
    if outcome.found:
        assert margin < 1e-9, what
        answers[True] += 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_row(activation: str, shape: str) -> None:
    for seed in range(3):
        graph = small_graph(activation, shape, seed)
        check(graph, random_parts(graph, 1, 1, 1, seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_disjunctions_of_conjunctions_over_several_boxes(activation: str, shape: str) -> None:
    for seed in range(2):
        graph = small_graph(activation, shape, seed + 100)
        check(graph, random_parts(graph, 1 + 2 * seed, 3, 4, seed))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_many_more(activation: str, shape: str) -> None:
    for seed in range(1000, 1040):
        graph = small_graph(activation, shape, seed)
        check(graph, random_parts(graph, 1 + seed % 3, 1 + seed % 4, 1 + seed % 5, seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_poor_bounds_and_single_splits(shape: str) -> None:
    """Without the ascent and without splitting several times at once: other paths to the same answers."""
    settings = SearchSettings(root=HASTY, neurons=HASTY, ascent=HASTY, levels=1, batch=5)
    for seed in range(2):
        graph = small_graph("relu", shape, seed + 200)
        check(graph, random_parts(graph, 2, 2, 2, seed), settings)


def test_little_memory() -> None:
    limits = replace(NEVER, memory=64 << 20)
    for seed in range(4):
        graph = small_graph("relu", "two layers", seed + 300)
        check(graph, random_parts(graph, 2, 3, 3, seed), None, limits)


def test_both_answers_occurred() -> None:
    """A guard of the tests above: a generator of one answer would prove little."""
    if sum(answers.values()) < 180:
        pytest.skip("the networks were not all run in this process")
    assert min(answers.values()) >= 60, answers


def test_the_enumeration_agrees_with_linear_programs() -> None:
    for seed in range(6):
        graph = small_graph("relu", "two layers", seed)
        parts = random_parts(graph, 1, 2, 3, seed)
        layers = [node.op for node in graph.nodes if isinstance(node.op, Linear)]
        weights, biases = [op.weight.numpy() for op in layers], [op.offset().numpy() for op in layers]
        for lower, upper, disjuncts in parts:
            expected = least_margin_by_programs(Layers(weights, biases), lower, upper, disjuncts)
            assert least_margin(graph, lower, upper, disjuncts) == pytest.approx(expected, abs=1e-6)


def test_disjuncts_with_different_numbers_of_rows() -> None:
    """The one with most rows is proved early; the others go on in batches of their own."""
    graph = small_graph("relu", "two layers", 7)
    box = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    generator = np.random.default_rng(3)
    hard = random_disjunct(graph, box, 2, generator)
    far = np.eye(2)[[0, 0, 1]], np.zeros((3, 2)), np.array([-60.0, -60.0, -60.0])
    near = (hard[0], hard[1], hard[2] + least_margin(graph, *box, [hard]) - 0.01)
    settings = SearchSettings(root=HASTY, neurons=HASTY, batch=2)
    check(graph, [(*box, [near, far])], settings)
    three = (np.vstack([near[0], near[0][:1]]), np.vstack([near[1], near[1][:1]]), np.append(near[2], near[2][0] - 0.3))
    check(graph, [(*box, [near, three, near])], settings)
