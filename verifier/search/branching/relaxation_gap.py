"""The rule that splits a number that nonlinear operators read, and first the one whose relaxation costs the bound most:
its coefficient times the width of the relaxation at the branch points (the intercept term of BaBSR, Bunel 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.search.branching.rule import Choices
from verifier.search.sites import Sites
from verifier.search.subproblems import Kept, Subproblems

LOWER_WEIGHT = 0.5  # of the gap where the lower line is in use: its slope is optimised, it loses less


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
        reader, planes, boxes = dual.undecided.readers[position], dual.relaxed(position), dual.boxes(position)
        branches, gap = reader.op.branches(*boxes), planes.upper_intercept
        if planes.lower_intercept is not None:
            gap = gap - planes.lower_intercept
        for branch, low, high in zip(branches, planes.lower_slopes, planes.upper_slopes, strict=True):
            gap = gap + (high - low) * branch.point
        gap = gap * (LOWER_WEIGHT * lines.rows.clamp(min=0) - lines.rows.clamp(max=0))
        gap = torch.nan_to_num(gap, nan=0.0) * reader.op.unstable(*boxes)
        for source, box, branch in zip(reader.sources, boxes, branches, strict=True):
            possible = (box.lower < branch.point) & (branch.point < box.upper)
            yield source, gap * branch.share * possible, branch.point
