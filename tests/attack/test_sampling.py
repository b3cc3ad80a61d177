"""Points lie in their boxes, cover them, and are ranked by what they came near to."""

from __future__ import annotations

import torch

from tests.attack.questions import network, problem_of, row
from verifier.attack.sampling import Samples, free_inputs, random_points, scan
from verifier.core.interval import Interval


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_points_stay_in_their_box_from_uniform_to_corner() -> None:
    box = Interval(torch.tensor([[0.1, -3.0, 0.0]]), torch.tensor([[0.3, 4.0, 0.0]]))
    points = random_points(box.select(torch.zeros(400, dtype=torch.long)), generator())
    assert (points >= box.lower).all() and (points <= box.upper).all()
    at_an_end = ((points == box.lower) | (points == box.upper))[:, :2].sum(1)
    assert all((at_an_end == ends).sum() > 20 for ends in (0, 1, 2))


def test_an_input_that_only_rounding_widens_does_not_vary() -> None:
    one = torch.tensor([[1.0, 1.0]])
    up = torch.nextafter(one, one + 1)
    assert free_inputs(Interval(one, torch.where(torch.tensor([True, False]), up, 2 * one))).tolist() == [False, True]


def test_a_scan_starts_at_the_centres_and_visits_each_box() -> None:
    problem = problem_of([((0, 1),) * 4, ((2, 4),) * 4], [row({0: 1}, -9)])
    first, *rest = scan(network(4), problem, 100, generator())
    torch.testing.assert_close(first.x, torch.tensor([[0.5] * 4, [3.0] * 4]))
    which = torch.cat([found.which for found in rest])
    assert which.bincount().tolist() == [100, 100]
    for found in rest:
        box = problem.box.select(found.which)
        assert (found.x >= box.lower).all() and (found.x <= box.upper).all()


def test_a_grid_over_two_inputs_leaves_out_no_integer() -> None:
    problem = problem_of([((0, 62), (0, 62), (5, 5))], [row({0: 1}, -9)])
    cells = {tuple(x) for found in scan(network(3), problem, 4096, generator()) for x in found.x.floor().int().tolist()}
    assert cells == {(a, b, 5) for a in range(63) for b in range(63)}


def test_nearest_points_and_nearest_pairs() -> None:
    margins = torch.tensor([[3.0, 5.0], [1.0, 0.5], [4.0, torch.inf]])
    found = Samples(torch.arange(3.0).unsqueeze(1), torch.arange(3), margins)
    assert found.nearest(2).which.tolist() == [1, 0]
    near, goal = found.nearest_pairs(3)
    assert near.which.tolist() == [1, 1, 0] and goal.tolist() == [1, 0, 0]
