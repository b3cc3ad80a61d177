"""Which neuron or input to split, and the parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Sloped
from verifier.core.stacked import join
from verifier.search.subproblems import Kept, Subproblems

LOWER_WEIGHT = (
    0.5  # of the gap where the lower line is in use: its slope is optimised, it loses less than the upper one
)


@dataclass(frozen=True, eq=False)
class Choices:
    """Places to split, best first: `place` `[n, k]` and `score` `[n, k]`; minus infinity where there is none.

    A place counts the kept neurons, node by node, then the inputs."""

    place: Tensor
    score: Tensor


def estimate(domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    """The neurons whose relaxation costs the bound most: coefficient times width of the relaxation at the branch point
    (the intercept term of BaBSR, Bunel 2020). Inputs come after all neurons, by  |coefficient| width ^ exponent.

    `dual` holds the lines that the subproblems' bounds use."""
    scores = [neuron_scores(dual, source) for source in dual.undecided.index]
    neurons = torch.cat(scores, 1) if scores else domains.bound.new_zeros(len(domains), 0)
    inputs = _input_scores(domains, dual, exponent)
    both = torch.cat([torch.where(neurons > 0, neurons, -torch.inf), inputs], 1)  # any neuron before any input
    score, place = both.topk(min(most, both.shape[1]), 1)
    return Choices(place, score)


def most_costly(dual: Dual, count: int) -> dict[int, Tensor]:
    """By node, a mask `[n, size]` of the `count` neurons of each subproblem whose relaxation costs the bound most."""
    scores = {source: neuron_scores(dual, source) for source in dual.undecided.index}
    every = torch.cat(list(scores.values()), 1)
    least = every.topk(min(count, every.shape[1]), 1).values[:, -1:].clamp(min=torch.finfo(every.dtype).tiny)
    masks = {}
    for source, score in scores.items():
        mask = torch.zeros(len(score), dual.graph.nodes[source].size, dtype=torch.bool, device=score.device)
        masks[source] = mask.index_copy_(1, dual.undecided.index[source], score >= least)
    return masks


def neuron_scores(dual: Dual, source: int) -> Tensor:
    """`[n, k]`: what splitting each undecided element of an argument could gain; 0 where it cannot be split."""
    box, count = dual.neurons[source], len(dual.objective.offset)
    total = torch.zeros_like(box.lower).expand(count, -1)
    for reader in dual.graph.consumers[source]:
        if reader not in dual.lines or not isinstance(dual.undecided.readers[reader].op, Sloped):
            continue
        op, lines, planes = dual.undecided.readers[reader].op, dual.lines[reader], dual.relaxed(reader)
        assert isinstance(op, Sloped)
        point = op.branch_point(box)
        possible = op.unstable(box) & (box.lower < point) & (point < box.upper)
        low = 0.0 if planes.lower_intercept is None else planes.lower_intercept
        gap = (planes.upper_slopes[0] - planes.lower_slopes[0]) * point + planes.upper_intercept - low
        gap = gap * (LOWER_WEIGHT * lines.rows.clamp(min=0) - lines.rows.clamp(max=0))
        total = total + torch.nan_to_num(gap, nan=0.0) * possible
    return total


def _input_scores(domains: Subproblems, dual: Dual, exponent: float) -> Tensor:
    """`[n, inputs]`, all below 0: the widest input comes first among those that do not matter; minus infinity where
    there is no number in between."""
    lower, upper = flat(domains.box.lower), flat(domains.box.upper)
    middle, width, limits = lower / 2 + upper / 2, upper - lower, torch.finfo(lower.dtype)
    effect = torch.zeros_like(lower) if dual.rows is None else flat(dual.rows).abs() * width**exponent
    widest = width.amax(1, keepdim=True).clamp(min=limits.tiny)
    score = torch.where(effect > limits.tiny, -1 / effect, limits.max * (width / widest / 2 - 1))
    return torch.where((lower < middle) & (middle < upper), score, -torch.inf)


def split(kept: Kept, domains: Subproblems, place: Tensor) -> Subproblems:
    """Both parts of each subproblem, all left parts first; together they are the whole."""
    left_neurons, right_neurons = dict(domains.neurons), dict(domains.neurons)
    first = 0
    for source, index in kept.undecided.index.items():
        here = (place >= first) & (place < first + len(index))
        if bool(here.any()):
            left_neurons[source], right_neurons[source] = _split_neurons(kept, domains, source, here, place - first)
        first += len(index)
    left_box, right_box = _split_inputs(domains.box, place - first)
    half = domains.share / 2
    return join(
        [
            domains.replace(box=left_box, neurons=left_neurons, share=half),
            domains.replace(box=right_box, neurons=right_neurons, share=half),
        ]
    )


def _split_neurons(
    kept: Kept, domains: Subproblems, source: int, here: Tensor, column: Tensor
) -> tuple[Interval, Interval]:
    box = domains.neurons[source]
    rows, columns = here.nonzero().flatten(), column[here]
    element = Interval(box.lower[rows, columns], box.upper[rows, columns])
    point = element.lower
    for op in (kept.program.graph.nodes[reader].op for reader in kept.program.graph.consumers[source]):
        if isinstance(op, Sloped):  # the kink of one reader may be outside, and that of another inside
            inside = (element.lower < point) & (point < element.upper)
            point = torch.where(inside, point, op.branch_point(element))
    lower, upper = box.lower.clone(), box.upper.clone()
    upper[rows, columns], lower[rows, columns] = point, point
    return Interval(box.lower, upper), Interval(lower, box.upper)


def _split_inputs(box: Interval, column: Tensor) -> tuple[Interval, Interval]:
    rows = (column >= 0).nonzero().flatten()
    if not len(rows):
        return box, box
    shape = box.lower.shape
    lower, upper = flat(box.lower).clone(), flat(box.upper).clone()
    columns = column[rows]
    middle = lower[rows, columns] / 2 + upper[rows, columns] / 2
    lower[rows, columns], upper[rows, columns] = middle, middle
    return Interval(box.lower, upper.reshape(shape)), Interval(lower.reshape(shape), box.upper)
