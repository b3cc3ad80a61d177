"""The strategy decides what either search decides, hands over and takes back without losing anything."""

from __future__ import annotations

import itertools
import time
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
)
from tests.search.test_neurons import CLOSE, Confirm, no_choice
from tests.soundness.polygons import Conjunction
from verifier.bounding import condensed
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.problem import build_problem
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.ops import Linear, Relu, Sign
from verifier.search import exact, expansion, inputs, root, strategy
from verifier.search.condensing import Smaller, condense
from verifier.search.root import Known
from verifier.search.strategy import Strategy
from verifier.search.task import Limits, Outcome, Task
from verifier.settings import AscentSettings, SearchSettings

FAST = SearchSettings(
    root=AscentSettings(iterations=5), neurons=AscentSettings(iterations=2), ascent=AscentSettings(iterations=5)
)
ROOM = 1 << 30
UNIT = np.zeros(2), np.ones(2)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "TURN", 0.02)


def strategy_of(graph: Graph, query: Query, seconds: float = 30.0, memory: int = ROOM) -> Strategy:
    problem, exact = build_problem(query, torch.float32, "cpu"), build_problem(query, torch.float64, "cpu")
    limits = Limits(time.monotonic() + seconds, memory)
    precise = lambda: prepare(graph, torch.float64)  # noqa: E731
    return Strategy(Task(problem, prepare(graph, torch.float32), precise, FAST, limits, Confirm(graph, exact)))


def answer(graph: Graph, query: Query, seconds: float = 30.0, memory: int = ROOM) -> Outcome:
    with torch.no_grad():
        return strategy_of(graph, query, seconds, memory).run()


def check(graph: Graph, parts: list[Part], memory: int = ROOM) -> None:
    agrees(answer(graph, query_of(parts), memory=memory), margin_of(graph, parts))


def agrees(outcome: Outcome, margin: float) -> None:
    what = f"{outcome}, but the least margin is {margin}"
    if margin > CLOSE:
        assert outcome.complete and outcome.proved == 1.0, what
    if margin < -CLOSE:
        assert outcome.found, what
    assert not outcome.complete or margin > -1e-9, what
    assert not outcome.found or margin < 1e-9, what


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_agrees_with_enumeration_in_turns(activation: str, shape: str) -> None:
    graph = small_graph(activation, shape, 400)
    check(graph, random_parts(graph, 3, 3, 3, 400))


@pytest.mark.parametrize("memory", [64 << 20, 1 << 30])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_enumeration_over_neurons_only(shape: str, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "MANY_INPUTS", 0)
    graph = small_graph("relu", shape, 500)
    check(graph, random_parts(graph, 2, 3, 3, 500), memory)


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_enumeration_in_double_precision(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "rounding_prevails", lambda *what: True)
    graph = small_graph("relu", shape, 800)
    parts = random_parts(graph, 2, 2, 2, 800)
    assert strategy_of(graph, query_of(parts)).inputs.program.dtype == torch.float64
    check(graph, parts)


def near_miss(graph: Graph, boxes: int, seed: int) -> list[Part]:
    """Nothing is violated, and every box needs work."""
    generator, parts = np.random.default_rng(seed), []
    for _ in range(boxes):
        lower = generator.integers(-8, 8, 2) / 8
        box = lower, lower + 1.0
        c, d, b = random_disjunct(graph, box, 1, generator)
        parts.append((*box, [(c, d, b + margin_of(graph, [(*box, [(c, d, b)])]) - 0.02)]))
    return parts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("boxes", "many", "double"), [(1, 0, False), (1, 40, False), (1, 40, True), (3, 0, False)])
def test_agrees_with_enumeration_over_condensed_networks(
    boxes: int, many: int, double: bool, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one box from the first bounds on, of several where the search over neurons begins."""
    made = []

    def recorded(task: Task, found: NodeBounds, still: Tensor) -> Smaller | None:
        made.append(condense(task, found, still))
        return made[-1]

    monkeypatch.setattr(condensed, "WORTH", float("inf"))
    monkeypatch.setattr(strategy, "MANY_INPUTS", many)
    monkeypatch.setattr(strategy, "FIRST_SEARCH", 0.0)
    monkeypatch.setattr(strategy, "condense", recorded)
    monkeypatch.setattr(strategy, "rounding_prevails", lambda *what: double)
    for seed in (900, 901, 904):
        graph = small_graph("relu", shape, seed)
        parts = near_miss(graph, boxes, seed)
        search = strategy_of(graph, query_of(parts))
        with torch.no_grad():
            outcome = search.first()
            agrees(search.run() if outcome.open and not outcome.found else outcome, margin_of(graph, parts))
    assert any(smaller is not None for smaller in made)


def test_undecided_boxes_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search over neurons that has no time proves what its root proves; all else is open again, as it was."""
    graph = small_graph("relu", "three layers", 6)
    parts = near_miss(graph, 6, 1)
    found = strategy_of(graph, query_of(parts))
    monkeypatch.setattr(strategy, "TURN", -1.0)
    with torch.no_grad():
        found.inputs.run(0.0)
        boxes = sorted_boxes(found)
        for _ in range(3):
            assert not found._hand_over()
            assert set(sorted_boxes(found)) <= set(boxes)
            left = sum(float(batch.share.sum()) for batch in found.inputs.frontier.batches)
            assert found.inputs.proved + left == pytest.approx(1.0)
        assert len(found.inputs.frontier)


def sorted_boxes(found: Strategy) -> list[tuple[float, ...]]:
    batches = found.inputs.frontier.batches
    ends = [torch.cat([b.box.lower.flatten(1), b.box.upper.flatten(1), b.open.float()], 1) for b in batches]
    return sorted(tuple(row) for row in torch.cat(ends).tolist())


@pytest.mark.parametrize(("turn", "handed"), [(0.0, 1), (1e9, strategy.FIRST_HANDED)])
def test_first_so_many_boxes_are_handed_over_as_are_bounded_in_a_turn(
    turn: float, handed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategy, "TURN", turn)
    graph = small_graph("relu", "three layers", 6)
    found = strategy_of(graph, query_of(near_miss(graph, 6, 1)))
    with torch.no_grad():
        found.first()
    assert found.handed == handed


def test_decided_boxes_do_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_graph("relu", "three layers", 6)
    found = strategy_of(graph, query_of(near_miss(graph, 6, 1)))
    monkeypatch.setattr(strategy, "TURN", 100.0)
    with torch.no_grad():
        found.inputs.run(0.0)
        while len(found.inputs.frontier):
            before = len(found.inputs.frontier)
            assert not found._hand_over()
            assert len(found.inputs.frontier) < before
        outcome = found.inputs.outcome()
    assert outcome.complete and outcome.proved == 1.0 and found.inputs.proved == pytest.approx(1.0)


def test_stuck_subproblems_keep_their_box_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the search over neurons can split nothing, the boxes come back, and the answer is not complete."""
    monkeypatch.setattr(expansion, "split", lambda *_: pytest.fail("there is nothing to split"))
    graph = small_graph("relu", "three layers", 6)
    found = strategy_of(graph, query_of(near_miss(graph, 3, 2)))
    found.task = replace(found.task, rule=no_choice)
    with torch.no_grad():
        boxes = sorted_boxes(found)
        assert not found._hand_over()
    assert 0 < len(sorted_boxes(found)) <= len(boxes) and not found.inputs.outcome().complete
    assert set(sorted_boxes(found)) <= set(boxes)


def test_violations_found_after_a_hand_over_are_in_the_right_box() -> None:
    """Only the last of many boxes is violated; `Confirm` sees that every point is in the box it is said to be in."""
    graph = small_graph("relu", "three layers", 6)
    parts = near_miss(graph, 12, 3)
    lower, upper, ((c, d, b),) = parts[-1]
    parts[-1] = (lower, upper, [(c, d, b + 0.03)])
    found = strategy_of(graph, query_of(parts))
    with torch.no_grad():
        assert found.run().found


# --- boxes from which the search over neurons begins


def dear(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Boxes are dear, and the search over neurons begins from any few of them; how many each such search gets."""
    monkeypatch.setattr(Strategy, "_dear", lambda *_: True)
    monkeypatch.setattr(Strategy, "_closing_in", lambda self: 1 < self.inputs.open <= 8 and not self.inputs.stuck)
    monkeypatch.setattr(inputs, "CHEAP_BATCH", 1)
    counts, original = [], Strategy._from_boxes

    def counted(self: Strategy) -> Outcome:
        counts.append(self.inputs.open)
        return original(self)

    monkeypatch.setattr(Strategy, "_from_boxes", counted)
    return counts


@pytest.mark.parametrize("boxes", [1, 3])
def test_agrees_with_enumeration_from_boxes(boxes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dear(monkeypatch)
    for shape, seed in itertools.product(SHAPES, range(2)):
        graph = small_graph("relu", shape, 900 + seed)
        check(graph, near_miss(graph, boxes, seed))
        check(graph, random_parts(graph, boxes, 2, 2, seed))
    assert counts and all(1 < count <= root.MOST_TIGHTENED for count in counts)


def test_boxes_that_are_not_decided_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search over neurons can split nothing here: another one is given the same boxes."""
    monkeypatch.setattr(root, "MOST_TIGHTENED", 0)
    graph = small_graph("relu", "three layers", 6)
    found = strategy_of(graph, query_of(near_miss(graph, 6, 1)))
    found.task = replace(found.task, rule=no_choice)
    with torch.no_grad():
        found.inputs.run(0.0)
        first, boxes = found._from_boxes(), sorted_boxes(found)
        second = found._from_boxes()
    assert boxes and sorted_boxes(found) == boxes
    for outcome in (first, second):
        assert outcome.stuck and not outcome.complete and not outcome.found
        assert 0 <= outcome.proved < 1 and found.inputs.proved < 1
    assert second.bounded > first.bounded


def test_boxes_are_handed_over_only_where_splits_pay_and_prove_nothing() -> None:
    graph = small_graph("relu", "three layers", 6)
    found = strategy_of(graph, query_of(near_miss(graph, 3, 2)))
    found.gained = 1.0
    assert found._closing_in()
    for change in ({"stuck": 1}, {"left": 0.9}):  # a box that was set aside would be forgotten
        found = strategy_of(graph, query_of(near_miss(graph, 3, 2)))
        found.gained = 1.0
        vars(found.inputs).update(change)
        assert not found._closing_in()
    found = strategy_of(graph, query_of(near_miss(graph, 3, 2)))
    assert not found._closing_in()
    found = strategy_of(graph, query_of(near_miss(graph, root.MOST_TIGHTENED + 1, 2)))
    found.gained = 1.0
    assert not found._closing_in()


# --- limits


def test_a_network_without_neurons() -> None:
    b = Small(1, 2, seed=1)
    b.dense(0, 2)
    for miss in (0.1, -0.1):
        graph = b.graph()
        c, d = np.ones((1, 2)), np.zeros((1, 2))
        free = margin_of(graph, [(*UNIT, [(c, d, np.zeros(1))])])
        check(graph, [(*UNIT, [(c, d, np.round((free + np.array([-miss])) * 256) / 256)])])


def test_output_and_input_are_the_same_node() -> None:
    """An identity network, rows over both sides of it: they add up."""
    graph = Graph((Node("x", Input(), (), (1, 2)),), 0)
    c, d = np.array([[1.0, 0.0]]), np.array([[1.0, -1.0]])
    assert margin_of(graph, [(*UNIT, [(c, d, np.array([-1.0]))])]) == 0.0
    assert answer(graph, query_of([(*UNIT, [(c, d, np.array([-1.25]))])])).complete
    assert answer(graph, query_of([(*UNIT, [(c, d, np.array([-0.75]))])])).found


def test_rows_over_a_relu_of_the_input_and_the_input() -> None:
    """relu(x) - x >= 0 is equality on half of the box: needs the neuron or the input at 0."""
    graph = Graph((Node("x", Input(), (), (1, 2)), Node("y", Relu(), (0,), (1, 2))), 1)
    box = -np.ones(2), np.ones(2)
    c, d = np.array([[1.0, 1.0]]), np.array([[-1.0, -1.0]])
    check(graph, [(*box, [(c, d, np.array([-0.125]))])])
    check(graph, [(*box, [(c, -c, np.array([0.125]))])])


@pytest.mark.parametrize("many", [0, 40])
def test_boxes_of_width_zero(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "MANY_INPUTS", many)
    for seed, flat in itertools.product(range(4), ((0,), (0, 1))):
        graph = small_graph("relu", "two layers", 600 + seed)
        parts = []
        for lower, upper, disjuncts in random_parts(graph, 2, 2, 2, seed):
            thin = upper.copy()
            thin[list(flat)] = lower[list(flat)]
            parts.append((lower, thin, disjuncts))
        check(graph, parts)


def test_one_box_in_which_only_one_input_varies_among_many() -> None:
    """Varying inputs are counted box by box; thin boxes do not make the others hopeless."""
    graph = small_graph("relu", "two layers", 700)
    (lower, upper, disjuncts), other = random_parts(graph, 2, 2, 2, 7)
    check(graph, [(lower, np.array([lower[0], upper[1]]), disjuncts), other])


def many_disjuncts(graph: Graph, count: int, seed: int) -> list[Conjunction]:
    """One row each, all near misses."""
    c = np.random.default_rng(seed).normal(size=(40, 1, 2)).round(2) + 0.001
    zero = np.zeros((1, 2))
    least = [margin_of(graph, [(*UNIT, [(row, zero, np.zeros(1))])]) for row in c]
    return [(c[i % 40], zero, np.array([least[i % 40] - 0.01 - i * 1e-5])) for i in range(count)]


@pytest.mark.parametrize("many", [0, pytest.param(40, marks=pytest.mark.slow)])
def test_thousands_of_disjuncts(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All near misses but, the second time, the last one; and little memory."""
    monkeypatch.setattr(strategy, "MANY_INPUTS", many)
    graph = small_graph("relu", "two layers", 8)
    *others, (c, d, b) = disjuncts = many_disjuncts(graph, 2000, seed=8)
    assert answer(graph, query_of([(*UNIT, disjuncts)])).complete
    assert answer(graph, query_of([(*UNIT, [*others, (c, d, b + 0.06)])]), memory=64 << 20).found


def test_disjuncts_of_one_row_are_not_combined(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to combine, and it takes time and memory in proportion to the square of their number."""
    monkeypatch.setattr(inputs, "combine", lambda *_: pytest.fail("combined"))
    graph = small_graph("relu", "two layers", 8)
    with torch.no_grad():
        assert strategy_of(graph, query_of([(*UNIT, many_disjuncts(graph, 50, seed=8))])).inputs.run().complete


@pytest.mark.parametrize("many", [0, 40])
def test_a_deadline_that_has_passed(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is proved that a search would have to prove, and nothing is raised."""
    monkeypatch.setattr(strategy, "MANY_INPUTS", many)
    graph = small_graph("relu", "three layers", 6)
    outcome = answer(graph, query_of(near_miss(graph, 4, 4)), seconds=-5.0)
    assert not outcome.complete and not outcome.found and outcome.open


def test_a_disjunct_without_rows_is_never_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any point of its box violates it: a search over neurons, which has no row for it, must not be asked."""
    for many in (0, 40):
        monkeypatch.setattr(strategy, "MANY_INPUTS", many)
        graph = small_graph("relu", "two layers", 9)
        box = Box((Fraction(0),) * 2, (Fraction(1),) * 2)
        far = Row((), ((0, Fraction(1)),), Fraction(-1000))
        query = Query(2, 2, (Disjunct(box, (far,)), Disjunct(box, ())))
        assert not answer(graph, query, seconds=1.0).complete
        assert answer(graph, Query(2, 2, (Disjunct(box, (far,)),))).complete


def test_a_step_network() -> None:
    """Sign has no line between: splits at the jump, and inputs after that."""
    nodes = (
        Node("x", Input(), (), (1, 2)),
        Node("z", Linear(torch.tensor([[1.0, 1.0]], dtype=torch.float64)), (0,), (1, 1)),
        Node("s", Sign(), (1,), (1, 1)),
        Node("y", Linear(torch.ones(2, 1, dtype=torch.float64)), (2,), (1, 2)),
    )
    row = lambda bound: Row((), ((0, Fraction(1)), (1, Fraction(1))), Fraction(bound))  # noqa: E731
    box = Box((Fraction(-1),) * 2, (Fraction(1),) * 2)
    assert answer(Graph(nodes, 3), Query(2, 2, (Disjunct(box, (row(-3),)),))).complete
    assert answer(Graph(nodes, 3), Query(2, 2, (Disjunct(box, (row(-1),)),))).found


def test_more_boxes_than_are_tightened_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategy, "MANY_INPUTS", 0)
    graph = small_graph("relu", "three layers", 6)
    for most in (0, 1, 100):
        monkeypatch.setattr(root, "MOST_TIGHTENED", most)
        check(graph, near_miss(graph, 5, 5))


def test_small_problems_are_decided_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly violated and hardly not, with no time for splits of inputs."""
    monkeypatch.setattr(strategy, "SPLIT_SHARE", 0.0)
    real, outcomes = strategy.decide_exactly, []

    def noted(task: Task, still: Tensor, known: Known) -> Outcome | None:
        outcomes.append(real(task, still, known))
        return outcomes[-1]

    monkeypatch.setattr(strategy, "decide_exactly", noted)
    for shape, seed in itertools.product(SHAPES, range(2)):
        graph = small_graph("relu", shape, seed)
        parts = near_miss(graph, 2, seed)
        check(graph, parts)
        check(graph, [(low, up, [(c, d, b + 0.022) for c, d, b in rows]) for low, up, rows in parts])
    assert any(outcome is not None and outcome.complete for outcome in outcomes)
    assert any(outcome is not None and outcome.found for outcome in outcomes)


def test_coefficients_that_single_precision_rounds_are_decided_exactly() -> None:
    graph = small_graph("relu", "three layers", 6)
    parts = [(low, up, [(0.1 * c, d, 0.1 * b) for c, d, b in rows]) for low, up, rows in near_miss(graph, 2, 1)]
    for miss, complete in ((0.0, True), (0.0021, False)):
        asked = query_of([(low, up, [(c, d, b + miss) for c, d, b in rows]) for low, up, rows in parts])
        task = strategy_of(graph, asked).task
        assert not task.problem.exact
        with torch.no_grad():
            outcome = exact.decide_exactly(task, task.problem.real)
        assert outcome is not None and outcome.complete == complete and outcome.found != complete


def test_too_many_neurons_are_not_decided_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MOST_UNDECIDED", 1)
    graph = small_graph("relu", "three layers", 6)
    task = strategy_of(graph, query_of(near_miss(graph, 2, 1))).task
    assert exact.decide_exactly(task, task.problem.real) is None


def test_what_only_rounding_keeps_open_is_searched_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values near 8192 that cancel: in single precision, bounds are off by more than the margin."""
    monkeypatch.setattr(strategy, "MANY_INPUTS", 0)
    b = Small(1, 2, seed=3)
    shift = torch.full((6,), 8192.0, dtype=torch.float64)
    hidden = b.same(Relu(), b.add(Linear((b.normal(6, 2) * 16).round() / 16, shift), [0], (1, 6)))
    weight = (b.normal(2, 6) * 16).round() / 16
    b.add(Linear(weight, -weight @ shift), [hidden], (1, 2))
    graph = b.graph()
    parts = near_miss(graph, 1, 2)
    tasks = []
    monkeypatch.setattr(Task, "in_double", lambda task, real=Task.in_double: tasks.append(task) or real(task))
    check(graph, [(low, up, [(c, d, b + 0.018) for c, d, b in rows]) for low, up, rows in parts])
    assert tasks
