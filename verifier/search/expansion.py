"""One step of branch and bound over neurons: a batch of subproblems is bounded, cut down, and split.

A bound is optimised from the parent's multipliers. What it proves is dropped, the minimiser of its relaxation is tried
as a violation, the box is clipped to where the bound's own row can be violated, and what is left is split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Dual, Objective
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import Optimum, certain_bound, optimise, precise_bound
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.stacked import join, pick
from verifier.search.branching.neurons_first import neurons_first
from verifier.search.branching.parts import split
from verifier.search.branching.rule import Rule
from verifier.search.influence import most_influential
from verifier.search.measured import rise_of
from verifier.search.rows import clip_by, proper
from verifier.search.subproblems import Kept, Subproblems, short
from verifier.search.task import Candidates, Limits
from verifier.settings import SearchSettings

REFRESHED = 64  # neurons of a subproblem of which new bounds are computed
LIVE_FLOATS = 24  # alive for each element of each node while a batch is bounded


@dataclass(frozen=True, eq=False)
class Expanded:
    """`children` and `stuck`: the parts that are still open, and the open subproblems that cannot be split. `found`: a
    violation was confirmed. `lacking`, `raised`: what the parents' bounds lacked to zero, and how much was gained."""

    children: Subproblems
    stuck: Subproblems
    found: bool
    lacking: float
    raised: float


class Expander:
    """Expands subproblems that `kept` describes, each with the rows that `objective` gives for it.

    `precise`: how to get the program in double precision for close calls, None where they do not matter. `rule`: which
    place to split."""

    def __init__(
        self,
        kept: Kept,
        objective: Callable[[Subproblems], Objective],
        settings: SearchSettings,
        limits: Limits,
        candidates: Candidates,
        precise: Callable[[], Program] | None,
        rule: Rule = neurons_first,
    ) -> None:
        self.kept, self.program, self.objective = kept, kept.program, objective
        self.settings, self.limits = settings, limits
        self.candidates, self.precise, self.rule = candidates, precise, rule
        self._index = kept.undecided.index

    @property
    def most(self) -> int:
        """Subproblems that can be expanded at once: the setting, or as many as the memory budget holds."""
        size = self.program.graph.size * LIVE_FLOATS * self.program.number_size
        return max(1, min(self.settings.batch, self.limits.memory // 2 // size))

    def expand(self, domains: Subproblems, refresh: bool, levels: int) -> Expanded:
        """`refresh`: compute the bounds of the neurons anew, instead of only inheriting them. `levels`: so many splits,
        one after the other."""
        none, before = pick(domains, slice(0, 0)), domains.bound
        objective = self.objective(domains)
        found = self._refreshed(domains, objective) if refresh else self._propagated(domains)
        domains = domains.replace(neurons=self.kept.undecided.neurons(found))
        whole = (~domains.contradicts()).nonzero().flatten()
        if len(whole) < len(domains):
            domains, found, objective = pick(domains, whole), found.select(whole), objective.select(whole)
        lacking, raised = rise_of(before, torch.zeros_like(before))  # as for one that contradicts itself
        if not len(domains):
            return Expanded(none, none, False, lacking, raised)
        dual = self.kept.dual(domains, objective)
        optimum = optimise(dual, self.kept.multipliers(domains), self.settings.ascent, self.limits.deadline)
        form = certain_bound(self.program, domains.box, found, self._index, objective, optimum.multipliers)
        bound = proper(self._recheck(domains, found, objective, optimum, form.minimum(domains.box)[:, 0]))
        lacking, raised = rise_of(domains.bound, bound)
        domains = domains.replace(bound=torch.fmax(bound, domains.bound), multipliers=short(optimum.multipliers))
        still = (~(bound > 0)).nonzero().flatten()
        if len(still) and self.candidates(optimum.minimiser[still], domains.problem[still]):
            return Expanded(pick(domains, still), none, True, lacking, raised)
        domains = domains.replace(box=clip_by(form, domains.box))
        still = still[flat(domains.box.lower <= domains.box.upper).all(1)[still]]
        if not len(still):
            return Expanded(none, none, False, lacking, raised)
        dual = self.kept.dual(pick(domains, still), objective.select(still))
        dual.value(dual.projected(pick(optimum.multipliers, still)))
        return Expanded(*self._branch(pick(domains, still), dual, levels), False, lacking, raised)

    def _recheck(
        self, domains: Subproblems, found: NodeBounds, objective: Objective, optimum: Optimum, bound: Tensor
    ) -> Tensor:
        """The bounds, in double precision where only the rounding of single precision keeps one from being positive."""
        close = ((optimum.bound > 0) & ~(bound > 0)).nonzero().flatten()
        if not len(close) or self.precise is None or not objective.exact:
            return bound
        box, known, multipliers = domains.box.select(close), found.select(close), pick(optimum.multipliers, close)
        better = precise_bound(self.precise(), box, known, self._index, objective.select(close), multipliers)
        return bound.index_copy(0, close, better)

    def _refreshed(self, domains: Subproblems, objective: Objective) -> NodeBounds:
        """Bounds of the nodes, computed anew for the neurons that matter most to the parent's bound."""
        dual = self.kept.dual(domains, objective)
        dual.value(dual.projected(self.kept.multipliers(domains)))
        effort = Effort(self.limits.memory // 2, self.limits.deadline, most_influential(dual, REFRESHED))
        return bound_nodes(self.program, domains.box, "crown", self.kept.intervals(domains), effort)

    def _propagated(self, domains: Subproblems) -> NodeBounds:
        """Bounds of the nodes, inherited and by interval arithmetic. That costs little and shows most subproblems that
        contradict themselves, which otherwise are split down to points."""
        return bound_nodes(self.program, domains.box, "interval", self.kept.intervals(domains))

    def _branch(self, domains: Subproblems, dual: Dual, levels: int) -> tuple[Subproblems, Subproblems]:
        """Children, and the subproblems that cannot be split."""
        choices = self.rule(self.kept, domains, dual, levels, self.settings.width_exponent)
        possible = choices.score[:, 0] > -torch.inf
        left, rest = pick(domains, ~possible), possible.nonzero().flatten()
        domains, choices = pick(domains, rest), pick(choices, rest)
        if not len(domains):
            return domains, left
        children = domains
        for level in range(choices.place.shape[1]):
            again = choices.score[:, level] > -torch.inf
            chosen = pick(choices, again)
            parts = split(self.kept, pick(children, again), chosen.place[:, level], chosen.point[:, level])
            children, choices = join([pick(children, ~again), parts]), join([pick(choices, ~again), chosen, chosen])
        return children, left
