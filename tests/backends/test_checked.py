"""Exact answers on small networks against an enumeration of all activation regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.search.questions import ACTIVATIONS, SHAPES, Part, Small, margin_of, query_of, random_parts, small_graph
from tests.soundness.polygons import least_margin
from verifier.backends import tree
from verifier.backends.checked import Checked
from verifier.backends.protocol import Answer, Budget
from verifier.backends.subproblem import Subproblem
from verifier.bounding.engine import bound_nodes
from verifier.bounding.program import Program, prepare
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.problem import Problem, build_problem
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.ops import Abs, Conv, LeakyRelu, Log, Maximum, Minimum, Relu, Reshape
from verifier.ops.window import Window

CLOSE = 1e-6  # margins below this may be left undecided
answers: dict[Status, int] = {Status.SAT: 0, Status.UNSAT: 0}


def prepared(graph: Graph, parts: list[Part]) -> tuple[Program, Problem]:
    return prepare(graph, torch.float64), build_problem(query_of(parts), torch.float64, "cpu")


def subproblems(graph: Graph, parts: list[Part], method: str = "crown") -> list[Subproblem]:
    """One for each disjunct of each box."""
    program, problem = prepared(graph, parts)
    box = problem.box.reshape(-1, *program.graph.input_shape)
    with torch.no_grad():
        found = bound_nodes(program, box, method)
    one = lambda which: slice(which, which + 1)  # noqa: E731
    return [
        Subproblem(program, found.select(one(which)), problem, box.select(one(which)), which, disjunct)
        for which, disjunct in problem.real.nonzero().tolist()
    ]


def solve(subproblem: Subproblem, budget: Budget | None = None) -> Answer:
    """Seeming violations are looked at."""
    answer = Checked().solve(subproblem, budget or Budget())
    if answer.status is Status.SAT:
        assert answer.point is not None
        assert subproblem.margin(answer.point) <= 0
        assert (subproblem.box.lower[0] <= answer.point).all() and (answer.point <= subproblem.box.upper[0]).all()
    return answer


def check(graph: Graph, parts: list[Part], method: str = "crown") -> None:
    conjunctions = [(lower, upper, [row]) for lower, upper, disjuncts in parts for row in disjuncts]
    for subproblem, part in zip(subproblems(graph, parts, method), conjunctions, strict=True):
        answer = solve(subproblem)
        least = margin_of(graph, [part])
        what = f"{answer}, but the least margin is {least}"
        if least > CLOSE:
            assert answer.status is Status.UNSAT and answer.checked, what
            assert 0 < answer.bound <= least + 1e-9 or answer.bound == float("inf"), what
        if least < -CLOSE:
            assert answer.status is Status.SAT, what
        if answer.status is Status.UNSAT:
            assert least > -1e-9, what
        if answer.status in answers:
            answers[answer.status] += 1


@pytest.mark.parametrize("method", ["crown", "interval"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_conjunctions_over_several_boxes(activation: str, shape: str, method: str) -> None:
    graph = small_graph(activation, shape, 7)
    check(graph, random_parts(graph, 2, 2, 3, 11), method)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hardly_violated_and_hardly_not(activation: str, shape: str) -> None:
    """With bounds of interval arithmetic, so that many neurons are left to branch on."""
    graph = small_graph(activation, shape, 60)
    ((lower, upper, ((c, d, b),)),) = random_parts(graph, 1, 1, 2, 5)
    least = least_margin(graph, lower, upper, [(c, d, b)])
    for miss in (1e-4, -1e-4):
        check(graph, [(lower, upper, [(c, d, b + least - miss)])], "interval")


def pooled(op: Maximum | Minimum, seed: int, count: int) -> Graph:
    """The largest or the least of several, then again."""
    b = Small(1, 2, seed=seed)
    z = b.same(op, *(b.dense(0, 3) for _ in range(count)))
    first = b.dense(z, 2)
    z = b.same(Relu(), b.dense(b.same(op, first, b.dense(z, 2), first, b.same(Abs(), first)), 3))
    b.dense(z, 2)
    return b.graph()


@pytest.mark.parametrize("op", [Maximum(), Minimum()], ids=["max", "min"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_largest_of_several(op: Maximum | Minimum, count: int) -> None:
    for seed in range(4):
        graph = pooled(op, seed, count)
        check(graph, random_parts(graph, 1, 2, 2, seed), ("crown", "interval")[seed % 2])


def convolved(op: LeakyRelu | Abs, seed: int) -> Graph:
    b = Small(1, 2, seed=seed)
    z = b.add(Reshape((1, 9), (1, 1, 3, 3)), [b.dense(0, 9)], (1, 1, 3, 3))
    window = Window((3, 3), (2, 2), (2, 2), (1, 1), (1, 1), (0, 0))
    weight = (b.normal(2, 1, 2, 2) * 16).round() / 16
    bias = torch.tensor([0.0, 0.5], dtype=torch.float64)
    z = b.same(op, b.add(Conv(weight, window, bias), [z], (1, 2, 2, 2)))
    b.dense(b.add(Reshape((1, 2, 2, 2), (1, 8)), [z], (1, 8)), 2)
    return b.graph()


@pytest.mark.parametrize("op", [ACTIVATIONS["leaky"], Abs()], ids=["leaky", "abs"])
def test_convolutions(op: LeakyRelu | Abs) -> None:
    for seed in range(4):
        graph = convolved(op, seed)
        check(graph, random_parts(graph, 1, 2, 2, seed))


def test_the_generator_gives_both_answers() -> None:
    """A guard of the tests above: questions of one answer would prove little."""
    if sum(answers.values()) < 150:
        pytest.skip("the networks were not all run in this process")
    assert min(answers.values()) >= 50, answers


def test_splits_of_neurons_are_kept() -> None:
    """Where one half of a neuron has all violations, the other is proved; points come from where the split is."""
    statuses = []
    for seed in range(3):
        graph = small_graph("relu", "one layer", seed)
        lower, upper = np.full(2, -1.0), np.full(2, 1.0)
        ((_, _, ((c, d, b),)),) = random_parts(graph, 1, 1, 1, seed)
        least = least_margin(graph, lower, upper, [(c, d, b)])
        (subproblem,) = subproblems(graph, [(lower, upper, [(c, d, b + least + 1e-3)])])
        program, found = subproblem.program, subproblem.found
        (source,) = program.splittable
        old = found.intervals[source]
        for element in Relu().unstable(old)[0, 0].nonzero().flatten().tolist():
            halves = []
            for end in ("lower", "upper"):
                found.intervals[source] = split = Interval(old.lower.clone(), old.upper.clone())
                getattr(split, end)[0, 0, element] = 0.0
                answer = solve(subproblem)
                halves.append(answer.status)
                if answer.point is not None:
                    z = program.graph.evaluate_all(answer.point.unsqueeze(0))[source][0, 0, element]
                    assert split.lower[0, 0, element] - 1e-6 <= z <= split.upper[0, 0, element] + 1e-6
            assert Status.SAT in halves and set(halves) <= {Status.SAT, Status.UNSAT}
            statuses += halves
    assert Status.UNSAT in statuses


def test_cuts_and_pseudo_costs_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROOT_ROUNDS", 0), ("NODE_ROUNDS", 0), ("CANDIDATES", 1)):
        monkeypatch.setattr(tree, name, value)
    for seed in range(4):
        graph = small_graph("relu", "three layers", seed)
        check(graph, random_parts(graph, 2, 2, 2, seed), "interval")


def test_points_that_are_not_confirmed_leave_the_question_open() -> None:
    graph = small_graph("relu", "two layers", 4)
    ((lower, upper, ((c, d, b),)),) = random_parts(graph, 1, 1, 1, 4)
    least = least_margin(graph, lower, upper, [(c, d, b)])
    (subproblem,) = subproblems(graph, [(lower, upper, [(c, d, b + least + 1e-3)])], "interval")
    asked: list[torch.Tensor] = []
    answer = solve(replace(subproblem, confirm=lambda x: bool(asked.append(x))))
    assert asked and answer.status is Status.UNKNOWN and not answer.checked
    assert all(subproblem.margin(x) <= 0 for x in asked)


def test_values_that_are_not_finite_are_refused() -> None:
    b = Small(1, 2, seed=1)
    b.dense(b.same(Log(), b.dense(0, 3)), 2)
    part = np.full(2, -1.0), np.full(2, 1.0), [(np.ones((1, 2)), np.zeros((1, 2)), np.zeros(1))]
    (subproblem,) = subproblems(b.graph(), [part])
    assert "not finite" in str(Checked().supports(subproblem))
    with pytest.raises(BackendError, match="not finite"):
        solve(subproblem)


def test_single_precision_is_refused() -> None:
    graph = small_graph("relu", "one layer", 3)
    (subproblem,) = subproblems(graph, random_parts(graph, 1, 1, 1, 3))
    for part in ({"box": subproblem.box.to(torch.float32)}, {"program": prepare(graph, torch.float32)}):
        assert "double precision" in str(Checked().supports(replace(subproblem, **part)))


def test_a_disjunct_that_the_box_does_not_have_is_refused() -> None:
    graph = small_graph("relu", "one layer", 3)
    (subproblem,) = subproblems(graph, random_parts(graph, 1, 1, 1, 3))
    with pytest.raises(BackendError, match="no rows"):
        solve(replace(subproblem, disjunct=1))


def test_bounds_that_contradict_each_other_leave_nothing() -> None:
    graph = small_graph("relu", "one layer", 3)
    (subproblem,) = subproblems(graph, random_parts(graph, 1, 1, 1, 3))
    intervals = subproblem.found.intervals
    old = intervals[1]
    intervals[1] = Interval(old.lower, old.upper.clone().index_fill_(2, torch.tensor([0]), -1e6))
    answer = solve(subproblem)
    assert answer.status is Status.UNSAT and answer.checked and answer.programs == 0


def test_a_spent_budget_is_no_answer() -> None:
    graph = small_graph("relu", "one layer", 3)
    ((lower, upper, ((c, d, b),)),) = random_parts(graph, 1, 1, 1, 3)
    lower, upper = np.full(2, -2.0), np.full(2, 2.0)
    least = least_margin(graph, lower, upper, [(c, d, b)])
    (subproblem,) = subproblems(graph, [(lower, upper, [(c, d, b + least - 1e-3)])], "interval")
    for budget in (Budget(deadline=0.0), Budget(stop=lambda: True), Budget(nodes=0)):
        answer = solve(subproblem, budget)
        assert answer.status is Status.TIMEOUT and not answer.checked and answer.bound <= 0
    asked = iter([False] * 4 + [True] * 1000)
    answer = solve(subproblem, Budget(stop=lambda: next(asked)))
    assert answer.status in (Status.TIMEOUT, Status.UNSAT) and answer.programs <= 5
