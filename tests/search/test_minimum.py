"""A search whose question is made easier on the way, and the certified value of a point."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.attack.questions import network, problem_of, row
from verifier.bounding.program import prepare
from verifier.core.problem import Problem
from verifier.ops import Sin
from verifier.search.inputs import InputSearch
from verifier.search.task import Limits, Task
from verifier.settings import SearchSettings

BOX = [(-2.0, 2.0), (-1.0, 3.0)]


def above(value: float) -> Problem:
    """Whether sin(sum - 1) is above it."""
    problem = problem_of([BOX], [row({0: 1}, 0.0)])
    return replace(problem, offset=torch.full_like(problem.offset, -value))


def search_for(problem: Problem) -> InputSearch:
    graph = network(2, Sin())
    settings = SearchSettings(batch=4)
    limits = Limits(float("inf"), 1 << 30)
    program = prepare(graph, torch.float32)
    precise = lambda: prepare(graph, torch.float64)  # noqa: E731
    return InputSearch(Task(problem, program, precise, settings, limits, lambda points, which: False))


@pytest.mark.parametrize("batches", [0, 1, 4])
def test_bounds_move_with_the_question(batches: int) -> None:
    """The least value is -1: from -0.5, which cannot be proved, to -1.25, which can."""
    search = search_for(above(-0.5))
    for _ in range(batches):
        search.run(0.0)
    before = search.outcome()
    search.ease(above(-1.25))
    after = search.outcome()
    assert after.bound == pytest.approx(before.bound + 0.75, abs=1e-5) or batches == 0
    assert after.bound <= before.bound + 0.75 and after.bound <= 0.25, "a bound of the margin, which is 0.25 at least"
    assert after.open == before.open and search.run().complete


def test_what_is_stuck_moves_too() -> None:
    search = search_for(above(-0.5))
    search.stuck, search.stuck_bound = 1, -0.25
    search.ease(above(-1.0))
    assert search.outcome().bound == -float("inf")
    search.frontier.batches.clear()
    assert search.outcome().bound == pytest.approx(0.25, abs=1e-6) and search.outcome().bound <= 0.25


def test_an_easier_question_stays_one_in_double_precision() -> None:
    """Bounds rise by what the offset has risen, and not again by what it had risen before."""
    search = search_for(above(-0.5))
    for _ in range(4):
        search.run(0.0)
    search.ease(above(-1.0))
    wide = search.in_double()
    assert torch.equal(wide.problem.offset, above(-1.0).offset.double())
    wide.ease(replace(wide.problem, offset=torch.full_like(wide.problem.offset, 1.25)))
    assert wide.outcome().bound <= 0.25, "the margin, which is 0.25 at least"
