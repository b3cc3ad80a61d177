"""The rule that splits a number that nonlinear operators read, and first the one whose relaxation costs the bound most:
its coefficient times the distance of the function from the plane in use, at the point where it would be split (for ReLU
the intercept term of BaBSR, Bunel 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.search.branching.gaps import gaps
from verifier.search.branching.rule import Choices
from verifier.search.sites import Sites
from verifier.search.subproblems import Kept, Subproblems

WIDTH_WEIGHT = 0.01  # of the distance between the planes, beside that from the one in use, which may be 0


def relaxation_gap(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    """Scores are above 0; there is no choice where nothing is to be gained."""
    score, point = _site_scores(kept.sites, dual)
    place = torch.arange(kept.sites.count, device=score.device).expand_as(score)
    return Choices(place, torch.where(score > 0, score, -torch.inf), point).best(most)


def _site_scores(sites: Sites, dual: Dual) -> tuple[Tensor, Tensor]:
    """What each site could gain `[n, sites]`, and where to split it: as the one reader would that gains most."""
    parts = [(sites.of[source].expand_as(own), own, point.expand_as(own)) for source, own, point in gaps(dual, gain)]
    total = dual.objective.offset.new_zeros(len(dual.objective.offset), sites.count)
    most, chosen = total.clone(), torch.full_like(total, -torch.inf)
    for site, own, _ in parts:
        total.scatter_add_(1, site, own)
        most.scatter_reduce_(1, site, own, "amax")
    for site, own, point in parts:
        chosen.scatter_reduce_(1, site, torch.where(own >= most.gather(1, site), point, -torch.inf), "amax")
    return total, chosen


def gain(rows: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """By the distance from the plane in use, which a split takes away. For the lower line of a ReLU it is 0: the line
    goes through the kink, whatever its slope."""
    used = below * rows.clamp(min=0) - above * rows.clamp(max=0)
    return used + WIDTH_WEIGHT * (below + above) * rows.abs()
