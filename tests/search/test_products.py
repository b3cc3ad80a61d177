"""The search over neurons on small networks with operators of several arguments, against a fine grid of inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.search.questions import Part, query_of, values_at
from tests.search.several import GRAPHS
from tests.search.test_neurons import outcome_of, search_of
from verifier.bounding.dual import Dual, Multipliers
from verifier.bounding.optimise import certain_bound, initial_multipliers, optimise
from verifier.core.adjustable import Adjustable, Sloped
from verifier.core.graph import Graph
from verifier.core.problem import build_problem
from verifier.core.stacked import cast
from verifier.search.neurons import objective_of
from verifier.search.subproblems import short
from verifier.settings import AscentSettings

GRID = 101
MISSES = (-0.05, 0.1, 0.5)


each = pytest.mark.parametrize("name", GRAPHS)
each_adjustable = pytest.mark.parametrize("name", [name for name in GRAPHS if name not in ("choice", "ratios")])


def question(graph: Graph, miss: float, seed: int, width: float = 0.25) -> Part:
    """A row that the best point of the grid misses by `miss`."""
    generator = np.random.default_rng(seed)
    lower = np.round(generator.uniform(-1.5, 1, 2) * 8) / 8
    upper = lower + width
    c = np.round(generator.normal(size=(1, 2)) * 4) / 4 + 0.125
    axes = [torch.linspace(low, high, GRID, dtype=torch.float64) for low, high in zip(lower, upper, strict=True)]
    least = float((values_at(graph, torch.cartesian_prod(*axes)) @ torch.from_numpy(c[0])).min())
    return lower, upper, [(c, np.zeros((1, 2)), np.array([least - miss]))]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("miss", MISSES)
@each
def test_answers_agree_with_a_grid(name: str, miss: float, seed: int) -> None:
    graph = GRAPHS[name](seed)
    with torch.no_grad():
        outcome = outcome_of(search_of(graph, query_of([question(graph, miss, seed)])))
    assert (outcome.found, outcome.complete) == (miss < 0, miss > 0)


@each
def test_splits_decide_what_bounds_leave_open(name: str) -> None:
    """Splits of arguments, which come before any input."""
    miss, width = (0.25, 1.0) if name == "ratios" else (0.05, 0.5)
    for seed in range(3):
        graph = GRAPHS[name](seed)
        with torch.no_grad():
            outcome = outcome_of(search_of(graph, query_of([question(graph, miss, seed, width)])))
        assert not outcome.found and outcome.complete
        if outcome.bounded > 1:
            return
    raise AssertionError("the bounds alone decide all")


@pytest.mark.parametrize("seed", range(6))
@each_adjustable
def test_optimised_bounds_are_below_the_grid_and_parameters_serve(name: str, seed: int) -> None:
    """A search's short form of the parameters gives the bound again, nearly."""
    graph = GRAPHS[name](seed)
    lower, upper, rows = question(graph, 0.0, seed)
    with torch.no_grad():
        query = query_of([(lower, upper, rows)])
        kept, problem = search_of(graph, query).kept, build_problem(query, torch.float32, "cpu")
        program = kept.program
        nothing = torch.zeros(1, dtype=torch.long)
        objective, box = objective_of(problem, program, nothing, nothing), problem.box.reshape(1, *graph.input_shape)
        undecided, neurons = kept.undecided, kept.undecided.neurons(kept.base)
        start = initial_multipliers(undecided, neurons, objective)
        several = [p for p in start.lower if not isinstance(graph.nodes[p].op, Sloped)]
        assert several and all(isinstance(graph.nodes[p].op, Adjustable) for p in start.lower)
        settings = AscentSettings(iterations=0, enough=float("inf"))
        dual = Dual(undecided, box, neurons, objective)
        first = optimise(dual, start, settings).bound

        def certain(free: Multipliers) -> Tensor:
            return certain_bound(program, box, kept.base, undecided.index, objective, free).minimum(box)[:, 0]

        settings = AscentSettings(iterations=40, enough=float("inf"))
        best = optimise(dual, start, settings)
        bound = certain(best.multipliers)
        assert float(bound) <= 1e-6 and float(best.bound) >= float(first)
        close = certain(cast(short(best.multipliers), torch.float32))
        torch.testing.assert_close(close, bound, rtol=0.05, atol=0.05)


@each_adjustable
def test_parameters_gain_something(name: str) -> None:
    gains = []
    for seed in range(4):
        graph = GRAPHS[name](seed)
        with torch.no_grad():
            query = query_of([question(graph, 0.0, seed)])
            kept, problem = search_of(graph, query).kept, build_problem(query, torch.float32, "cpu")
            nothing = torch.zeros(1, dtype=torch.long)
            objective = objective_of(problem, kept.program, nothing, nothing)
            box, neurons = problem.box.reshape(1, *graph.input_shape), kept.undecided.neurons(kept.base)
            bounds = []
            for iterations in (0, 40):
                start = initial_multipliers(kept.undecided, neurons, objective)
                settings = AscentSettings(iterations=iterations, enough=float("inf"))
                bounds.append(float(optimise(Dual(kept.undecided, box, neurons, objective), start, settings).bound))
            gains.append(bounds[1] - bounds[0])
    assert max(gains) > 1e-3
