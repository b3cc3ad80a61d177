"""Which input to split, and the children."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.stacked import join
from verifier.search.domains import DomainBatch


def steepness(coefficients: Tensor, owner: Tensor) -> Tensor:
    """How much each input matters, `[n, d]`: max over rows of |a_i|.

    `coefficients` `[n, S, d]` of the rows' linear forms, `owner` `[n, S]` with -1 for padding.
    """
    return torch.where((owner < 0).unsqueeze(2), 0.0, coefficients.abs()).amax(1)


def splittable(box: Interval) -> Tensor:
    """Which inputs have a number between their ends, `[n, d]`."""
    lower, middle, upper = flat(box.lower), flat(box.middle()), flat(box.upper)
    return (middle > lower) & (middle < upper)


def choose_input(steep: Tensor, box: Interval, exponent: float) -> Tensor:
    """The input with the largest  steep_i * width_i ** exponent, `[n]`; -1 where no input can be split."""
    width = flat(box.upper) - flat(box.lower)
    score = torch.nan_to_num(steep * width**exponent, nan=0.0, posinf=torch.finfo(width.dtype).max)
    # width alone decides where no row depends on any input
    score = torch.where(splittable(box), score + width * torch.finfo(width.dtype).tiny, -1.0)
    best, chosen = score.max(1)
    return torch.where(best >= 0, chosen, -1)


def split_repeatedly(domains: DomainBatch, steep: Tensor, exponent: float, most: int) -> tuple[DomainBatch, Tensor]:
    """Split every domain once, then again and again by the same steepness while at most `most` come of it.

    Returns the children and a mask `[n]` of the given domains that cannot be split, which have none.
    """
    chosen = choose_input(steep, domains.box, exponent)
    stuck = chosen < 0
    keep = ~stuck
    children, steep = split(domains.select(keep), chosen[keep]), steep[keep].repeat(2, 1)
    while 0 < 2 * len(children) <= most:
        chosen = choose_input(steep, children.box, exponent)
        if bool((chosen < 0).any()):
            break
        children, steep = split(children, chosen), steep.repeat(2, 1)
    return children, stuck


def split(domains: DomainBatch, chosen: Tensor) -> DomainBatch:
    """Both halves of each domain along its chosen input; their union is the domain."""
    shape = domains.box.lower.shape
    lower, upper = flat(domains.box.lower), flat(domains.box.upper)
    index = chosen.unsqueeze(1)
    middle = lower.gather(1, index) / 2 + upper.gather(1, index) / 2
    left = Interval(domains.box.lower, upper.scatter(1, index, middle).reshape(shape))
    right = Interval(lower.scatter(1, index, middle).reshape(shape), domains.box.upper)
    share = domains.share / 2
    return join([domains.replace(box=left, share=share), domains.replace(box=right, share=share)])


def one_by_one(box: Interval) -> Tensor:
    """An order `[n]` of the boxes in which each comes after the one nearest to it, of those that are left: distances of
    middles in units of the widest box, or of the largest distance along inputs on which all boxes are points."""
    middle, width = flat(box.middle()), flat(box.upper) - flat(box.lower)
    unit = width.amax(0)
    unit = torch.where(unit > 0, unit, middle.amax(0) - middle.amin(0))
    middle = middle / torch.where(unit > 0, unit, 1.0)
    farthest = torch.finfo(middle.dtype).max
    distance = torch.cdist(middle, middle).nan_to_num(nan=farthest, posinf=farthest)  # finite, unlike those once taken
    order = [0]
    while len(order) < len(middle):
        distance[:, order[-1]] = torch.inf
        order.append(int(distance[order[-1]].argmin()))
    return torch.tensor(order, device=width.device)
