"""Filtered smart branching (De Palma et al. 2021, section 4): a rule makes a shortlist, real bounds decide."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.bounding.optimise import optimise
from verifier.core.stacked import pick
from verifier.search.branching.parts import split
from verifier.search.branching.rule import Choices, Rule
from verifier.search.subproblems import Kept, Subproblems
from verifier.settings import AscentSettings

INHERITED = AscentSettings(iterations=0)
LEAST_RISE = 1e-6  # of what the parent's bound lacks: the product is not 0 where only one child gains


def filtered(shortlist: Rule, tried: int) -> Rule:
    """Of the `tried` best places of a shortlist, those first whose children gain more with the multipliers that
    they inherit: by the product of what both gain, as shares of what their parent lacks."""

    def rule(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
        choices = shortlist(kept, domains, dual, max(most, tried), exponent)
        scores = [_merit_of(kept, domains, dual, choices, k) for k in range(choices.place.shape[1])]
        return Choices(choices.place, torch.stack(scores, 1), choices.point).best(most)

    return rule


def _merit_of(kept: Kept, domains: Subproblems, dual: Dual, choices: Choices, rank: int) -> Tensor:
    """Of the choices of this rank `[n]`; minus infinity where there is none."""
    possible = (choices.score[:, rank] > -torch.inf).nonzero().flatten()
    scores = torch.full_like(choices.score[:, rank], -torch.inf)
    if len(possible):
        parents = pick(domains, possible)
        children = split(kept, parents, choices.place[possible, rank], choices.point[possible, rank])
        child = kept.dual(children, dual.objective.select(possible.repeat(2)))
        bound = optimise(child, kept.multipliers(children), INHERITED).bound
        lacking = (-parents.bound).clamp(min=torch.finfo(bound.dtype).tiny)
        rise = ((bound.reshape(2, -1) - parents.bound) / lacking).clamp(0.0, 1.0).nan_to_num(nan=0.0)
        scores[possible] = rise.clamp(min=LEAST_RISE).prod(0)
    return scores


def few_of_both(neurons: Rule, inputs: Rule) -> Rule:
    """A shortlist of the best places of each kind, half and half; the first of them come first."""

    def rule(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
        half = (most + 1) // 2
        parts = [part(kept, domains, dual, half, exponent) for part in (neurons, inputs)]
        return parts[0].beside(parts[1])

    return rule
