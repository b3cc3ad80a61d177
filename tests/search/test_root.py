"""Which passes over the neurons' bounds a root takes."""

from __future__ import annotations

import time

import pytest
import torch

from tests.search.questions import query_of, random_parts, small_graph
from verifier.bounding.program import prepare
from verifier.core.problem import build_problem
from verifier.search.root import AFFORDABLE, ASCENTS, Root
from verifier.search.task import Limits, Task
from verifier.settings import SearchSettings

SOME, ALL = "alpha some neurons", "alpha neurons"


def root_until(limits: Limits) -> Root:
    graph = small_graph("relu", "three layers", 6)
    query = query_of(random_parts(graph, 1, 1, 1, 6))
    program, precise = (prepare(graph, dtype) for dtype in (torch.float32, torch.float64))
    problem = build_problem(query, torch.float32, "cpu")
    return Root(Task(problem, program, lambda: precise, SearchSettings(), limits, lambda *_: False), problem.real)


@pytest.mark.parametrize(("times", "passes"), [(0.9, [SOME, ALL]), (1.2, [ALL])])
def test_ascents_for_some_neurons_come_first_only_where_those_for_all_are_dear(times: float, passes: list[str]) -> None:
    """`times`: the time left, by that with which ascents for all are just affordable."""
    never = Limits(float("inf"), 1 << 30)
    root = root_until(never)
    assert [step.name for step in root.passes[:2]] == ["double precision", SOME]  # ascents build on what comes before
    root.passes, root.seconds = root.passes[1:], 100.0
    root.limits = Limits(time.monotonic() + times * ASCENTS * root.seconds / AFFORDABLE, never.memory)
    root._spare()
    assert [step.name for step in root.passes[: len(passes)]] == passes


def test_without_time_there_are_no_ascents_and_nothing_is_proved() -> None:
    root = root_until(Limits(time.monotonic() - 1.0, 1 << 30))
    assert root.multipliers is None and not root.passes and not root.can_tighten()
    assert root.bound.tolist() == [float("-inf")] and len(root.subproblems()[1]) == 1
