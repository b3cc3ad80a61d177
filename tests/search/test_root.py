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


@pytest.mark.parametrize(("times", "passes"), [(0.9, [SOME, ALL]), (1.2, [ALL])])
def test_ascents_for_some_neurons_come_first_only_where_those_for_all_are_dear(times: float, passes: list[str]) -> None:
    """`times`: the time left, by that with which ascents for all are just affordable."""
    graph, never = small_graph("relu", "three layers", 6), Limits(float("inf"), 1 << 30)
    query = query_of(random_parts(graph, 1, 1, 1, 6))
    program, precise = (prepare(graph, dtype) for dtype in (torch.float32, torch.float64))
    problem = build_problem(query, torch.float32, "cpu")
    task = Task(problem, program, lambda: precise, SearchSettings(), never, lambda *_: False)
    root = Root(task, problem.real)
    assert [step.name for step in root.passes[:2]] == ["double precision", SOME]  # ascents build on what comes before
    root.passes, root.seconds = root.passes[1:], 100.0
    root.limits = Limits(time.monotonic() + times * ASCENTS * root.seconds / AFFORDABLE, never.memory)
    root._spare()
    assert [step.name for step in root.passes[: len(passes)]] == passes
