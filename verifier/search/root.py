"""The root of the search over neurons: the dearest bounds, once for each input box, and one subproblem for each
disjunct that they leave open.

The neurons' bounds get better in passes over the network, each several times as dear as the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from verifier.bounding.dual import Dual, Multipliers
from verifier.bounding.engine import Effort, at_origin, bound_nodes, seconds_of
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import certain_bound, focused, initial_multipliers, optimise
from verifier.bounding.precision import narrowed
from verifier.bounding.program import Program
from verifier.bounding.starts import Starts
from verifier.bounding.tighten import FLOATS_PER_ELEMENT, Tightener, in_order, only, optimised_ends, tighten_nodes
from verifier.bounding.tiles import in_tiles
from verifier.bounding.undecided import Undecided, undecided_elements
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.stacked import cast, join, pick
from verifier.search.condensing import Smaller
from verifier.search.ends import searched_ends
from verifier.search.influence import cheapest, influence
from verifier.search.neurons import objective_of
from verifier.search.rows import proper
from verifier.search.subproblems import Kept, Subproblems, short, whole_boxes
from verifier.search.task import Task

MOST_TIGHTENED = 8  # boxes; of more than these the neurons' bounds are not optimised, which is done box by box
LEAST_GAINS = [0.02 / 4**k for k in range(6)]  # of the width of a node's neurons, by a round of splits, in each pass
LEAST_SHARE, MOST_SHARE = 0.4, 0.8  # of the time left, for the next pass; the more the last one gained, the more
FIRST_SHARE = 0.8  # of the influence of all neurons: those that have it at the least price get ascents first
ASCENTS = 4.0  # times the pass before: what one with ascents for all of them takes at least
AT_ONCE = 6.0  # times the first bounds: the same, where there is no pass in between
AGAIN = 0.4  # of the first box's ascents, by what those of any other take, which start from where these ended
AFFORDABLE = 0.05  # of the time left: where ascents for all take less, none for some come first
LEAST_PASSES = 4  # through the network, for any row: a step of an ascent, and what is made of it
DEARER = 2.0  # times the pass before: what one with the first ascents takes at least, and one with searches
ROUNDED = 0.2  # of what the bounds lack: if rounding costs more, double precision is worth its price
WORTHWHILE = 0.1  # of what the bounds lack: a pass with splits that gains less is the last


class Pass(NamedTuple):
    """`bound` takes a box's number and a deadline, and gives better bounds of the nodes over it. It takes `dearer`
    times as long as the pass before it, or more. `name`: what is done, for tables. `again`: what a box takes that is
    not the first, by what the first takes. `spared`: left out where the pass behind it takes less than this share of
    the time left without it."""

    name: str
    bound: Callable[[int, float], NodeBounds]
    dearer: float
    again: float = 1.0
    spared: float = 0.0


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the boxes of a task: bounds `found` of all nodes, in `seconds`, or `inherited` ones of some;
    `share`: of the time left, which the first pass may take."""

    found: NodeBounds | None = None
    seconds: float = 0.0
    inherited: dict[int, Interval] | None = None
    share: float = LEAST_SHARE


NOTHING = Known()


class Root:
    """Bounds over each box of a task, and which of its disjuncts `still` `[boxes, disjuncts]` they leave open. Every
    disjunct must have a row."""

    def __init__(self, task: Task, still: Tensor, known: Known = NOTHING) -> None:
        self.program, self.problem, self.settings, self.limits = task.program, task.problem, task.settings, task.limits
        self.precise = task.precise
        self.box = self.problem.box.reshape(-1, *self.program.graph.input_shape)
        began, found = time.monotonic(), known.found
        if found is None:
            effort = Effort(self.limits.memory // 2, self.limits.deadline)
            found = bound_nodes(self.program, self.box, "crown", known.inherited, effort).without_forms()
        self.found = found
        self._shape = still.shape
        self.pairs, self.bound = still.nonzero(), self.box.lower.new_full((int(still.sum()),), -torch.inf)
        self.multipliers: Multipliers | None = None  # of the open disjuncts' bounds
        self.influence: dict[int, Tensor] = {}  # by node `[boxes, size]`: what its elements cost the open disjuncts
        # what the last pass took, and what the next may take
        self.seconds, self.share = known.seconds + time.monotonic() - began, known.share
        self.starts = Starts(self.limits.memory // 8 if len(self.box.lower) > 1 else 0)
        self.passes = self._all_passes()
        self._spare()
        self._bound_rows()

    @property
    def rounded(self) -> bool:
        """Whether a good part of what the bounds lack is rounding, so that a program in double precision serves."""
        return self.rounding > ROUNDED * float(-self.bound.clamp(max=0).sum())

    def over(self, smaller: Smaller) -> Root:
        """The same over a condensed network, with the passes that are left."""
        known = Known(smaller.bounds(self.box, self.found), smaller.ratio * self.seconds, share=self.share)
        root = Root(smaller.task, self.still, known)
        root.passes = root.passes[max(0, len(root.passes) - len(self.passes)) :]
        return root

    @property
    def few(self) -> bool:
        """Whether the boxes with open disjuncts, if any, are few enough to be tightened one by one."""
        return 0 < len(self.pairs[:, 0].unique()) <= MOST_TIGHTENED

    @property
    def still(self) -> Tensor:
        """The open disjuncts, a mask `[boxes, disjuncts]`."""
        mask = torch.zeros(self._shape, dtype=torch.bool, device=self.program.device)
        mask[self.pairs[:, 0], self.pairs[:, 1]] = True
        return mask

    @property
    def undecided(self) -> int:
        """Neurons of one box."""
        return undecided_elements(self.program, self.found).count

    def can_tighten(self) -> bool:
        """Whether another pass is worth its time, by what the last one gained, and fits into the time left."""
        if not self.passes or not self.few:
            return False
        return self.expected < self.share * self.limits.seconds

    @property
    def expected(self) -> float:
        """Seconds that the next pass takes at least."""
        if not self.passes:
            return 0.0
        count = max(1, len(self.pairs[:, 0].unique()))
        by_last = self.passes[0].dearer * self.seconds * (1 + self.passes[0].again * (count - 1)) / count
        return max(by_last, self._least(count))

    def _least(self, rows: int) -> float:
        """Seconds that any work on so many rows takes at least."""
        return seconds_of(self.program.operations_to(self.program.graph.output), LEAST_PASSES * rows)

    def tighten(self) -> None:
        """One more pass."""
        began, before = time.monotonic(), float(-self.bound.clamp(max=0).sum())
        done = self.passes.pop(0)
        self.found = self._tightened(done.bound, self.share, done.again)
        self._bound_rows()
        self.seconds = time.monotonic() - began
        gained = 1 - float(-self.bound.clamp(max=0).sum()) / before if before > 0 else 0.0
        self.share = LEAST_SHARE + (MOST_SHARE - LEAST_SHARE) * gained
        if len(self.passes) < len(LEAST_GAINS) and gained < WORTHWHILE:
            self.passes = []
        self._spare()

    def _spare(self) -> None:
        """Leave out the next pass where the one behind it costs little anyway."""
        if len(self.passes) > 1:
            first, second = self.passes[:2]
            if second.dearer * self.seconds < first.spared * self.limits.seconds:
                self.passes.pop(0)

    def tighten_by(self, over: Callable[[Interval], Tightener], share: float) -> None:
        """A pass by a tightener of another kind, made for each box, in at most this share of the time left: the neurons
        that matter most come first."""

        def bound(i: int, deadline: float) -> NodeBounds:
            (box, found), influence = self._one(i), self._influence(i)
            return tighten_nodes(self.program, box, found, in_order(influence, over(box)), deadline)

        self.found = self._tightened(bound, share)
        self._bound_rows()

    def _all_passes(self) -> list[Pass]:
        """Of several boxes no pass in double precision by itself, and none for some neurons only: ascents prove what
        they find in double precision, and those of all boxes but the first are hardly dearer."""
        several, every = len(self.box.lower) > 1, partial(self._with_slopes, 1.0)
        double = [] if self.program.dtype is torch.float64 else [Pass("double precision", self._in_double, 0.0)]
        some = Pass("alpha some neurons", partial(self._with_slopes, FIRST_SHARE), DEARER, spared=AFFORDABLE)
        splits = [Pass(f"splits to {gain:.2g}", partial(self._with_splits, gain), DEARER) for gain in LEAST_GAINS]
        if several:
            return [Pass("alpha neurons", every, AT_ONCE, AGAIN), *splits]
        return [*double, some, Pass("alpha neurons", every, ASCENTS), *splits]

    def subproblems(self) -> tuple[Kept, Subproblems]:
        kept, (which, slot) = Kept(self.program, self.found), self.pairs.T
        objective = objective_of(self.problem, self.program, which, slot)
        whole = whole_boxes(kept, objective, self.box, which, slot, self.bound)
        if self.multipliers is None:
            return kept, whole
        return kept, whole.replace(multipliers=replace(self.multipliers, bounds=whole.multipliers.bounds))

    def _bound_rows(self) -> None:
        """Optimised bounds of the open disjuncts; those with positive ones are open no more. Where there is no time for
        them, the disjuncts keep those they have, and no pass follows."""
        size = self.program.graph.size * FLOATS_PER_ELEMENT * self.program.number_size
        self.rounding = 0.0  # what rounding costs the bounds of the open disjuncts, in sum
        for origin in {self.program.origins[source] for source in self.program.splittable}:
            self.influence[origin] = self.bound.new_zeros(len(self.box.lower), self.program.graph.nodes[origin].size)
        if self._least(len(self.pairs)) > self.limits.seconds:
            self.multipliers, self.passes = None, []
            return
        undecided = undecided_elements(self.program, self.found)
        parts = self.pairs.split(max(1, self.limits.memory // 2 // size)) if len(self.pairs) else ()
        if not parts:
            return
        bound, multipliers = join([self._optimised(undecided, *part.T) for part in parts])
        self.bound = torch.fmax(self.bound, proper(bound))
        rest = (~(self.bound > 0)).nonzero().flatten()
        self.pairs, self.bound, self.multipliers = self.pairs[rest], self.bound[rest], pick(multipliers, rest)

    def _optimised(self, undecided: Undecided, which: Tensor, slot: Tensor) -> tuple[Tensor, Multipliers]:
        """Bounds `[n]` of disjuncts `slot` `[n]` of the boxes `which` `[n]`, and their multipliers in short."""
        objective = objective_of(self.problem, self.program, which, slot)
        found = self.found.select(which)
        box = self.box if len(self.box.lower) == 1 else self.box.select(which)
        undecided = undecided.select(which)
        neurons = undecided.neurons(found)
        dual = Dual(undecided, box, neurons, objective)
        start = dual.projected(initial_multipliers(undecided, neurons, objective))
        optimum = optimise(dual, focused(dual, start), self.settings.root, self.limits.deadline)
        dual.value(dual.projected(optimum.multipliers))
        for source, score in influence(dual).items():
            node, index = self.program.graph.nodes[source], undecided.index[source]
            scores = box.lower.new_zeros(len(which), node.size).index_copy_(1, index, score)
            scores = at_origin(self.program, source, scores.reshape(-1, *node.shape))
            self.influence[self.program.origins[source]].index_add_(0, which, flat(scores))
        form = certain_bound(self.program, box, found, undecided.index, objective, optimum.multipliers)
        bound = form.minimum(box)[:, 0]
        lost = torch.where(bound > 0, 0.0, optimum.bound - bound)
        self.rounding += float(torch.nan_to_num(lost, posinf=0.0).clamp(min=0).sum())
        return bound, short(optimum.multipliers)

    def _tightened(self, bound: Callable[[int, float], NodeBounds], share: float, again: float = 1.0) -> NodeBounds:
        """Better bounds of the neurons over each box with an open disjunct, by `bound`: of a box, until a deadline. All
        but the first need `again` times its time."""
        parts = [self.found.select(slice(i, i + 1)) for i in range(len(self.box.lower))]
        boxes = self.pairs[:, 0].unique().tolist()
        end = time.monotonic() + share * max(0.0, self.limits.seconds)
        for number, i in enumerate(boxes):
            now, own = time.monotonic(), again if number else 1.0
            parts[i] = bound(i, now + (end - now) * own / (own + again * (len(boxes) - number - 1)))
        return join(parts)

    def _one(self, i: int) -> tuple[Interval, NodeBounds]:
        return self.box.select(slice(i, i + 1)), self.found.select(slice(i, i + 1))

    def _influence(self, i: int) -> dict[int, Tensor]:
        """Over one box, by node `[size]`."""
        return {source: total[i] for source, total in self.influence.items()}

    def _in_double(self, i: int, deadline: float) -> NodeBounds:
        """By double precision, of the neurons that single precision leaves undecided: rounding adds up from layer to
        layer, and these are few."""
        (box, found), precise = self._one(i), self.precise()
        effort = Effort(self.limits.memory // 2, deadline)
        wide, inherited = cast(box, precise.dtype), cast(found.intervals, precise.dtype)
        return narrowed(self.program, box, bound_nodes(precise, wide, "crown", inherited, effort))

    def _with_slopes(self, share: float, i: int, deadline: float) -> NodeBounds:
        """By ascents, which start from where those over the last box ended, of the neurons that have this share of all
        influence and cost least."""
        box, found = self._one(i)
        precise, memory = self.precise(), self.limits.memory // 2
        self.starts.turn()
        settings = self.settings.neurons if len(self.box.lower) == 1 else self.settings.brief
        whole = optimised_ends(self.program, precise, box, settings, memory, self.starts)

        def make(network: Program, same: Program, key: Hashable) -> Tightener:
            return optimised_ends(network, same, box, self.settings.brief, memory, self.starts.of(key))

        chosen = cheapest(self.program, self._influence(i), share)
        tightener = only(chosen, in_tiles(self.program, precise, whole, make))
        return tighten_nodes(self.program, box, found, tightener, deadline)

    def _with_splits(self, least_gain: float, i: int, deadline: float) -> NodeBounds:
        """By searches, until a round of splits gains less than `least_gain`."""
        box, found = self._one(i)
        memory = self.limits.memory // 2
        tightener = searched_ends(self.program, box, self._influence(i), self.settings, memory, least_gain)
        return tighten_nodes(self.program, box, found, tightener, deadline)
