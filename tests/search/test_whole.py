"""The search that asks one backend about everything: what counts as proved, and what failures cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.search.questions import Part, margin_of, query_of, random_disjunct, small_graph
from tests.search.test_neurons import Confirm
from tests.search.test_strategy import FAST
from verifier.backends.child import made
from verifier.backends.encoding import encode
from verifier.backends.milp import Mixed
from verifier.backends.protocol import Answer, Backend, Budget
from verifier.backends.subproblem import Subproblem
from verifier.bounding.program import prepare
from verifier.core.problem import build_problem
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.search import whole
from verifier.search.task import Limits, Outcome, Task
from verifier.search.whole import WholeSearch

GRAPH = small_graph("relu", "three layers", 6)
UNCHECKED = Answer(Status.UNSAT, "a word")
CHECKED = Answer(Status.UNSAT, "a proof", checked=True)


@dataclass(frozen=True)
class Scripted:
    """Gives an answer, or fails, by the number of the question."""

    answers: list[Answer | None]
    reason: str | None = None

    def supports(self, subproblem: Subproblem) -> str | None:
        return self.reason

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        answer = self.answers.pop(0)
        if answer is None:
            raise BackendError("the solver's process died")
        return answer


@pytest.fixture(autouse=True)
def no_better_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole.Root, "can_tighten", lambda self: False)


def conjunctions(miss: float) -> list[Part]:
    """Several over one box, the least margin of each is `-miss`."""
    generator, ends = np.random.default_rng(1), (np.full(2, -2.0), np.full(2, 2.0))
    found = [random_disjunct(GRAPH, ends, 2, generator) for _ in range(8)]
    return [(*ends, [(c, d, b + margin_of(GRAPH, [(*ends, [(c, d, b)])]) + miss) for c, d, b in found])]


def outcome_of(backend: Callable[[int], Backend], believing: bool, parts: list[Part] | None = None) -> Outcome:
    """`backend` is made for the number of pairs that the root leaves open."""
    parts = parts or conjunctions(-0.02)
    program, problem = prepare(GRAPH, torch.float64), build_problem(query_of(parts), torch.float64, "cpu")
    task = Task(problem, program, lambda: program, FAST, Limits(float("inf"), 1 << 30), Confirm(GRAPH, problem))
    with torch.no_grad():
        count = WholeSearch(task, Scripted([]), "fake", believing).first().open
        assert count >= 2
        search = WholeSearch(task, backend(count), "fake", believing)
        assert search.first().open == count
        return search.run()


def test_a_word_counts_only_where_it_is_believed() -> None:
    proved = outcome_of(lambda n: Scripted([CHECKED] * n), believing=True)
    assert proved.complete and proved.trusted is None and proved.proved == 1.0
    believed = outcome_of(lambda n: Scripted([UNCHECKED] + [CHECKED] * (n - 1)), believing=True)
    assert believed.complete and believed.trusted == "fake"
    refused = outcome_of(lambda n: Scripted([UNCHECKED] + [CHECKED] * (n - 1)), believing=False)
    assert not refused.complete and refused.stuck == 1 and refused.reason == "a word" and refused.trusted is None


def test_what_is_left_is_counted() -> None:
    left = [Answer(Status.TIMEOUT, "late"), Answer(Status.UNKNOWN, "odd")]
    outcome = outcome_of(lambda n: Scripted(left + [CHECKED] * (n - 2)), believing=True)
    assert (outcome.open, outcome.stuck, outcome.complete) == (1, 1, False) and outcome.proved < 1


def test_a_crash_loses_one_attempt() -> None:
    violated = Answer(Status.SAT, "a point", point=torch.zeros(1, 2))
    assert outcome_of(lambda n: Scripted([None, violated]), believing=False).found
    with pytest.raises(BackendError, match="died"):
        outcome_of(lambda n: Scripted([None] + [CHECKED] * (n - 1)), believing=False)
    with pytest.raises(BackendError, match="died"):
        outcome_of(lambda n: Scripted([None, None]), believing=False)


def test_what_cannot_be_asked_is_an_error() -> None:
    with pytest.raises(BackendError, match="no exact form of Tanh; use --method auto"):
        outcome_of(lambda n: Scripted([], "no exact form of Tanh"), believing=False)


def test_a_disjunct_without_rows_is_never_proved() -> None:
    """Any point violates it; the rows of its neighbours, which are easily proved, say nothing about it."""
    (low, high, conjuncts) = conjunctions(-100.0)[0]
    empty = np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)
    problem = build_problem(query_of([(low, high, [*conjuncts, empty])]), torch.float64, "cpu")
    program = prepare(GRAPH, torch.float64)
    task = Task(problem, program, lambda: program, FAST, Limits(float("inf"), 1 << 30), lambda points, which: False)
    with torch.no_grad(), pytest.raises(BackendError, match="no rows"):
        WholeSearch(task, Scripted([]), "fake", believing=True).first()


def test_a_real_solver() -> None:
    assert outcome_of(lambda n: Mixed("highs", made), believing=True).trusted == "fake"
    assert not outcome_of(lambda n: Mixed("highs", made), believing=False).complete
    assert outcome_of(lambda n: Mixed("highs", made), believing=False, parts=conjunctions(0.02)).found


def test_neurons_are_tightened_before_a_solver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By programs and trees, in processes; what they leave open of the neurons is asked about, and no more."""
    asked: dict[int, list[int]] = {1000: [], 0: []}

    class Counting(Mixed):
        def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
            asked[whole.LEAST_UNDECIDED].append(len(encode(subproblem).neurons))
            return super().solve(subproblem, budget)

    for least in asked:
        monkeypatch.setattr(whole, "LEAST_UNDECIDED", least)
        assert outcome_of(lambda n: Counting("highs", made), believing=True).complete
    assert min(asked[1000]) > max(asked[0], default=0), asked
