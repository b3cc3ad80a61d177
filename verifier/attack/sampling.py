"""Points of the boxes, and how near each of them is to a violation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.stacked import pick

GRID_INPUTS = 3  # up to so many inputs a grid leaves no large gaps
FIRST_PIECE, PIECE_FLOATS = 64, 1 << 23  # points, and numbers of the points, that are evaluated together
POINT_WIDTH = 1e-6  # an input that varies by less, relative to its size, is a constant that was rounded outward


@dataclass(frozen=True, eq=False)
class Samples:
    """Points `x` `[n, inputs]` of boxes `which` `[n]` and the margins `[n, D]` of their disjuncts there."""

    x: Tensor
    which: Tensor
    margins: Tensor

    def nearest(self, count: int) -> Samples:
        """The `count` points with the lowest margins, lowest first."""
        return pick(self, self.margins.amin(1).argsort()[:count])

    def nearest_pairs(self, count: int) -> tuple[Samples, Tensor]:
        """The `count` lowest margins: their points, each with the disjunct `[n]` that it is near to."""
        order = self.margins.flatten().argsort()[:count]
        return pick(self, order // self.margins.shape[1]), order % self.margins.shape[1]


def free_inputs(box: Interval) -> Tensor:
    """Mask `[inputs]` of what varies in some box."""
    return flat(box.upper - box.lower > POINT_WIDTH * box.magnitude()).any(0)


def clamp(box: Interval, x: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, box.lower), box.upper)


def evaluate(graph: Graph, problem: Problem, x: Tensor, which: Tensor) -> Iterator[Samples]:
    """The margins at points `[n, inputs]` of boxes `which` `[n]`, in pieces that fit into memory."""
    piece = max(1, PIECE_FLOATS // graph.size)
    for part, boxes in zip(x.split(piece), which.split(piece), strict=True):
        yield Samples(part, boxes, problem.disjunct_margins(part, flat(graph.evaluate(part)), boxes))


def random_points(box: Interval, generator: torch.Generator) -> Tensor:
    """A point `[boxes, inputs]` of each box."""
    return _at(box, random_places(len(box.lower), box.lower.shape[1], generator).to(box.lower.device))


def random_places(count: int, inputs: int, generator: torch.Generator) -> Tensor:
    """`[count, inputs]` from 0 to 1. Each coordinate goes to an end with a chance that is drawn for the point: a third
    of the points are uniform, the others are nearer and nearer to corners."""
    place, coin = (torch.rand(count, inputs, generator=generator) for _ in range(2))
    chance = 1.5 * torch.rand(count, 1, generator=generator) - 0.5
    return torch.where(coin < chance, place.round(), place)


def scan(graph: Graph, problem: Problem, each: int, generator: torch.Generator) -> Iterator[Samples]:
    """The margins at the centres, then at about `each` points of each box: random ones, or a grid with the ends where
    few inputs vary. The pieces grow, so that what is easy to find costs little."""
    free = free_inputs(problem.box)
    boxes, inputs = torch.arange(len(problem.row), device=free.device), int(free.sum())
    centre = problem.box.middle()
    yield from evaluate(graph, problem, centre, boxes)
    grid = _grid(each, inputs) if 0 < inputs <= GRID_INPUTS and each >= 3**inputs else None
    each = each if grid is None else len(grid)
    done, piece, total = 0, FIRST_PIECE, each * len(boxes)
    while done < total:
        index = torch.arange(done, min(done + piece, total))
        place = random_places(len(index), inputs, generator) if grid is None else grid[index % each]
        which = boxes[(index // each).to(boxes.device)]
        x = centre[which]
        x[:, free] = _at(problem.box.select(which), place.to(x.device), free)
        yield from evaluate(graph, problem, x, which)
        done, piece = done + piece, min(4 * piece, max(FIRST_PIECE, PIECE_FLOATS // graph.size))


def _grid(points: int, inputs: int) -> Tensor:
    """About `points` places `[n, inputs]`, evenly from 0 to 1 along each input."""
    line = torch.linspace(0, 1, int(points ** (1 / inputs) + 1e-6))
    return torch.cartesian_prod(*[line] * inputs).reshape(-1, inputs)


def _at(box: Interval, place: Tensor, free: Tensor | slice = slice(None)) -> Tensor:
    """Points `[boxes, free]` at `place` from 0 to 1 along the inputs `free`, certainly in their box."""
    lower, upper = box.lower[:, free], box.upper[:, free]
    return torch.minimum(torch.maximum(lower + place * (upper - lower), lower), upper)
