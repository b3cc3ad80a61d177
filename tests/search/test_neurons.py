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
    Small,
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
from verifier.bounding.dual import Dual
from verifier.bounding.program import prepare
from verifier.core.graph import Graph
from verifier.core.problem import Problem, build_problem
from verifier.core.query import Query
from verifier.ops import Linear, Relu
from verifier.search.branching.input_effect import input_effect
from verifier.search.branching.neurons_first import neurons_first
from verifier.search.branching.rule import Choices, Rule
from verifier.search.neurons import NeuronSearch, objective_of
from verifier.search.root import Root
from verifier.search.subproblems import Kept, Subproblems
from verifier.search.task import Limits, Outcome, Task
from verifier.settings import AscentSettings, SearchSettings

CLOSE = 1e-4  # margins below this may be left undecided
NEVER = Limits(deadline=float("inf"), memory=1 << 30)
BATCHES = 2000
HASTY = AscentSettings(iterations=2)  # poor bounds: many splits
answers: dict[bool, int] = {True: 0, False: 0}


class InTurn:
    """New bounds in every other batch: what a search measures must not decide what is tested."""

    def __init__(self) -> None:
        self.last = False

    def choose(self) -> bool:
        self.last = not self.last
        return self.last

    def note(self, *_: float) -> None:
        pass


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
    graph: Graph,
    query: Query,
    settings: SearchSettings | None = None,
    limits: Limits = NEVER,
    rule: Rule = neurons_first,
) -> NeuronSearch:
    settings = settings or SearchSettings()
    program = prepare(graph, torch.float32)
    problem = build_problem(query, torch.float32, "cpu")
    exact = build_problem(query, torch.float64, "cpu")
    precise = lambda: prepare(graph, torch.float64)  # noqa: E731
    task = Task(problem, program, precise, settings, limits, Confirm(graph, exact), rule=rule)
    root = Root(task, problem.real)
    root.tighten()
    search = NeuronSearch(*root.subproblems(), task)
    search.refreshing = InTurn()  # type: ignore[assignment]
    return search


def outcome_of(search: NeuronSearch) -> Outcome:
    """At most `BATCHES` batches."""
    for _ in range(BATCHES):
        outcome = search.run(pause=0.0)
        if outcome.found or not outcome.open:
            return outcome
    return outcome


def check(
    graph: Graph,
    parts: list[Part],
    settings: SearchSettings | None = None,
    limits: Limits = NEVER,
    rule: Rule = neurons_first,
) -> None:
    with torch.no_grad():
        outcome = outcome_of(search_of(graph, query_of(parts), settings, limits, rule))
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
    graph = small_graph(activation, shape, 2)
    check(graph, random_parts(graph, 1, 1, 1, 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_disjunctions_of_conjunctions_over_several_boxes(activation: str, shape: str) -> None:
    graph = small_graph(activation, shape, 102)
    check(graph, random_parts(graph, 2, 3, 4, 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hardly_violated_and_hardly_not(activation: str, shape: str) -> None:
    """Violations in one corner of one region, which nothing but a search of all of the box comes upon."""
    for seed in range(2):
        graph = small_graph(activation, shape, seed + 50)
        ((lower, upper, ((c, d, b),)),) = random_parts(graph, 1, 1, 1 + seed, seed)
        least = least_margin(graph, lower, upper, [(c, d, b)])
        for miss in (0.002, -0.002):
            check(graph, [(lower, upper, [(c, d, b + least - miss)])])


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


def worst_first(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    """What the default rule would split last."""
    choices = neurons_first(kept, domains, dual, kept.sites.count + 2, exponent)
    possible = choices.score > -torch.inf
    return replace(choices, score=torch.where(possible, -choices.score, -torch.inf)).best(most)


@pytest.mark.parametrize("rule", [input_effect, worst_first])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_rule_of_branching_leads_to_the_same_answers(shape: str, rule: Rule) -> None:
    graph = small_graph("relu", shape, 400)
    check(graph, random_parts(graph, 2, 2, 2, 0), rule=rule)


def no_choice(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    choices = neurons_first(kept, domains, dual, most, exponent)
    return replace(choices, score=torch.full_like(choices.score, -torch.inf))


def test_where_the_rule_has_no_choice_nothing_is_split() -> None:
    graph = small_graph("relu", "two layers", 1)
    search = search_of(graph, near_miss(graph, -0.01), rule=no_choice)
    search.expander.candidates = lambda points, which: False
    outcome = search.run(pause=0.0)
    assert (outcome.stuck, outcome.open, outcome.found, outcome.complete) == (1, 0, False, False)


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


def test_the_rows_of_an_objective_are_those_of_its_disjunct() -> None:
    """In every box, whatever other disjuncts it has: each of them at least once, and no others."""
    graph = small_graph("relu", "two layers", 1)
    query = query_of(random_parts(graph, 4, 4, 4, 5))
    program, problem = prepare(graph, torch.float32), build_problem(query, torch.float32, "cpu")
    which, slot = problem.real.nonzero().T
    objective = objective_of(problem, program, which, slot)
    outputs, ends = objective.rows[graph.output].flatten(2), objective.offset
    inputs = objective.rows[0].flatten(2) if 0 in objective.rows else torch.zeros(*ends.shape, 2)
    found = torch.cat([inputs, outputs, -ends.unsqueeze(2)], 2)
    for place, disjunct in enumerate(query.disjuncts):
        expected = {(*dense(row.inputs), *dense(row.outputs), float(row.bound)) for row in disjunct.rows}
        assert {tuple(row) for row in found[place].tolist()} == expected


def dense(terms: tuple[tuple[int, Fraction], ...]) -> list[float]:
    return [float(dict(terms).get(index, 0)) for index in range(2)]


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


def near_miss(graph: Graph, miss: float) -> Query:
    """`2 y_0 - y_1 / 4` falls short of a bound by `miss`, at least."""
    c, d = np.array([[2.0, -0.25]]), np.zeros((1, 2))
    box = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    free = least_margin(graph, *box, [(c, d, np.zeros(1))])
    return query_of([(*box, [(c, d, np.array([free - miss]))])])


@pytest.mark.parametrize("refresh", [False, True])
def test_a_subproblem_that_contradicts_itself_is_dropped(refresh: bool) -> None:
    """Else it is split down to points, and stuck there."""
    graph = small_graph("relu", "two layers", 1)
    search = search_of(graph, near_miss(graph, -0.01), SearchSettings(root=HASTY, neurons=HASTY, ascent=HASTY))
    roots = search.frontier.pop(1)
    source = next(iter(roots.neurons))
    old = roots.neurons[source]
    beyond = replace(old, lower=old.upper + 0.5, upper=old.upper + 1)
    expanded = search.expander.expand(roots.replace(neurons={**roots.neurons, source: beyond}), refresh, 1)
    assert not len(expanded.children) and not len(expanded.stuck) and not expanded.found


@pytest.mark.parametrize("refresh", [False, True])
def test_a_batch_with_a_violation_is_not_counted_as_proved(refresh: bool) -> None:
    graph = small_graph("relu", "two layers", 1)
    search = search_of(graph, near_miss(graph, -0.01), SearchSettings(root=HASTY, neurons=HASTY, ascent=HASTY))
    search.expander.candidates = lambda points, which: True
    search.refreshing.choose = lambda: refresh  # type: ignore[method-assign]
    outcome = search.run()
    assert outcome.found and outcome.open and not outcome.complete and outcome.proved < 1
    assert search.undecided(1).tolist() == [True]


def test_close_calls_are_bounded_in_double_precision() -> None:
    """Values near 8192 that cancel: the margin is below what single precision can tell."""
    b = Small(1, 2, seed=3)
    shift = torch.full((6,), 8192.0, dtype=torch.float64)
    hidden = b.same(Relu(), b.add(Linear((b.normal(6, 2) * 16).round() / 16, shift), [0], (1, 6)))
    weight = (b.normal(2, 6) * 16).round() / 16
    b.add(Linear(weight, -weight @ shift), [hidden], (1, 2))
    query = near_miss(b.graph(), 0.002)
    assert outcome_of(search_of(b.graph(), query)).complete
    careless = search_of(b.graph(), query)
    careless.expander._recheck = lambda domains, found, objective, optimum, bound: bound  # type: ignore[method-assign]
    for _ in range(3):
        assert not careless.run(pause=0.0).complete
