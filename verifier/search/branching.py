"""Which neuron or input to split, and the parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.stacked import join
from verifier.search.sites import Sites
from verifier.search.subproblems import Kept, Subproblems

LOWER_WEIGHT = (
    0.5  # of the gap where the lower line is in use: its slope is optimised, it loses less than the upper one
)


@dataclass(frozen=True, eq=False)
class Choices:
    """Places to split, best first, `[n, k]` each: the `place` (a site, or behind them an input), its `score`, minus
    infinity where there is none, and the `point` at which to split it."""

    place: Tensor
    score: Tensor
    point: Tensor


def estimate(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    """The sites whose relaxations cost the bound most. Inputs come after all of them, by  |coefficient| width ^
    exponent.

    `dual` holds the planes that the subproblems' bounds use."""
    sites, points = _site_scores(kept.sites, dual)
    inputs = _input_scores(domains, dual, exponent)
    own = kept.sites.inputs[: kept.sites.count]
    inputs[:, own[own >= 0]] = torch.where(sites[:, own >= 0] > 0, -torch.inf, inputs[:, own[own >= 0]])  # not twice
    both = torch.cat([torch.where(sites > 0, sites, -torch.inf), inputs], 1)  # any site before any input
    score, place = both.topk(min(most, both.shape[1]), 1)
    middles = flat(domains.box.middle()).expand_as(inputs)
    return Choices(place, score, torch.cat([points, middles], 1).gather(1, place))


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
    each undecided element could gain (0 where it cannot be split) and at which point, `[n, k]` each.

    That is the coefficient times the width of the relaxation at the branch points (the intercept term of BaBSR, Bunel
    2020)."""
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


def _input_scores(domains: Subproblems, dual: Dual, exponent: float) -> Tensor:
    """`[n, inputs]`, all below 0: the widest input comes first among those that do not matter; minus infinity where
    there is no number in between."""
    lower, upper = flat(domains.box.lower), flat(domains.box.upper)
    middle, width, limits = lower / 2 + upper / 2, upper - lower, torch.finfo(lower.dtype)
    effect = torch.zeros_like(lower) if dual.rows is None else flat(dual.rows).abs() * width**exponent
    widest = width.amax(1, keepdim=True).clamp(min=limits.tiny)
    score = torch.where(effect > limits.tiny, -1 / effect, limits.max * (width / widest / 2 - 1))
    return torch.where((lower < middle) & (middle < upper), score, -torch.inf)


def split(kept: Kept, domains: Subproblems, place: Tensor, point: Tensor) -> Subproblems:
    """Both parts of each subproblem, all left parts first; together they are the whole."""
    sites, box = kept.sites, Interval(flat(domains.box.lower), flat(domains.box.upper))
    inputs = torch.arange(box.shape[1], device=point.device)
    halves = _split_at(box, inputs, sites.inputs[place], point)
    left_box, right_box = (half.reshape(*domains.box.shape) for half in halves)
    left_neurons, right_neurons = {}, {}
    for source, own in domains.neurons.items():
        left_neurons[source], right_neurons[source] = _split_at(own, sites.of[source], place, point)
    share = domains.share / 2
    return join(
        [
            domains.replace(box=left_box, neurons=left_neurons, share=share),
            domains.replace(box=right_box, neurons=right_neurons, share=share),
        ]
    )


def _split_at(box: Interval, sites: Tensor, place: Tensor, point: Tensor) -> tuple[Interval, Interval]:
    """Numbers `[n, k]` at `sites` `[k]`, of which each subproblem splits those at its `place` `[n]`: below its `point`
    `[n]`, and above."""
    here, at = sites == place.unsqueeze(1), point.unsqueeze(1)
    if not bool(here.any()):
        return box, box
    upper = torch.where(here, torch.minimum(box.upper, at), box.upper)
    return Interval(box.lower, upper), Interval(torch.where(here, torch.maximum(box.lower, at), box.lower), box.upper)
