"""Descent reaches what slopes lead to, on its own terms: its box, its disjunct, its step."""

from __future__ import annotations

import torch

from tests.attack.questions import network, problem_of, row
from verifier.attack.pgd import LAST_STEP, Descent
from verifier.core.problem import Problem
from verifier.ops import Abs, ArgMax, Clip, Relu

UNIT = (0.0, 1.0)


def descent(problem: Problem, x: torch.Tensor, goal: int = 0, *ops) -> Descent:
    found = Descent(network(x.shape[1], *ops), problem, torch.Generator().manual_seed(0))
    found.start(x, torch.zeros(len(x), dtype=torch.long), torch.full((len(x),), goal))
    return found


def test_points_go_to_the_minimum_of_their_own_disjunct_inside_the_box() -> None:
    problem = problem_of([(UNIT,) * 3], [row({0: 1}, -9)], [row({0: -1}, -9)])
    for goal, end in ((0, 0.0), (1, 1.0)):
        found = descent(problem, torch.full((4, 3), 0.5), goal, Abs() if goal else Clip(-9.0, 9.0))
        margins = [found.step().margins for _ in range(20)]
        assert ((found.best_x >= 0) & (found.best_x <= 1)).all()
        assert found.best.max() < margins[0][:, goal].min()
        torch.testing.assert_close(found.best_x, torch.full((4, 3), end), atol=0.01, rtol=0)


def test_a_conjunction_is_as_far_as_its_worst_row() -> None:
    """1/4 <= y <= 1/4 + 1/50 is met on the way from y = 2."""
    problem = problem_of([(UNIT,) * 3], [row({0: 1}, 0.27), row({0: -1}, -0.25)])
    found = descent(problem, torch.ones(1, 3))
    assert min(float(found.step().margins) for _ in range(60)) <= 0


def test_steps_shrink_until_a_point_rests_and_it_starts_anew() -> None:
    problem = problem_of([(UNIT,) * 3], [row({0: 1}, -9)])
    found = descent(problem, torch.zeros(2, 3))
    steps = 0
    while not len(found.done):
        found.step()
        steps += 1
    assert steps <= 40 and (found.size < LAST_STEP).all()
    old, zero = torch.tensor([1]), torch.zeros(1, dtype=torch.long)
    found.restart(old, torch.ones(1, 3), zero, zero)
    assert found.done.tolist() == [0] and found.x[1].tolist() == [1.0, 1.0, 1.0]
    found.step()
    assert found.best[1] == 11.0


def test_without_slopes_the_direction_is_random() -> None:
    """Flat where the sum is at most 1: descent leaves the plateau all the same."""
    problem = problem_of([(UNIT,) * 2], [row({0: -1}, -0.9)])
    found = descent(problem, torch.full((16, 2), 0.3), 0, Relu())
    assert min(float(found.step().margins.min()) for _ in range(30)) <= 0


def test_a_network_without_slopes_is_noticed() -> None:
    found = descent(problem_of([(UNIT,) * 2], [row({0: 1}, -9)]), torch.zeros(2, 2), 0, ArgMax(1))
    assert not found.blind
    found.step()
    assert found.blind
