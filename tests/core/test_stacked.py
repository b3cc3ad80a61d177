"""Picking and joining reach every tensor, whatever it is nested in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Multipliers
from verifier.core.interval import Interval
from verifier.core.operator import Planes
from verifier.core.stacked import join, map_tensors, pick


@dataclass(frozen=True, eq=False)
class Nested:
    box: Interval
    by_node: dict[int, tuple[Tensor, Tensor]]
    nothing: Tensor | None
    name: str
    kind: type = float


def nested(*numbers: float) -> Nested:
    one = torch.tensor(numbers)
    return Nested(Interval(one, one + 1), {3: (one * 2, one * 3)}, None, "same")


def test_pick_takes_integers_masks_and_slices() -> None:
    value = nested(1.0, 2.0, 4.0)
    for index in (torch.tensor([0, 2]), torch.tensor([True, False, True]), slice(0, 3, 2)):
        found = pick(value, index)
        assert found.box.lower.tolist() == [1.0, 4.0] and found.box.upper.tolist() == [2.0, 5.0]
        assert found.by_node[3][0].tolist() == [2.0, 8.0] and found.by_node[3][1].tolist() == [3.0, 12.0]
        assert found.nothing is None and found.name == "same" and found.kind is float
    assert pick(value, torch.tensor([2, 0, 2])).box.lower.tolist() == [4.0, 1.0, 4.0]
    assert pick(value, slice(0, 0)).box.lower.shape == (0,)


def test_join_undoes_pick() -> None:
    value = nested(*range(7))
    parts = [pick(value, slice(0, 3)), pick(value, slice(3, 3)), pick(value, slice(3, 7))]
    found = join(parts)
    assert found.box.upper.tolist() == value.box.upper.tolist()
    assert found.by_node[3][1].tolist() == value.by_node[3][1].tolist()
    assert join([value]) is value


def test_join_goes_by_keys_not_by_their_order() -> None:
    first, second = torch.zeros(1), torch.ones(1)
    assert join([{1: first, 2: second}, {2: second, 1: first}])[1].tolist() == [0.0, 0.0]


def test_what_is_none_in_a_value_stays_none() -> None:
    one = torch.ones(2, 3)
    planes = Planes((one,), None, (one,), one, simple=True)
    assert join([planes, planes]).lower_intercept is None and join([planes, planes]).simple
    assert pick(planes, slice(0, 1)).upper_intercept.shape == (1, 3)


def test_map_sees_the_tensors_of_one_place_together() -> None:
    found = map_tensors(lambda tensors: tensors[0] - tensors[1], [nested(5.0), nested(3.0)])
    assert found.box.lower.tolist() == [2.0] and found.by_node[3][1].tolist() == [6.0]


def test_multipliers_are_put_in_place() -> None:
    """Rows of all four groups, and no others."""
    mine = Multipliers({1: torch.zeros(3, 2)}, {1: torch.zeros(3, 2)}, {0: torch.zeros(3, 2)}, torch.zeros(3, 4))
    other = Multipliers({1: torch.ones(1, 2)}, {1: torch.ones(1, 2)}, {0: torch.ones(1, 2)}, torch.ones(1, 4))
    mine.put(torch.tensor([1]), other)
    for value in (mine.lower[1], mine.upper[1], mine.bounds[0], mine.weights):
        assert value.sum(1).ne(0).tolist() == [False, True, False]
