"""Children cover their parent exactly, whatever is split; the frontier loses nothing."""

from __future__ import annotations

import itertools

import torch

from verifier.core.interval import Interval
from verifier.core.stacked import join
from verifier.search.domains import DomainBatch, Frontier
from verifier.search.splitting import choose_input, one_by_one, split_repeatedly, steepness


def domains(lower: torch.Tensor, upper: torch.Tensor) -> DomainBatch:
    count = len(lower)
    return DomainBatch(
        Interval(lower, upper),
        torch.arange(count),
        torch.ones(count, 1, dtype=torch.bool),
        torch.linspace(-1, 0, count),
        torch.full((count,), 1 / count, dtype=torch.float64),
        {},
    )


def test_children_cover_their_parent_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(5, 3, generator=generator)
    batch = domains(lower, lower + torch.rand(5, 3, generator=generator))
    children, stuck = split_repeatedly(batch, torch.rand(5, 3, generator=generator), 1.5, most=40)
    assert len(children) == 40 and not stuck.any()
    points = batch.box.lower.unsqueeze(1) + torch.rand(5, 200, 3, generator=generator) * (
        batch.box.upper - batch.box.lower
    ).unsqueeze(1)
    for parent in range(5):
        mine = children.problem == parent
        box = children.box.select(mine)
        inside = (points[parent].unsqueeze(1) >= box.lower) & (points[parent].unsqueeze(1) <= box.upper)
        assert inside.all(2).any(1).all()
        assert (box.lower >= batch.box.lower[parent]).all() and (box.upper <= batch.box.upper[parent]).all()
    volume = (children.box.upper - children.box.lower).double().prod(1).sum()
    torch.testing.assert_close(volume, (batch.box.upper - batch.box.lower).double().prod(1).sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(children.share.sum(), batch.share.sum())


def test_an_input_without_a_number_in_between_is_not_split() -> None:
    one = torch.tensor([1.0, 1.0])
    box = Interval(one[None], torch.nextafter(one, torch.tensor(2.0))[None])
    assert choose_input(torch.ones(1, 2), box, 1.5).tolist() == [-1]
    wider = Interval(box.lower, torch.tensor([[float(box.upper[0, 0]), 1.5]]))
    assert choose_input(torch.tensor([[1e9, 0.0]]), wider, 1.5).tolist() == [1]


def test_stuck_domains_are_told_apart_and_the_others_split() -> None:
    batch = domains(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [1.0]]))
    children, stuck = split_repeatedly(batch, torch.ones(2, 1), 1.5, most=2)
    assert stuck.tolist() == [True, False]
    assert children.problem.tolist() == [1, 1]
    none, all_stuck = split_repeatedly(batch.select(stuck), torch.ones(1, 1), 1.5, most=8)
    assert len(none) == 0 and all_stuck.all()


def test_padding_rows_do_not_make_an_input_steep() -> None:
    coefficients = torch.tensor([[[1.0, 0.0], [0.0, 9.0]]])
    assert steepness(coefficients, torch.tensor([[0, -1]])).tolist() == [[1.0, 0.0]]


def test_frontier_returns_the_worst_first_and_everything_once() -> None:
    batch = domains(torch.zeros(10, 1), torch.ones(10, 1))
    for most in (100, 4):  # with room, and beyond its limit
        frontier = Frontier(most)
        frontier.push(batch.select(torch.arange(5, 10)))
        frontier.push(batch.select(torch.arange(0, 5)))
        assert len(frontier) == 10 and frontier.worst() == -1.0
        parts = []
        while len(frontier):
            parts.append(frontier.pop(3))
        if most == 100:
            assert parts[0].problem.tolist() == [0, 1, 2]
        assert sorted(join(parts).problem.tolist()) == list(range(10))


def test_each_box_comes_after_its_neighbour() -> None:
    """By enumeration: of those that are left, the next box has the nearest middle."""
    generator = torch.Generator().manual_seed(3)
    lower = torch.randn(9, 2, 2, generator=generator) * torch.tensor([[1.0, 100.0], [0.01, 1.0]])
    width = torch.rand(lower.shape, generator=generator) * torch.tensor([[1.0, 100.0], [0.01, 0.0]])
    box = Interval(lower, lower + width)
    order, middle = one_by_one(box).tolist(), box.middle().flatten(1)
    assert order[0] == 0 and sorted(order) == list(range(9))
    unit = (box.upper - box.lower).flatten(1).amax(0)
    unit[3] = middle[:, 3].amax() - middle[:, 3].amin()
    for step, (here, following) in enumerate(itertools.pairwise(order)):
        nearest = min(float(((middle[other] - middle[here]) / unit).norm()) for other in order[step + 1 :])
        assert float(((middle[following] - middle[here]) / unit).norm()) <= nearest * (1 + 1e-5)


def test_no_box_is_lost_in_an_order() -> None:
    """Whatever their distances: points, far apart, of infinite size. A box that was left out would count as proved."""
    huge = torch.finfo(torch.float32).max
    for ends in ((0.0, 1.0), (-huge, huge), (-huge, torch.inf), (-torch.inf, torch.inf), (0.0, 1e-45)):
        lower = torch.tensor(ends * 3).unsqueeze(1)
        for upper in (lower, lower.clamp(min=huge), torch.full_like(lower, torch.inf)):
            assert sorted(one_by_one(Interval(lower, upper)).tolist()) == list(range(6))
