"""Which neurons' bounds matter to the bound of a row: by coefficient and distance of the planes between which a neuron
lies. Other bounds move both planes, so that this is not what a split gains, which makes the function straight."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.bounding.fields import row_price
from verifier.bounding.program import Program
from verifier.search.branching.gaps import gaps

LOWER_WEIGHT = 0.5  # where the lower line is in use: its slope is optimised, it loses less


def influence(dual: Dual) -> dict[int, Tensor]:
    """By argument `[n, k]`: what the bounds of each undecided element could gain the row, by all that read it."""
    count = len(dual.objective.offset)
    totals = {k: torch.zeros_like(box.lower).expand(count, -1) for k, box in dual.neurons.items()}
    for source, score, _ in gaps(dual, width):
        totals[source] = totals[source] + score
    return totals


def most_influential(dual: Dual, count: int) -> dict[int, Tensor]:
    """By node, a mask `[n, size]` of the `count` neurons of each subproblem that have most influence."""
    scores = influence(dual)
    every = torch.cat(list(scores.values()), 1)
    least = every.topk(min(count, every.shape[1]), 1).values[:, -1:].clamp(min=torch.finfo(every.dtype).tiny)
    masks = {}
    for source, score in scores.items():
        mask = torch.zeros(len(score), dual.graph.nodes[source].size, dtype=torch.bool, device=score.device)
        masks[source] = mask.index_copy_(1, dual.undecided.index[source], score >= least)
    return masks


def cheapest(program: Program, influence: dict[int, Tensor], share: float) -> dict[int, Tensor]:
    """By node, a mask `[size]` of the elements that have this share of all `influence` `[size]` together, taken in the
    order of what they have for the price of a row."""
    score = torch.cat([own / row_price(program.graph, source) for source, own in influence.items()])
    total = torch.cat(list(influence.values())).double()  # unbounded neurons have the largest number there is
    order = score.argsort(descending=True)
    before = total[order].cumsum(0) - total[order]
    mask = torch.zeros_like(total, dtype=torch.bool).index_copy_(0, order, before < share * total.sum())
    return dict(zip(influence, mask.split([len(own) for own in influence.values()]), strict=True))


def width(rows: Tensor, below: Tensor, above: Tensor) -> Tensor:
    return (below + above) * (LOWER_WEIGHT * rows.clamp(min=0) - rows.clamp(max=0))
