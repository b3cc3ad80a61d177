"""Filtered smart branching (De Palma et al. 2021, section 4): a rule makes a shortlist, real bounds decide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.bounding.optimise import optimise
from verifier.core.stacked import pick
from verifier.search.branching.parts import split
from verifier.search.branching.rule import Choices, Rule
from verifier.search.subproblems import Kept, Subproblems
from verifier.settings import AscentSettings

LEAST_RISE = 1e-6  # of what the parent's bound lacks: a product must not be 0 where only one of the children gains

Merit = Callable[[Tensor, Tensor], Tensor]
"""Takes what each of both children gains, as shares of what the parent's bound lacks."""


def lesser(first: Tensor, second: Tensor) -> Tensor:
    return torch.minimum(first, second) + LEAST_RISE * torch.maximum(first, second)


def product(first: Tensor, second: Tensor) -> Tensor:
    return first.clamp(min=LEAST_RISE) * second.clamp(min=LEAST_RISE)


def filtered(shortlist: Rule, tried: int, iterations: int, merit: Merit) -> Rule:
    """Of the `tried` best places of a shortlist, those first whose children have the better bounds after so many
    iterations of an ascent."""

    def rule(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
        choices = shortlist(kept, domains, dual, max(most, tried), exponent)
        scores = [_merit_of(kept, domains, dual, choices, k, iterations, merit) for k in range(choices.place.shape[1])]
        return Choices(choices.place, torch.stack(scores, 1), choices.point).best(most)

    return rule


def _merit_of(
    kept: Kept, domains: Subproblems, dual: Dual, choices: Choices, rank: int, iterations: int, merit: Merit
) -> Tensor:
    """Of the choices of this rank `[n]`; minus infinity where there is none."""
    possible = (choices.score[:, rank] > -torch.inf).nonzero().flatten()
    scores = torch.full_like(choices.score[:, rank], -torch.inf)
    if len(possible):
        parents = pick(domains, possible)
        children = split(kept, parents, choices.place[possible, rank], choices.point[possible, rank])
        child = kept.dual(children, dual.objective.select(possible.repeat(2)))
        bound = optimise(child, kept.multipliers(children), AscentSettings(iterations=iterations)).bound
        lacking = (-parents.bound).clamp(min=torch.finfo(bound.dtype).tiny)
        rise = ((bound.reshape(2, -1) - parents.bound) / lacking).clamp(0.0, 1.0).nan_to_num(nan=0.0)
        scores[possible] = merit(*rise)
    return scores


def few_of_both(neurons: Rule, inputs: Rule) -> Rule:
    """A shortlist of the best places of each kind, half and half; the first of them come first."""

    def rule(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
        half = (most + 1) // 2
        parts = [part(kept, domains, dual, half, exponent) for part in (neurons, inputs)]
        return parts[0].beside(parts[1])

    return rule
