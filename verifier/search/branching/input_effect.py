"""The rule that splits inputs: first the one with the largest  |coefficient| width ^ exponent."""

from __future__ import annotations

import torch

from verifier.bounding.dual import Dual
from verifier.core.flat import flat
from verifier.search.branching.rule import Choices
from verifier.search.splitting import splittable
from verifier.search.subproblems import Kept, Subproblems


def input_effect(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    """Scores are below 0; the widest input comes first among those that do not matter. There is no choice where there
    is no number in between."""
    lower, upper = flat(domains.box.lower), flat(domains.box.upper)
    width, limits = upper - lower, torch.finfo(lower.dtype)
    effect = torch.zeros_like(lower) if dual.rows is None else flat(dual.rows).abs() * width**exponent
    widest = width.amax(1, keepdim=True).clamp(min=limits.tiny)
    score = torch.where(effect > limits.tiny, -1 / effect, limits.max * (width / widest / 2 - 1))
    score = torch.where(splittable(domains.box), score, -torch.inf)
    place = kept.sites.count + torch.arange(lower.shape[1], device=lower.device)
    return Choices(place.expand_as(score), score, flat(domains.box.middle())).best(most)
