"""Bounds of neurons by branch and bound: each end of each undecided neuron is searched by itself.

A backward bound of a neuron adds up what the relaxations of all earlier neurons lose. A few splits of the earlier ones
that cost it most take much of that back, and every tighter neuron tightens all later ones. (Others refine them by one
mixed-integer program each, Singh 2019; Tjeng 2019.)
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounding.dual import Objective
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.bounding.tighten import Tightener, both_ends, in_chunks
from verifier.core.interval import Interval
from verifier.core.stacked import join, pick
from verifier.search.expansion import Expander
from verifier.search.subproblems import Kept, Subproblems, whole_boxes
from verifier.search.task import Limits
from verifier.settings import SearchSettings

LEAVES = 32  # of an end, for which there must be memory
COVERED = 0.95  # of the influence of a node's neurons: those that have the rest are not worth a search
FIRST_LEVELS = 2  # splits at once in the first round: with one, two rounds are needed to gain anything


class EndSearch:
    """The ends of the elements `index` `[m]` of node `source`, over one box: end e < m is the lower one of element e,
    end m + e the upper one of it, each a tree of subproblems whose worst leaf is its bound."""

    def __init__(
        self,
        program: Program,
        box: Interval,
        found: NodeBounds,
        source: int,
        index: Tensor,
        settings: SearchSettings,
        limits: Limits,
    ) -> None:
        self.program, self.source, self.limits = program.up_to(source), source, limits
        self.kept = Kept(self.program, found.upto(source))
        self.objective = both_ends(self.program, source, index)
        self.expander = Expander(self.kept, self._objective, settings, limits, lambda points, which: False, None)
        ends = torch.arange(2 * len(index), device=program.device)
        nothing = torch.full((len(ends),), torch.inf, dtype=program.dtype, device=program.device)
        self.stuck = nothing  # by end, the worst leaf that cannot be split
        self.leaves = whole_boxes(self.kept, self._of(ends), box, torch.zeros_like(ends), ends, -nothing)

    def _objective(self, domains: Subproblems) -> Objective:
        return self._of(domains.disjunct)

    def _of(self, ends: Tensor) -> Objective:
        return self.objective.select(ends)

    def run(self, least_gain: float) -> tuple[Tensor, Tensor]:
        """Expand the worst leaves of every end as long as a round gains this share of the width of all; the bounds,
        `[m]` lower and upper ones."""
        rounds, width = 0, torch.inf
        while len(self.leaves) and time.monotonic() < self.limits.deadline:
            self._expand(self._worst(), 1 if rounds else FIRST_LEVELS)
            rounds, before, width = rounds + 1, width, self._width()
            if rounds > 2 and not before - width > least_gain * before:  # not a number: unbounded inputs
                break
        lower, upper = self.bound().reshape(2, -1)
        return lower, -upper

    def _width(self) -> float:
        return -float(self.bound().sum())

    def _expand(self, chosen: Tensor, levels: int) -> None:
        rest = torch.ones(len(self.leaves), dtype=torch.bool, device=self.program.device)
        rest[chosen] = False
        leaves = [pick(self.leaves, rest)]
        for part in chosen.split(self.expander.most):
            if time.monotonic() > self.limits.deadline:
                leaves.append(pick(self.leaves, part))
                continue
            grown = self.expander.expand(pick(self.leaves, part), False, levels)
            self.stuck = self.stuck.scatter_reduce(0, grown.stuck.disjunct, grown.stuck.bound, "amin")
            leaves.append(grown.children)
        every = join(leaves)
        self.leaves = pick(every, every.bound < self.stuck[every.disjunct])  # no other leaf can raise the bound

    def bound(self) -> Tensor:
        """Of each end `[2 m]` the worst leaf; 0 where none is left, since leaves above 0 are dropped."""
        return self.stuck.scatter_reduce(0, self.leaves.disjunct, self.leaves.bound, "amin").clamp(max=0.0)

    def _worst(self) -> Tensor:
        """Positions of the leaves with the worst bound of their end; siblings, which share their parent's, together."""
        worst = torch.full_like(self.stuck, torch.inf)
        worst.scatter_reduce_(0, self.leaves.disjunct, self.leaves.bound, "amin")
        return (self.leaves.bound <= worst[self.leaves.disjunct]).nonzero().flatten()


def searched_ends(
    program: Program,
    box: Interval,
    influence: dict[int, Tensor],
    settings: SearchSettings,
    memory: int,
    least_gain: float,
) -> Tightener:
    """Both ends of each element that matters, each by a search of its own. `influence`: by node, what the relaxation of
    each of its elements costs the bounds that are wanted, `[size]`."""
    settings = replace(settings, ascent=settings.ends)

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        limits = Limits(deadline, memory // 2)
        return EndSearch(program, box, found, source, index, settings, limits).run(least_gain)

    def most(source: int) -> int:
        leaf = program.up_to(source).graph.size * program.number_size  # at most: only undecided neurons are kept
        return memory // 2 // (2 * leaf * LEAVES)

    in_parts = in_chunks(most, tighten)

    def tighten_important(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        some = _important(influence[source][index])
        ends = Interval.unbounded(index.shape, found.intervals[source].lower)
        ends.lower[some], ends.upper[some] = in_parts(found, source, index[some], deadline)
        return ends.lower, ends.upper

    return tighten_important


def _important(influence: Tensor) -> Tensor:
    """Positions of the fewest elements that have nearly all of the influence together."""
    order = influence.argsort(descending=True)
    above = influence[order].cumsum(0) - influence[order]
    return order[above <= COVERED * influence.sum()]
