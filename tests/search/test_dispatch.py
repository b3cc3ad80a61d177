"""Hand-overs to exact reasoning beside the search: what comes back, and what failures and deadlines cost."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import wait
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.search import test_neurons
from tests.search.questions import ACTIVATIONS, SHAPES, Part, margin_of, query_of, random_parts, small_graph
from tests.search.test_neurons import CLOSE, HASTY, search_of
from verifier.backends.checked import Checked
from verifier.backends.elsewhere import Elsewhere
from verifier.backends.protocol import Answer, Budget
from verifier.backends.subproblem import Subproblem, as_solved
from verifier.bounding.program import Program, prepare
from verifier.core.problem import Problem, build_problem
from verifier.core.verdict import Status
from verifier.errors import BackendError
from verifier.search import dispatch
from verifier.search.neurons import NeuronSearch
from verifier.search.task import Limits, Outcome
from verifier.settings import SearchSettings

POOR = SearchSettings(batch=2, root=HASTY, neurons=HASTY, ascent=HASTY, levels=1)
GRAPH = small_graph("relu", "three layers", 6)


class Here(Elsewhere):
    """In a thread of this process."""

    asked: ClassVar[list[Answer]] = []

    def start(self) -> None:
        pass

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        with torch.no_grad():
            answer = Checked().solve(replace(subproblem, confirm=lambda point: True), budget)
        self.asked.append(answer)
        return answer


class Patient(NeuronSearch):
    """Bounds nothing before the answers are there: what is handed over decides."""

    def turn(self):  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + 10
        while self.dispatch.running and time.monotonic() < deadline:
            if all(future.done() for future in self.dispatch.running):
                break
            time.sleep(1e-3)
        return super().turn()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand-overs from the first batch on, however little they gain."""
    monkeypatch.setattr(dispatch, "PATIENCE", 0.0)
    monkeypatch.setattr(dispatch, "WORTH", 0.0)
    monkeypatch.setattr(dispatch._Record, "choose", lambda self: True)
    monkeypatch.setattr(dispatch, "Elsewhere", Here)
    monkeypatch.setattr(test_neurons, "NeuronSearch", Patient)
    Here.asked = []


def question(miss: float) -> list[Part]:
    """Several boxes, in each of which the least margin is `-miss`."""
    parts = []
    for lower, upper, rows in random_parts(GRAPH, 6, 1, 2, 3):
        least = margin_of(GRAPH, [(lower, upper, rows)])
        parts.append((lower, upper, [(c, d, b + least + miss) for c, d, b in rows]))
    return parts


def search(miss: float, limits: Limits = test_neurons.NEVER) -> NeuronSearch:
    return search_of(GRAPH, query_of(question(miss)), POOR, limits)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_answers_flow_back(activation: str, shape: str) -> None:
    """Both answers, against an enumeration of all activation regions, and every subproblem is accounted for."""
    graph = small_graph(activation, shape, 31)
    for seed in range(2):
        parts = random_parts(graph, 2, 2, 2, seed)
        with torch.no_grad():
            outcome, margin = search_of(graph, query_of(parts), POOR).run(), margin_of(graph, parts)
        what = f"{outcome}, but the least margin is {margin}"
        assert (outcome.complete and outcome.proved == 1.0) or margin <= CLOSE, what
        assert outcome.found or margin >= -CLOSE, what
        assert margin > -1e-9 or not outcome.complete, what


def test_hand_overs_decide() -> None:
    with torch.no_grad():
        proved = search(-0.01).run()
    assert proved.complete and proved.proved == 1.0
    assert any(answer.checked for answer in Here.asked)


def test_a_violation_found_elsewhere_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search itself is told of no point."""
    said: list[Tensor] = []

    def confirms(task: object, point: Tensor, which: int) -> bool:
        said.append(point)
        return len(said) > 1  # the first one is no violation: its subproblem comes back

    monkeypatch.setattr("verifier.search.task.Task.confirms", confirms)
    found = search(0.01)
    found.expander.candidates = lambda points, which: False
    with torch.no_grad():
        outcome = found.run()
    assert outcome.found and len(said) > 1


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("checked", [True, False])
def test_only_what_is_checked_is_proved(status: Status, checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else a backend says, its subproblem comes back."""
    monkeypatch.setattr(Here, "solve", lambda *_: Answer(status, "so it says", checked))
    some = search(-0.01)
    before = len(some.frontier)
    with torch.no_grad():
        some.dispatch.exchange(some.frontier, 1.0, 0)
        handed = before - len(some.frontier)
        wait(some.dispatch.running)
        back = some.dispatch.returned(some.none)
    proved = handed if status is Status.UNSAT and checked else 0
    assert handed > 0 and not back.found
    assert (len(back.proved), len(back.undecided)) == (proved, handed - proved)
    some.dispatch.close(some.none)


def test_the_search_gets_all_back_where_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Here, "solve", lambda *_: Answer(Status.TIMEOUT, "late"))
    monkeypatch.setattr(dispatch, "TRIED", 1)
    some = search(-0.01)
    before, held = len(some.frontier), []
    with torch.no_grad():
        for _ in range(2):
            some.dispatch.exchange(some.frontier, 0.0, 0)
            held.append(len(some.dispatch.reserve))
            assert len(some.frontier) + len(some.dispatch) == before
            wait(some.dispatch.running)
            some.frontier.push(some.dispatch.returned(some.none).undecided)
    assert held[0] > 0 and held[1] == 0
    some.dispatch.close(some.none)


def test_a_backend_that_fails_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(*_: object) -> Answer:
        calls.append(1)
        raise BackendError("the process died")

    monkeypatch.setattr(Here, "solve", fail)
    outcome = some_turns(search(-0.01))
    assert not outcome.found and outcome.open
    assert dispatch.MOST_FAILURES <= len(calls) <= dispatch.MOST_FAILURES * dispatch.MOST_WAITING


def test_what_cannot_be_expressed_is_bounded_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Here, "supports", lambda *_: "no exact form")
    assert some_turns(search(-0.01)).open
    assert not Here.asked


def test_without_exact_reasoning_nothing_is_handed_over() -> None:
    plain = search(-0.01)
    plain.dispatch.task = replace(plain.task, exact=False)
    assert some_turns(plain).open
    assert not Here.asked


def some_turns(some: NeuronSearch) -> Outcome:
    with torch.no_grad():
        for _ in range(6):
            outcome = some.run(pause=0.0)
    return outcome


def test_nothing_is_lost_when_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handed over, and what was kept for it, is open in the end, with its share and its bound."""
    answers = iter([Answer(Status.UNSAT, "a proof", checked=True)])

    def once(*_: object) -> Answer:
        answer = next(answers, None)
        if answer is None:
            raise BackendError("the process died")
        return answer

    monkeypatch.setattr(Here, "solve", once)
    late = search(-0.01)
    outcome, kept = some_turns(late), late.frontier.batches
    assert not len(late.dispatch)
    assert outcome.open == sum(map(len, kept))
    assert late.left == pytest.approx(sum(float(batch.share.sum()) for batch in kept))
    assert outcome.bound == min((float(batch.bound.min()) for batch in kept), default=float("inf"))


def asked(miss: float) -> tuple[Program, Problem, Subproblem]:
    """The whole question for a backend."""
    program, problem = prepare(GRAPH, torch.float64), build_problem(query_of(question(miss)), torch.float64, "cpu")
    found = as_solved(search(miss).kept.base.select(slice(0, 1)))
    box = problem.box.reshape(-1, *program.graph.input_shape).select(slice(0, 1))
    return program, problem, Subproblem(program, found, problem, box, 0, 0)


def test_a_process_of_its_own() -> None:
    for miss, status in ((-0.01, Status.UNSAT), (0.01, Status.SAT)):
        program, problem, subproblem = asked(miss)
        backend = Elsewhere(program, problem)
        answer = backend.solve(subproblem, Budget(time.monotonic() + 60))
        assert answer.status is status
        if answer.point is not None:
            assert subproblem.margin(answer.point) <= 0
        backend.stop()


def test_a_killed_process_loses_one_attempt() -> None:
    program, problem, subproblem = asked(-0.01)
    backend = Elsewhere(program, problem)
    os.kill(backend.process.start().process.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match="process died"):
        backend.solve(subproblem, Budget(time.monotonic() + 60))
    assert backend.solve(subproblem, Budget(time.monotonic() + 60)).checked
    process = backend.process.start().process
    backend.stop()
    assert process.wait(10) == -signal.SIGKILL
    with pytest.raises(BackendError):
        backend.solve(subproblem, Budget(time.monotonic() + 60))
