"""Case by case over inputs that the network reads only rounded to integers.

What is computed exactly from such inputs alone takes finitely many values. Each becomes a box of its own, in which the
values are inputs of zero width of what is left of the network. So positions that vary, for which there are no bounds,
become constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.program import unbounded_nodes
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.problem import Problem, with_exact_inputs
from verifier.core.query import Query
from verifier.core.rounding import down, up
from verifier.core.stacked import join
from verifier.errors import ReplayError
from verifier.search.roundings import LARGEST, Separated, separate
from verifier.search.task import Candidates

MOST_POINTS = 1 << 16  # combinations of integers that are looked at
MOST_NUMBERS = 1 << 25  # in all boxes together
AT_ONCE = 1 << 22  # numbers computed together


@dataclass(frozen=True, eq=False)
class Cases:
    """`problem`, in double precision, is about `graph`, whose inputs begin with the `inputs` original ones; `owner`
    `[boxes]`: the original box of each of its boxes."""

    graph: Graph
    problem: Problem
    owner: Tensor
    inputs: int

    def candidates(self, original: Candidates) -> Candidates:
        """Takes points of this problem to `original`, which takes those of the original one in single precision."""
        return lambda points, which: original(flat(points)[:, : self.inputs].float(), self.owner[which])


def by_cases(graph: Graph, query: Query, device: torch.device | str) -> Cases | None:
    """The question without nodes that have no bounds; None where that is not to be had, or takes too many cases.

    With all that decides its steps fixed, a network is nearly linear: rounding is what its bounds lack, if anything."""
    problem = with_exact_inputs(query, device)
    linear = [] if problem.input_rows is None else problem.input_rows.any(0).nonzero().flatten().tolist()
    separated = separate(graph, linear)
    if separated is None or unbounded_nodes(separated.rest):
        return None
    size = separated.rest.nodes[0].size
    boxes: list[Interval] = []
    owner: list[int] = []
    for number in range(len(problem.row)):
        box = problem.box.select(slice(number, number + 1))
        found = _boxes(separated, Interval(flat(box.lower), flat(box.upper)), MOST_NUMBERS // size - len(owner))
        if found is None:
            return None
        boxes.append(found)
        owner += [number] * len(found.lower)
    which = torch.tensor(owner, device=problem.row.device)
    cases = Cases(separated.rest, _over(problem, which, join(boxes)), which // 2, graph.nodes[0].size)
    _replay(graph, cases)
    return cases


def _replay(graph: Graph, cases: Cases) -> None:
    """Raises `ReplayError` where the rest differs from the original, at a corner of the first and of the last box."""
    x = cases.problem.box.lower[[0, -1]].cpu()
    original = graph.evaluate(x[:, : cases.inputs].reshape(-1, *graph.input_shape))
    if not torch.allclose(cases.graph.evaluate(x), original, rtol=1e-9, atol=1e-9, equal_nan=True):
        raise ReplayError("the network and its form by cases disagree; please report this network")


def _boxes(separated: Separated, box: Interval, most: int) -> Interval | None:
    """The cases of one box `[1, inputs]` as boxes of the rest: at most `most`, else None."""
    places, numbers = list(separated.rounded), _integers(separated, box)
    found: dict[bytes, tuple[Tensor, Tensor]] = {}
    count = max(1, AT_ONCE // separated.rest.nodes[0].size)
    for part in numbers.split(count) if numbers is not None else ():
        x = box.lower.cpu().repeat(len(part), 1)
        x[:, places] = part
        values = separated.values(x.reshape(-1, *separated.parts[0].input_shape))
        if values is None:
            return None
        for own, value in zip(part, values, strict=True):
            found.setdefault(value.numpy().tobytes(), (own, value))
        if len(found) > most:
            return None
    if not found:
        return None
    own, value = (torch.stack(list(column)).to(box.lower) for column in zip(*found.values(), strict=True))
    lower, upper = box.lower.repeat(len(found), 1), box.upper.repeat(len(found), 1)
    lower[:, places] = upper[:, places] = own
    whole = value == value.round()  # a fraction may be a rounded one
    low, high = torch.where(whole, value, down(value)), torch.where(whole, value, up(value))
    return Interval(torch.cat([lower, low], 1), torch.cat([upper, high], 1))


def _integers(separated: Separated, box: Interval) -> Tensor | None:
    """All combinations of the integers that the rounded inputs stand for, `[n, rounded]`; None where too many."""
    ranges = []
    for place, op in separated.rounded.items():
        first, last = (op.evaluate(end[0, place]).item() for end in (box.lower, box.upper))
        if not -LARGEST <= first <= last <= LARGEST:
            return None
        ranges.append(range(int(first), int(last) + 1))
    if math.prod(map(len, ranges)) > MOST_POINTS:
        return None
    columns = [torch.tensor(numbers, dtype=torch.float64) for numbers in ranges]
    return torch.cartesian_prod(*columns).reshape(-1, len(columns))


def _over(problem: Problem, which: Tensor, box: Interval) -> Problem:
    """The problem over boxes that are cases of its boxes `which`; rows about inputs say nothing about further ones."""

    def padded(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else torch.nn.functional.pad(rows, (0, box.shape[1] - rows.shape[1]))

    precise = problem.precise
    if precise is not None:
        precise = (precise[0], padded(precise[1]), precise[2])
    return replace(problem.select(which, box), input_rows=padded(problem.input_rows), precise=precise)
