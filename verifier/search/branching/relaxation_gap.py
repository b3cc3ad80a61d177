"""The rule that splits a number that nonlinear operators read, and first the one whose relaxation costs the bound most:
its coefficient times the distance of the function from the plane in use, at the point where it would be split (for ReLU
the intercept term of BaBSR, Bunel 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.core.operator import Elementwise, Planes
from verifier.search.branching.rule import Choices
from verifier.search.sites import Sites
from verifier.search.subproblems import Kept, Subproblems

WIDTH_WEIGHT = 0.01  # of the distance of both planes, beside that of the one in use: ends ties, where that is 0


def relaxation_gap(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    """Scores are above 0; there is no choice where nothing is to be gained."""
    score, point = _site_scores(kept.sites, dual)
    place = torch.arange(kept.sites.count, device=score.device).expand_as(score)
    return Choices(place, torch.where(score > 0, score, -torch.inf), point).best(most)


def most_costly(dual: Dual, count: int) -> dict[int, Tensor]:
    """By node, a mask `[n, size]` of the `count` neurons of each subproblem whose relaxation costs the bound most."""
    scores = neuron_scores(dual)
    every = torch.cat(list(scores.values()), 1)
    least = every.topk(min(count, every.shape[1]), 1).values[:, -1:].clamp(min=torch.finfo(every.dtype).tiny)
    masks = {}
    for source, score in scores.items():
        mask = torch.zeros(len(score), dual.graph.nodes[source].size, dtype=torch.bool, device=score.device)
        masks[source] = mask.index_copy_(1, dual.undecided.index[source], score >= least)
    return masks


def neuron_scores(dual: Dual) -> dict[int, Tensor]:
    """By argument `[n, k]`: what splitting each undecided element could gain, by all that read it."""
    count = len(dual.objective.offset)
    totals = {k: torch.zeros_like(box.lower).expand(count, -1) for k, box in dual.neurons.items()}
    for source, score, _ in _branches(dual):
        totals[source] = totals[source] + score
    return totals


def _site_scores(sites: Sites, dual: Dual) -> tuple[Tensor, Tensor]:
    """The same by site `[n, sites]`, and where to split it: as the one reader would that gains most."""
    parts = [(sites.of[source].expand_as(own), own, point.expand_as(own)) for source, own, point in _branches(dual)]
    total = dual.objective.offset.new_zeros(len(dual.objective.offset), sites.count)
    most, chosen = total.clone(), torch.full_like(total, -torch.inf)
    for site, own, _ in parts:
        total.scatter_add_(1, site, own)
        most.scatter_reduce_(1, site, own, "amax")
    for site, own, point in parts:
        chosen.scatter_reduce_(1, site, torch.where(own >= most.gather(1, site), point, -torch.inf), "amax")
    return total, chosen


def _branches(dual: Dual) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each argument of each nonlinear node that the rows came through: the node that computes it, what splitting
    each undecided element could gain (0 where it cannot be split) and at which point, `[n, k]` each."""
    for position, lines in dual.lines.items():
        reader, boxes = dual.undecided.readers[position], dual.boxes(position)
        branches = reader.op.branches(*boxes)
        points = [
            torch.minimum(torch.maximum(branch.point, box.lower), box.upper)
            for branch, box in zip(branches, boxes, strict=True)
        ]
        below, above = _distances(reader.op, dual.relaxed(position), points)
        cost = below * lines.rows.clamp(min=0) - above * lines.rows.clamp(max=0)
        cost = torch.nan_to_num(cost, nan=0.0) * reader.op.unstable(*boxes)
        for source, box, branch in zip(reader.sources, boxes, branches, strict=True):
            possible = (box.lower < branch.point) & (branch.point < box.upper)
            yield source, cost * branch.share * possible, branch.point


def _distances(op: Elementwise, planes: Planes, points: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of the function from the plane below it and from the one above, at the branch points, and a little of the
    distance between these."""
    low, high = planes.lower_intercept, planes.upper_intercept
    low = torch.zeros_like(high) if low is None else low
    for point, below, above in zip(points, planes.lower_slopes, planes.upper_slopes, strict=True):
        low, high = low + below * point, high + above * point
    value = torch.minimum(torch.maximum(op.evaluate(*points), low), high)
    return value - low + WIDTH_WEIGHT * (high - low), high - value + WIDTH_WEIGHT * (high - low)
