"""Branch and bound over the phases of neurons, and over inputs where no neuron is left to split.

Each subproblem is one disjunct of one input box. Its bound is optimised from its parent's multipliers; what it proves
is dropped, the minimiser of its relaxation is tried as a violation, its box is clipped, and it is split.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import Dual, Multipliers, Objective, Optimum, certain_bound, optimise
from verifier.bounding.program import Program
from verifier.core.events import Observer, Progress
from verifier.core.flat import flat
from verifier.core.problem import Problem
from verifier.core.rounding import narrow_down
from verifier.core.stacked import cast, join, pick
from verifier.search.branching import estimate, most_costly, split
from verifier.search.domains import Frontier
from verifier.search.measured import BatchSize, SmallerTree
from verifier.search.outcome import Candidates, Limits, Outcome
from verifier.search.rows import clip_by
from verifier.search.subproblems import Kept, Subproblems
from verifier.settings import SearchSettings

REFRESHED = 64  # neurons of a subproblem of which new bounds are computed
FIRST_FLOATS = 1 << 20  # elements of all nodes in a first batch: fewer are bounded in hardly less time
LIVE_FLOATS = 16  # alive for each element of each node while a batch is bounded


class NeuronSearch:
    """A search from `roots`, which `kept` describes. `run` may be called again to go on where it stopped."""

    def __init__(
        self,
        kept: Kept,
        roots: Subproblems,
        precise: Callable[[], Program],
        problem: Problem,
        settings: SearchSettings,
        limits: Limits,
        candidates: Candidates,
        observer: Observer,
    ) -> None:
        self.kept, self.program, self.problem = kept, kept.program, problem
        self.precise = precise
        self.settings, self.limits = settings, limits
        self.candidates, self.observer = candidates, observer
        self.frontier: Frontier[Subproblems] = Frontier(self._most_subproblems())
        self.frontier.push(roots)
        self.batch = BatchSize(max(16, FIRST_FLOATS // self.program.graph.size), self._most_at_once())
        self.refreshing = SmallerTree()
        self.rise = 0.0, 0.0
        self.started = time.monotonic()
        self.bounded = self.stuck = 0
        self.left = float(roots.share.sum())
        self.stuck_bound = float("inf")
        self.leftover: list[Subproblems] = []

    def run(self, pause: float = float("inf")) -> Outcome:
        """Until all is proved, a violation is found, time is up, or `pause` seconds after at least one batch."""
        found = False
        pause_at = time.monotonic() + pause
        while not found and len(self.frontier) and time.monotonic() < self.limits.deadline:
            domains = self.frontier.pop(self.batch.size)
            began, refresh = time.monotonic(), self.refreshing.choose()
            children, left, found = self._step(domains, refresh)
            seconds = time.monotonic() - began
            self.refreshing.note(refresh, len(domains), *self.rise, seconds)
            self.batch.note(len(domains), seconds)
            self._count(domains, children, left)
            if time.monotonic() > pause_at:
                break
        return Outcome(
            found=found,
            open=len(self.frontier),
            stuck=self.stuck,
            bounded=self.bounded,
            proved=self.proved,
            bound=min(self.frontier.worst(), self.stuck_bound),
        )

    @property
    def proved(self) -> float:
        return min(max(1 - self.left, 0.0), 1.0) if len(self.frontier) or self.stuck else 1.0

    def undecided(self, boxes: int) -> Tensor:
        """Which of the problem's boxes have subproblems left, a mask `[boxes]`."""
        mask = torch.zeros(boxes, dtype=torch.bool, device=self.program.device)
        for batch in (*self.frontier.batches, *self.leftover):
            mask[batch.problem] = True
        return mask

    def _count(self, domains: Subproblems, children: Subproblems, left: Subproblems) -> None:
        self.frontier.push(children)
        self.bounded += len(domains)
        self.stuck += len(left)
        self.leftover.append(left)
        self.stuck_bound = min(self.stuck_bound, float(left.bound.min()) if len(left) else float("inf"))
        self.left += float(children.share.sum()) + float(left.share.sum()) - float(domains.share.sum())
        worst = min(self.frontier.worst(), self.stuck_bound)
        elapsed = time.monotonic() - self.started
        self.observer(Progress(elapsed, len(self.frontier), self.bounded, self.proved, worst))

    def _most_at_once(self) -> int:
        size = self.program.graph.size * LIVE_FLOATS * self.program.number_size
        return max(1, min(self.settings.batch, self.limits.memory // 2 // size))

    def _most_subproblems(self) -> int:
        size = 2 * self.program.graph.nodes[0].size * 4 + self.kept.count * 16 + 100
        return max(1, self.limits.memory // 4 // size)

    def _step(self, domains: Subproblems, refresh: bool) -> tuple[Subproblems, Subproblems, bool]:
        """One batch: its open children, those that cannot be split further, and whether a violation was found.

        `refresh`: compute the bounds of the neurons anew, instead of only inheriting them."""
        none = pick(domains, slice(0, 0))
        self.rise = _rise(domains.bound, torch.zeros_like(domains.bound))  # of one that contradicts itself
        objective = objective_of(self.problem, self.program, domains.problem, domains.disjunct)
        found = self._refreshed(domains, objective) if refresh else self._propagated(domains)
        domains = domains.replace(neurons=self.kept.neurons(found))
        whole = (~domains.contradicts()).nonzero().flatten()
        if len(whole) < len(domains):
            domains, found, objective = pick(domains, whole), found.select(whole), objective.select(whole)
        if not len(domains):
            return none, none, False
        free = self.kept.expand(domains.multipliers, found)
        optimum = optimise(
            self.program, domains.box, found, objective, free, self.settings.ascent, self.limits.deadline
        )
        form = certain_bound(self.program, domains.box, found, objective, optimum.multipliers)
        bound = form.minimum(domains.box)[:, 0]
        bound = self._recheck(domains, found, objective, optimum, bound)
        proved = bound.isfinite() & (bound > 0)
        self.rise = _rise(domains.bound, bound)
        domains = domains.replace(
            bound=torch.fmax(bound, domains.bound), multipliers=self.kept.compress(optimum.multipliers)
        )
        still = (~proved).nonzero().flatten()
        if not len(still):
            return none, none, False
        if self.candidates(optimum.minimiser[still], domains.problem[still]):
            return pick(domains, still), none, True
        domains, found, objective = pick(domains, still), found.select(still), objective.select(still)
        domains = domains.replace(box=clip_by(pick(form, still), domains.box))
        alive = flat(domains.box.lower <= domains.box.upper).all(1).nonzero().flatten()
        if len(alive) < len(domains):
            domains, found, objective = pick(domains, alive), found.select(alive), objective.select(alive)
            still = still[alive]
        if not len(domains):
            return none, none, False
        return *self._branch(domains, found, objective, pick(optimum.multipliers, still)), False

    def _recheck(
        self, domains: Subproblems, found: NodeBounds, objective: Objective, optimum: Optimum, bound: Tensor
    ) -> Tensor:
        """The bounds, in double precision where only the rounding of single precision keeps one from being positive."""
        close = ((optimum.bound > 0) & ~(bound > 0)).nonzero().flatten()
        if not len(close) or not self.problem.exact:
            return bound
        wide = lambda part: cast(part, torch.float64)  # noqa: E731
        box, known = wide(domains.box.select(close)), wide(found.select(close))
        rows, multipliers = wide(objective.select(close)), wide(pick(optimum.multipliers, close))
        form = certain_bound(self.precise(), box, known, rows, multipliers)
        return bound.index_copy(0, close, narrow_down(form.minimum(box)[:, 0], bound.dtype))

    def _refreshed(self, domains: Subproblems, objective: Objective) -> NodeBounds:
        """Bounds of the nodes, computed anew for the neurons that the parent's bound relies on most."""
        inherited = self.kept.node_bounds(domains)
        dual = Dual(self.program, domains.box, inherited, objective)
        dual.value(dual.projected(self.kept.expand(domains.multipliers, inherited)))
        effort = Effort(self.limits.memory // 2, self.limits.deadline, most_costly(self.kept, dual, REFRESHED))
        return bound_nodes(self.program, domains.box, "crown", inherited.intervals, effort)

    def _propagated(self, domains: Subproblems) -> NodeBounds:
        """Bounds of the nodes, inherited and by interval arithmetic. That costs little and shows most subproblems that
        contradict themselves, which otherwise are split down to points."""
        return bound_nodes(self.program, domains.box, "interval", self.kept.intervals(domains))

    def _branch(
        self, domains: Subproblems, found: NodeBounds, objective: Objective, free: Multipliers
    ) -> tuple[Subproblems, Subproblems]:
        """Children, and the subproblems that cannot be split."""
        dual = Dual(self.program, domains.box, found, objective)
        dual.value(dual.projected(free))
        levels = self._levels(len(domains))
        choices = estimate(self.kept, domains, dual, levels, self.settings.width_exponent)
        possible = choices.score[:, 0] > -torch.inf
        left, rest = pick(domains, ~possible), possible.nonzero().flatten()
        domains, choices = pick(domains, rest), pick(choices, rest)
        if not len(domains):
            return domains, left
        children, place, score = domains, choices.place, choices.score
        for level in range(place.shape[1]):
            again = score[:, level] > -torch.inf
            kept = pick(children, ~again)
            parts = split(self.kept, pick(children, again), place[again, level])
            children = join([kept, parts])
            place = torch.cat([place[~again], place[again].repeat(2, 1)])
            score = torch.cat([score[~again], score[again].repeat(2, 1)])
        return children, left

    def _levels(self, count: int) -> int:
        """How many splits at once: several while the frontier is too small to fill a batch."""
        open_now, levels = count + len(self.frontier), 1
        while open_now * 2 ** (levels + 1) <= self.batch.size and levels < self.settings.levels:
            levels += 1
        return levels


def _rise(before: Tensor, after: Tensor) -> tuple[float, float]:
    """What the parents' bounds lacked to zero, and how much of it their children gained; sums."""
    lacking = torch.nan_to_num(-before.clamp(max=0), posinf=0.0)
    raised = torch.nan_to_num(torch.minimum(after - before, lacking), nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
    return float(lacking.sum()), float(raised.sum())


def objective_of(problem: Problem, program: Program, which: Tensor, disjunct: Tensor) -> Objective:
    """The rows of disjunct `disjunct` `[n]` of box `which` `[n]`; one with fewer rows than others repeats its first, so
    that subproblems of any of them have as many weights."""
    owner = problem.owner[which]
    mine = owner == disjunct.unsqueeze(1)
    slot = mine.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : problem.most_rows]
    slot = torch.where(mine.gather(1, slot), slot, slot[:, :1])
    table = problem.row[which].gather(1, slot)
    output = program.graph.output
    rows = {output: problem.output_rows[table].reshape(*slot.shape, *program.graph.output_shape)}
    if problem.input_rows is not None:
        inputs = problem.input_rows[table].reshape(*slot.shape, *program.graph.input_shape)
        rows[0] = inputs + rows[0] if output == 0 else inputs
    return Objective(rows, problem.offset[which].gather(1, slot), problem.exact)
