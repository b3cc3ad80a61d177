"""Ends of neurons by linear programs and trees: every value is between them, and they are as near as asked for."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.backends.test_checked import pooled
from tests.search.questions import ACTIVATIONS, SHAPES, Small, random_box, small_graph
from tests.soundness.polygons import least_margin
from verifier.backends import tightening
from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import LpResult
from verifier.backends.rows import Rows
from verifier.backends.tighteners import Tighteners
from verifier.backends.tightening import End, NodeTask, Tightening, kinks_of
from verifier.bounding.engine import bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.bounding.tighten import tighten_nodes
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.ops import Abs, Conv, Maximum, Multiply, Relu, Reshape, Sigmoid, Sign, Tanh
from verifier.ops.window import Window

FOREVER = float("inf")
POINTS = 2000


def over_a_box(graph: Graph, seed: int, method: str = "interval") -> tuple[Program, Interval, NodeBounds]:
    program = prepare(graph, torch.float64)
    ends = random_box(np.random.default_rng(seed))
    lower, upper = (torch.from_numpy(end).reshape(1, *graph.input_shape) for end in ends)
    box = Interval(lower, upper)
    with torch.no_grad():
        return program, box, bound_nodes(program, box, method).without_forms()


def here(program: Program, box: Interval, solver: type[HighsSolver] = HighsSolver):  # type: ignore[no-untyped-def]
    """In this process."""

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        one = Tightening(program, NodeTask(box, found.upto(source), source, index), deadline, solver)
        one.improve()
        return one.bounds()

    return tighten


def tightened(program: Program, box: Interval, found: NodeBounds, deadline: float = FOREVER) -> NodeBounds:
    with torch.no_grad():
        return tighten_nodes(program, box, found, here(program, box), deadline)


def width(found: NodeBounds, program: Program) -> float:
    return sum(float((found.intervals[k].upper - found.intervals[k].lower).sum()) for k in program.splittable)


def check_samples(program: Program, box: Interval, found: NodeBounds) -> None:
    """Of every node; a value in double precision may be off by its rounding."""
    share = torch.rand((POINTS, *box.shape[1:]), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share[: POINTS // 2] = share[: POINTS // 2].round()
    values = program.graph.evaluate_all(box.lower + share * (box.upper - box.lower))
    for position, bounds in found.intervals.items():
        slack = 1e-12 * (1 + values[position].abs())
        assert (values[position] >= bounds.lower - slack).all() and (values[position] <= bounds.upper + slack).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_values_are_between(activation: str, shape: str) -> None:
    program, box, found = over_a_box(small_graph(activation, shape, 5), 5)
    better = tightened(program, box, found)
    check_samples(program, box, better)
    assert width(better, program) <= width(found, program)


def curved(seed: int) -> Graph:
    """Functions that lie between planes, a product and jumps."""
    b = Small(1, 2, seed=seed)
    z = b.same(Multiply(), b.same(Sigmoid(), b.dense(0, 4)), b.same(Tanh(), b.dense(0, 4)))
    z = b.same(Abs(), b.dense(b.same(Sign(), b.dense(z, 4)), 3))
    b.dense(z, 2)
    return b.graph()


def convolved(seed: int) -> Graph:
    b = Small(1, 2, seed=seed)
    z = b.add(Reshape((1, 9), (1, 1, 3, 3)), [b.dense(0, 9)], (1, 1, 3, 3))
    window = Window((3, 3), (2, 2), (2, 2), (1, 1), (1, 1), (0, 0))
    weight = (b.normal(2, 1, 2, 2) * 16).round() / 16
    z = b.add(Conv(weight, window, None), [b.same(Relu(), z)], (1, 2, 2, 2))
    b.dense(b.add(Reshape((1, 2, 2, 2), (1, 8)), [b.same(Abs(), z)], (1, 8)), 2)
    return b.graph()


OTHERS = {"curved": curved(2), "max": pooled(Maximum(), 5, 3), "convolutions": convolved(4)}


@pytest.mark.parametrize("graph", OTHERS.values(), ids=OTHERS)
def test_all_values_of_other_functions_are_between(graph: Graph) -> None:
    program, box, found = over_a_box(graph, 6)
    better = tightened(program, box, found)
    check_samples(program, box, better)
    assert width(better, program) < width(found, program)


def extremes(graph: Graph, source: int, box: Interval) -> tuple[Tensor, Tensor]:
    """Of a dense node's elements, by enumeration of the activation regions."""
    part, size = Graph(graph.nodes[: source + 1], source), graph.nodes[source].size
    ends = [flat(end)[0].numpy() for end in (box.lower, box.upper)]

    def least(sign: float) -> Tensor:
        rows = sign * np.eye(size)
        return torch.tensor([least_margin(part, *ends, [(row[None], np.zeros((1, 2)), np.zeros(1))]) for row in rows])

    return least(1.0), -least(-1.0)


def test_whoever_is_undecided_afterwards_is_so() -> None:
    """Ends are exact where a kink is in question, and half of what they lacked is gone elsewhere."""
    decided = 0
    for seed in range(16):
        graph = small_graph("relu", "three layers", seed)
        program, box, found = over_a_box(graph, seed)
        better, source = tightened(program, box, found), program.splittable[-1]
        low, high = extremes(graph, source, box)
        old, new = found.intervals[source], better.intervals[source]
        decided += int((Relu().unstable(old) & ~Relu().unstable(new)).sum())
        assert ((low < 1e-9) & (high > -1e-9))[flat(Relu().unstable(new))[0]].all()
        lacking = torch.stack([low - flat(old.lower)[0], flat(old.upper)[0] - high])
        left = torch.stack([low - flat(new.lower)[0], flat(new.upper)[0] - high])
        crossed = (flat(old.lower)[0] < 0) & (flat(old.upper)[0] > 0) & (low < 0) & (high > 0)
        assert (left >= -1e-9).all() and (left <= (1 - tightening.SHARE) * lacking + 1e-9)[:, crossed].all()
    assert decided >= 5


def test_linear_programs_alone_gain_what_the_relaxation_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """As good as optimised slopes can get, and no better: with trees more is gained."""
    graph = small_graph("relu", "three layers", 3)
    program, box, found = over_a_box(graph, 3)
    trees = width(tightened(program, box, found), program)
    monkeypatch.setattr(tightening, "NODES", 0)
    programs = tightened(program, box, found)
    check_samples(program, box, programs)
    assert trees < width(programs, program) < width(found, program)


def test_without_time_nothing_changes() -> None:
    program, box, found = over_a_box(small_graph("relu", "three layers", 4), 4)
    source = program.splittable[-1]
    low, high = here(program, box)(found, source, torch.arange(2), time.monotonic() - 1)
    assert (low == -torch.inf).all() and (high == torch.inf).all()
    assert width(tightened(program, box, found, 0.0), program) == width(found, program)


def test_when_time_is_up_what_is_known_by_then_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    program, box, found = over_a_box(small_graph("relu", "three layers", 4), 4)
    source, asked = program.splittable[-1], []
    late = Tightening._late
    monkeypatch.setattr(Tightening, "_late", lambda self: late(self) or len(asked) > 2)
    ask = Tightening._ask
    monkeypatch.setattr(Tightening, "_ask", lambda self, *given: (asked.append(given[0]), ask(self, *given)))
    index = torch.tensor([1, 0, 2])
    low, high = here(program, box)(found, source, index, FOREVER)
    old = found.intervals[source].select(0)
    assert [end.element for end in asked[:3]] == [1, 1, 0]
    assert low[0] > flat(old.lower)[0][1] or high[0] < flat(old.upper)[0][1]
    assert low[2] <= flat(old.lower)[0][2] and high[2] >= flat(old.upper)[0][2]


def test_a_solver_that_lies_does_no_harm() -> None:
    class Liar(HighsSolver):
        def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
            result = super().minimise(cutoff, seconds, fresh)
            wrong = np.random.default_rng(1).normal(size=len(result.multipliers))
            return replace(result, value=1e3, multipliers=result.multipliers * wrong)

    program, box, found = over_a_box(small_graph("relu", "three layers", 6), 6)
    with torch.no_grad():
        better = tighten_nodes(program, box, found, here(program, box, Liar), FOREVER)
    check_samples(program, box, better)


def test_several_processes_give_the_same_and_a_killed_one_loses_its_part() -> None:
    program, box, found = over_a_box(small_graph("relu", "two layers", 2), 2)
    source = program.splittable[-1]
    index = flat(Relu().unstable(found.intervals[source]))[0].nonzero().flatten()
    assert len(index) >= 2
    alone = here(program, box)(found, source, index, FOREVER)
    with Tighteners(program, 2) as tighteners:
        tighten = tighteners.over(box)
        for one, other in zip(alone, tighten(found, source, index, time.monotonic() + 600), strict=True):
            assert torch.equal(one, other)
        pid = tighteners.processes[0].start().process.pid
        os.kill(pid, signal.SIGKILL)
        low, high = tighten(found, source, index, time.monotonic() + 600)
        assert (low[0::2] == -torch.inf).all() and torch.equal(high[1::2], alone[1][1::2])
        again, _ = tighten(found, source, index, time.monotonic() + 600)
        assert torch.equal(again, alone[0])
        children = [process.start().process for process in tighteners.processes]
    assert all(child.wait(10) is not None for child in children)


def test_kinks_are_those_of_all_readers() -> None:
    program = prepare(small_graph("relu", "shared", 1), torch.float64)
    assert kinks_of(program, 1) == (0.0, 0.5, 1.5)
    assert kinks_of(prepare(curved(1), torch.float64), 1) == ()


def test_a_margin_has_both_ends_of_its_row() -> None:
    row = Rows(np.ones((1, 2)), np.zeros((1, 0)), np.zeros((1, 0)), np.array([-1.0]), np.array([2.0]))
    for sign, low, high in ((1.0, -1.25, 1.75), (-1.0, -2.25, 0.75)):
        margin = End(0, sign, -9.0, 9.0, row).margin(0.25)
        assert (margin.inputs == sign).all()
        assert margin.low < low < high < margin.high
        assert margin.low == pytest.approx(low) and margin.high == pytest.approx(high)
