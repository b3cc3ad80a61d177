"""The root of the search over neurons: the dearest bounds, once for each input box, and one subproblem for each
disjunct that they leave open.

The neurons' bounds get better in passes over the network, each about twice as dear as the one before."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.bounding.engine import Effort, at_origin, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import certain_bound, initial_multipliers, optimise
from verifier.bounding.tighten import FLOATS_PER_ELEMENT, optimised_ends, tighten_nodes
from verifier.bounding.undecided import undecided_elements
from verifier.core.flat import flat
from verifier.core.stacked import join
from verifier.search.branching import neuron_scores
from verifier.search.ends import searched_ends
from verifier.search.neurons import objective_of
from verifier.search.rows import proper
from verifier.search.subproblems import Kept, Subproblems, whole_boxes
from verifier.search.task import Task

MOST_TIGHTENED = 8  # boxes; of more than these the neurons' bounds are not optimised, which is done box by box
# Of the width of a node's neurons, by a round of splits: with less a node is left, pass by pass. First only slopes.
LEAST_GAINS = (1.0, *(0.02 / 2**k for k in range(12)))
LEAST_SHARE, MOST_SHARE = 0.4, 0.8  # of the time left, for the next pass; the more the last one gained, the more
DEARER = 2.0  # times the last pass: the least that the next one is expected to take
ROUNDED = 0.2  # of what the bounds lack: if rounding costs more, double precision is worth its price
WORTHWHILE = 0.1  # of what the bounds lack: a pass with splits that gains less is the last


class Root:
    """Bounds over each box of a task, and which of its disjuncts `still` `[boxes, disjuncts]` they leave open. Every
    disjunct must have a row. `found`: bounds of the nodes, where they are known already."""

    def __init__(self, task: Task, still: Tensor, found: NodeBounds | None = None) -> None:
        self.program, self.problem, self.settings, self.limits = task.program, task.problem, task.settings, task.limits
        self.box = self.problem.box.reshape(-1, *self.program.graph.input_shape)
        if found is None:
            effort = Effort(self.limits.memory // 2, self.limits.deadline)
            found = bound_nodes(self.program, self.box, "crown", None, effort).without_forms()
        self.found = found
        self.pairs, self.bound = still.nonzero(), self.box.lower.new_full((int(still.sum()),), -torch.inf)
        self.influence: dict[int, Tensor] = {}  # by node `[boxes, size]`: what its elements cost the open disjuncts
        self.passes = list(LEAST_GAINS)
        self.seconds, self.share = 0.0, LEAST_SHARE  # what the last pass took, and what the next may take
        self._bound_rows()

    @property
    def rounded(self) -> bool:
        """Whether a good part of what the bounds lack is rounding, so that a program in double precision serves."""
        return self.rounding > ROUNDED * float(-self.bound.clamp(max=0).sum())

    def can_tighten(self) -> bool:
        """Whether another pass is worth its time, by what the last one gained, and fits into the time left."""
        boxes = len(self.pairs[:, 0].unique())
        fits = DEARER * self.seconds < self.share * self.limits.seconds
        return bool(self.passes) and 0 < boxes <= MOST_TIGHTENED and fits

    def tighten(self) -> None:
        """One more pass."""
        began, before, least_gain = time.monotonic(), float(-self.bound.clamp(max=0).sum()), self.passes.pop(0)
        self.found = self._tightened(least_gain)
        self._bound_rows()
        self.seconds = time.monotonic() - began
        gained = 1 - float(-self.bound.clamp(max=0).sum()) / before if before > 0 else 0.0
        self.share = LEAST_SHARE + (MOST_SHARE - LEAST_SHARE) * gained
        if least_gain < 1 and gained < WORTHWHILE:
            self.passes = []

    def subproblems(self) -> tuple[Kept, Subproblems]:
        kept, (which, slot) = Kept(self.program, self.found), self.pairs.T
        objective = objective_of(self.problem, self.program, which, slot)
        return kept, whole_boxes(kept, objective, self.box, which, slot, self.bound)

    def _bound_rows(self) -> None:
        """Optimised bounds of the open disjuncts; those with positive ones are open no more."""
        size = self.program.graph.size * FLOATS_PER_ELEMENT * self.program.number_size
        self.rounding = 0.0  # what rounding costs the bounds of the open disjuncts, in sum
        for origin in {self.program.origins[source] for source in self.program.splittable}:
            self.influence[origin] = self.bound.new_zeros(len(self.box.lower), self.program.graph.nodes[origin].size)
        parts = self.pairs.split(max(1, self.limits.memory // 2 // size)) if len(self.pairs) else ()
        bounds = [self._optimised(*part.T) for part in parts]
        self.bound = torch.fmax(self.bound, proper(torch.cat([self.bound[:0], *bounds])))
        rest = (~(self.bound > 0)).nonzero().flatten()
        self.pairs, self.bound = self.pairs[rest], self.bound[rest]

    def _optimised(self, which: Tensor, slot: Tensor) -> Tensor:
        """Bounds `[n]` of disjuncts `slot` `[n]` of the boxes `which` `[n]`."""
        objective = objective_of(self.problem, self.program, which, slot)
        found = self.found.select(which)
        box = self.box if len(self.box.lower) == 1 else self.box.select(which)
        undecided = undecided_elements(self.program, found)
        neurons = undecided.neurons(found)
        dual = Dual(undecided, box, neurons, objective)
        start = initial_multipliers(undecided, neurons, objective)
        optimum = optimise(dual, start, self.settings.root, self.limits.deadline)
        dual.value(dual.projected(optimum.multipliers))
        for source, index in undecided.index.items():
            node = self.program.graph.nodes[source]
            scores = box.lower.new_zeros(len(which), node.size).index_copy_(1, index, neuron_scores(dual, source))
            scores = at_origin(self.program, source, scores.reshape(-1, *node.shape))
            self.influence[self.program.origins[source]].index_add_(0, which, flat(scores))
        form = certain_bound(self.program, box, found, undecided.index, objective, optimum.multipliers)
        bound = form.minimum(box)[:, 0]
        lost = torch.where(bound > 0, 0.0, optimum.bound - bound)
        self.rounding += float(torch.nan_to_num(lost, posinf=0.0).clamp(min=0).sum())
        return bound

    def _tightened(self, least_gain: float) -> NodeBounds:
        """Better bounds of the neurons over each box with an open disjunct."""
        parts = [self.found.select(slice(i, i + 1)) for i in range(len(self.box.lower))]
        boxes = self.pairs[:, 0].unique().tolist()
        end = time.monotonic() + self.share * max(0.0, self.limits.seconds)
        memory = self.limits.memory // 2
        for number, i in enumerate(boxes):
            now, box = time.monotonic(), self.box.select(slice(i, i + 1))
            influence = {source: total[i] for source, total in self.influence.items()}
            tightener = (
                searched_ends(self.program, box, influence, self.settings, memory, least_gain)
                if least_gain < 1
                else optimised_ends(self.program, box, self.settings.neurons, memory)
            )
            deadline = now + (end - now) / (len(boxes) - number)
            parts[i] = tighten_nodes(self.program, box, parts[i], tightener, deadline)
        return join(parts)
