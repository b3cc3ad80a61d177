"""Which input to split, and the children."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.search.domains import DomainBatch, concatenate


def choose_input(coefficients: Tensor, owner: Tensor, box: Interval, exponent: float) -> Tensor:
    """The input with the largest  max_rows |a_i| * width_i ** exponent, `[n]`; -1 where no input can be split.

    `coefficients` `[n, S, d]` of the rows' linear forms, `owner` `[n, S]` with -1 for padding.
    """
    lower, upper = flat(box.lower), flat(box.upper)
    steep = torch.where((owner < 0).unsqueeze(2), 0.0, coefficients.abs()).amax(1)
    width = upper - lower
    middle = lower / 2 + upper / 2
    possible = (middle > lower) & (middle < upper)
    score = torch.nan_to_num(steep * width**exponent, nan=0.0, posinf=torch.finfo(width.dtype).max)
    # width alone decides where no row depends on any input
    score = torch.where(possible, score + width * torch.finfo(width.dtype).tiny, -1.0)
    best, chosen = score.max(1)
    return torch.where(best >= 0, chosen, -1)


def split(domains: DomainBatch, chosen: Tensor) -> DomainBatch:
    """Both halves of each domain along its chosen input; their union is the domain."""
    shape = domains.box.lower.shape
    lower, upper = flat(domains.box.lower), flat(domains.box.upper)
    index = chosen.unsqueeze(1)
    middle = lower.gather(1, index) / 2 + upper.gather(1, index) / 2
    left = Interval(domains.box.lower, upper.scatter(1, index, middle).reshape(shape))
    right = Interval(lower.scatter(1, index, middle).reshape(shape), domains.box.upper)
    share = domains.share / 2
    return concatenate([domains.replace(box=left, share=share), domains.replace(box=right, share=share)])
