"""Branch and bound over inputs: pick a batch, bound it, drop what is proved, clip, look for a violation, split, push.

Each domain is a box of inputs with the disjuncts that are still possible in it. A domain whose box can be split no
further is set aside and the search goes on; it is what makes the answer `unknown` in the end.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward_to_neurons
from verifier.bounding.engine import Effort, bound_nodes, forward_pays, seconds_of
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.bounding.specification import bound_rows
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.rounding import down, narrow_down
from verifier.core.stacked import cast, pick
from verifier.search.condensing import Smaller
from verifier.search.domains import DomainBatch
from verifier.search.driver import Driver
from verifier.search.measured import BatchSize, SmallerTree, rise_of
from verifier.search.rows import Rows, clip, combine, open_rows, refuted
from verifier.search.splitting import split_repeatedly, splittable, steepness
from verifier.search.task import Task

CHEAP_BATCH, CHEAP_FLOATS = 32, 40_000  # domains, and floats of all their nodes, that are bounded in almost no time
FIRST_FLOATS = 1 << 20  # elements of all nodes in a first batch
DEAR = 0.1  # seconds for one domain, or for its rows
RESERVED = 0.1  # of the time left
LEAST_PASSES = 4  # through the network, for any domain: its interval bounds, and points that may be violations
LIVE_FLOATS = 12  # floats alive for each element of each node while a batch is bounded


class InputSearch(Driver[DomainBatch]):
    """A search over the boxes of the task's problem. Close calls are bounded again in double precision."""

    def __init__(self, task: Task) -> None:
        self.program, self.problem, self.settings, self.limits = task.program, task.problem, task.settings, task.limits
        self.inherited = self._worth_inheriting()
        super().__init__(task, self._roots(), self._most_domains())
        self.least = seconds_of(self.program.operations_to(self.program.graph.output), LEAST_PASSES)
        self.batch = BatchSize(max(1, FIRST_FLOATS // self.program.graph.size), self._most_at_once())
        self.whole: NodeBounds | None = None  # bounds of the nodes over the problem's box, if it is a single one
        self.method = SmallerTree()
        self.dear = False  # backward bounds of a domain's neurons, so that doing without may be better
        self.fan = 1  # so many boxes may come of a batch's splits at once even where they are dear
        self.asked = self.problem.real  # mask `[boxes, D]`: a condensed network says nothing about other disjuncts

    def turn(self) -> tuple[DomainBatch, DomainBatch, DomainBatch, bool]:
        domains, began = self.frontier.pop(self.batch.size), time.monotonic()
        thorough = not self.dear or self.method.choose()
        children, stuck, found, rise = self._step(domains, "crown" if thorough else "forward")
        seconds = time.monotonic() - began
        if thorough:  # the other method's batches are as large
            self.batch.note(len(domains), seconds)
        self.dear = self.dear or (seconds > DEAR * len(domains) and forward_pays(self.program, self._effort()))
        self.method.note(thorough, len(domains), *rise, seconds)
        return domains, children, stuck, found

    def ease(self, problem: Problem) -> None:
        """Go on with the same rows over the same boxes, but higher offsets: all proofs stay valid, and bounds rise by
        the least rise of an offset."""
        rise = down((problem.offset - self.problem.offset)[self.problem.owner >= 0].amin())
        self.problem, self.task = problem, replace(self.task, problem=problem)
        self.frontier.batches = [batch.replace(bound=down(batch.bound + rise)) for batch in self.frontier.batches]
        if self.stuck:
            self.stuck_bound = float(down(rise + self.stuck_bound))

    def in_double(self) -> InputSearch:
        """The same search, from where it stands, in double precision."""
        wide, batches = InputSearch(self.task.in_double()), []
        for batch in self.frontier.batches:  # there may be room for fewer bounds of this size
            kept = batch.replace(nodes={k: batch.nodes[k] for k in wide.inherited})
            batches.append(cast(kept, wide.program.dtype))
        wide.whole = None if self.whole is None else cast(self.whole, wide.program.dtype)
        return wide._standing(self, batches)

    def over(self, smaller: Smaller) -> InputSearch:
        """The same search, from where it stands, over a condensed network."""
        single = self.program.dtype is smaller.task.program.dtype
        own, batches = InputSearch(smaller.task if single else smaller.task.in_double()), []
        for batch in self.frontier.batches:
            known = smaller.network.inherited(batch.nodes)
            shapes = {k: own.program.graph.nodes[k].shape for k in own.inherited}
            unknown = {k: Interval.unbounded((len(batch), *shape), batch.bound) for k, shape in shapes.items()}
            batches.append(batch.replace(nodes={k: known.get(k, unknown[k]) for k in own.inherited}))
        assert self.whole is not None
        box = self.problem.box.reshape(-1, *self.program.graph.input_shape)
        own.whole = smaller.network.bounds(own.program, box, self.whole)
        own._standing(self, batches).asked = self.still
        return own

    @property
    def still(self) -> Tensor:
        """A mask `[boxes, D]` of the disjuncts that are open over some part of a box."""
        if self.stuck:  # nobody knows any more which
            return self.asked
        counts = torch.zeros_like(self.problem.real, dtype=torch.int32)
        for batch in self.frontier.batches:
            counts.index_add_(0, batch.problem, batch.open.int())
        return counts > 0

    def _standing(self, other: InputSearch, batches: list[DomainBatch]) -> InputSearch:
        """Where another search of the same task stands, with these batches open."""
        self.frontier.batches, self.asked = batches, other.asked
        self.left, self.bounded, self.most_open = other.left, other.bounded, other.most_open
        self.stuck, self.stuck_bound, self.started = other.stuck, other.stuck_bound, other.started
        return self

    def take_back(self, domains: DomainBatch, undecided: Tensor, bounded: int) -> None:
        """Domains that were popped and worked on elsewhere, with `bounded` subproblems: those still `undecided` `[n]`
        are open again."""
        self.frontier.push(domains.select(undecided))
        self.left -= float(domains.share[~undecided].sum())
        self.bounded += bounded

    def _roots(self) -> DomainBatch:
        count = len(self.problem.row)
        device, nodes, own = self.program.device, self.program.graph.nodes, self.problem.box.lower
        return DomainBatch(
            box=self.problem.box.reshape(-1, *self.program.graph.input_shape),
            problem=torch.arange(count, device=device),
            open=self.problem.real,
            bound=own.new_full((count,), -torch.inf),
            share=torch.full((count,), 1.0 / count, dtype=torch.float64, device=device),
            nodes={k: Interval.unbounded((count, *nodes[k].shape), own) for k in self.inherited},
        )

    def _worth_inheriting(self) -> tuple[int, ...]:
        """The nodes whose bounds domains pass on to their halves: all that take backward passes. None where there are
        so many boxes that few domains are halves of others, or no room."""
        origins = (self.program.origins[source] for source in self.program.splittable)
        found = tuple(dict.fromkeys(origin for origin in origins if self.program.bent[origin]))
        room = self.limits.memory // 8 // self._inherited_size(found) if found else 0
        return found if len(self.problem.row) <= min(self.settings.batch, room) else ()

    def _inherited_size(self, nodes: tuple[int, ...]) -> int:
        """Bytes of the bounds of `nodes` over one domain."""
        return 2 * self.program.number_size * sum(self.program.graph.nodes[k].size for k in nodes)

    def _most_at_once(self) -> int:
        """Domains at once: the setting, or as many as the memory budget holds."""
        graph = self.program.graph
        forms = graph.nodes[0].size if forward_pays(self.program, self._effort()) else 0
        row = graph.size * (LIVE_FLOATS + forms) + self.problem.row.shape[1] * (
            graph.nodes[graph.output].size + graph.nodes[0].size * 4
        )
        return max(1, min(self.settings.batch, self.limits.memory // 2 // (row * self.program.number_size)))

    def _effort(self) -> Effort:
        """Leaves some of the time for what comes after the bounds of the nodes."""
        reserved = self.least + RESERVED * max(0.0, self.limits.seconds)
        return Effort(self.limits.memory // 2, self.limits.deadline - reserved)

    def _most_domains(self) -> int:
        size = 2 * self.program.graph.nodes[0].size * 4 + self.problem.most_disjuncts + 40
        size += self._inherited_size(self.inherited)
        return max(self.settings.batch, self.limits.memory // 8 // size)

    def _step(self, domains: DomainBatch, method: str) -> tuple[DomainBatch, DomainBatch, bool, tuple[float, float]]:
        """One batch: its open children, the domains that cannot be split further, whether a violation was found, and
        what the bounds lacked and gained."""
        fixed = ~splittable(domains.box).any(1)
        if self.problem.exact and bool(fixed.any()):  # rounding is all that their bounds can lack
            left = self._last_resort(domains.select(fixed))
            if len(left) and self.task.candidates(left.box.lower, left.problem):
                return domains, domains.select(slice(0, 0)), True, (0.0, 0.0)
            return domains.select(~fixed), left, False, (0.0, 0.0)
        rows, before = open_rows(self.problem, domains), domains.bound
        nodes = self._bound_nodes(self.program, domains, method)
        domains = domains.replace(nodes={k: nodes.intervals[k] for k in self.inherited})
        if seconds_of(self.program.operations_to(self.program.graph.output), rows.slot.shape[1]) > DEAR:
            domains = self._close_cheaply(domains, rows, nodes)
            if not bool(domains.open.any()):
                nothing = domains.select(slice(0, 0))
                return nothing, nothing, False, rise_of(before, torch.full_like(before, torch.inf))
            rows = open_rows(self.problem, domains)
        form = self._bound_rows(self.program, nodes, rows)
        domains, rows, form, after = self._close(domains, rows, form)
        rise = rise_of(before, after)
        if not len(domains):
            return domains, domains, False, rise
        if self.task.candidates(self._suspects(domains.box, form), domains.problem.repeat(2)):
            return domains, domains.select(slice(0, 0)), True, rise
        clipped = clip(form, domains.box, rows, domains.open)
        alive = flat(clipped.lower <= clipped.upper).all(1)
        steep = steepness(flat(form.coefficients, 2), rows.owner)[alive]
        domains = domains.replace(box=clipped).select(alive)
        most = max(self.fan, self._cheap_batch())
        children, stuck = split_repeatedly(domains, steep, self.settings.width_exponent, most)
        left = domains.select(stuck)
        return children, self._last_resort(left) if len(left) else left, False, rise

    def _cheap_batch(self) -> int:
        """So many domains cost little more than one: a small frontier may be split several times at once."""
        return min(CHEAP_BATCH, CHEAP_FLOATS // self.program.graph.size)

    def _bound_nodes(self, program: Program, domains: DomainBatch, method: str) -> NodeBounds:
        """Bounds of all nodes over each box, in the precision of the program."""
        box, inherited = cast(domains.box, program.dtype), cast(domains.nodes, program.dtype)
        nodes = bound_nodes(program, box, method, inherited, self._effort())
        if program is self.program and self.whole is None and self.bounded == 0 and len(self.problem.row) == 1:
            self.whole = nodes.without_forms()
        return nodes

    def _bound_rows(self, program: Program, nodes: NodeBounds, rows: Rows) -> LinearForm:
        return bound_rows(program, nodes, self._start(program, rows), rows.offset, self._effort(), self.problem.exact)

    def _start(self, program: Program, rows: Rows) -> dict[int, Tensor]:
        """The rows by the nodes that they are about."""
        start = {program.graph.output: rows.outputs.reshape(*rows.slot.shape, *program.graph.output_shape)}
        if rows.inputs is not None:
            inputs = rows.inputs.reshape(*rows.slot.shape, *program.graph.input_shape)
            start[0] = start.get(0, 0) + inputs
        return start

    def _close_cheaply(self, domains: DomainBatch, rows: Rows, nodes: NodeBounds) -> DomainBatch:
        """Mark the disjuncts that the bounds of the last neurons refute: taking a row back to the input is dear."""
        start = self._start(self.program, rows)
        bounds = backward_to_neurons(self.program, start, rows.offset, nodes, self.problem.exact)
        closed, _ = refuted(bounds, rows.owner, self.problem.most_disjuncts)
        return domains.replace(open=domains.open & ~closed)

    def _close(
        self, domains: DomainBatch, rows: Rows, form: LinearForm
    ) -> tuple[DomainBatch, Rows, LinearForm, Tensor]:
        """Mark refuted disjuncts and keep the domains that have an open one. Last the bounds of all, `[n]`."""
        count = self.problem.most_disjuncts
        bounds = form.minimum(domains.box)
        order = rows.owner.sort(1).values
        if bool(((order[:, 1:] == order[:, :-1]) & (order[:, 1:] >= 0)).any()):
            bounds = torch.fmax(bounds, combine(form, domains.box, rows.owner))
        closed, best = refuted(bounds, rows.owner, count)
        still = domains.open & ~closed
        worst = torch.where(still, best, torch.inf).amin(1)
        alive = still.any(1)
        owner = torch.where((rows.owner >= 0) & still.gather(1, rows.owner.clamp(min=0)), rows.owner, -1)
        domains = domains.replace(open=still, bound=torch.maximum(worst, domains.bound)).select(alive)
        return domains, pick(replace(rows, owner=owner), alive), pick(form, alive), worst

    @staticmethod
    def _suspects(box: Interval, form: LinearForm) -> Tensor:
        """For each domain its centre, and the corner where its first row's linear bound is smallest."""
        corner = torch.where(form.coefficients[:, 0] > 0, box.lower, box.upper)
        return torch.cat([box.middle(), corner])

    def _last_resort(self, domains: DomainBatch) -> DomainBatch:
        """Bound domains that cannot be split once more, in double precision; returns those that remain. Rows that were
        rounded to single precision are not known any better."""
        if not self.problem.exact:
            return domains
        precise = self.task.precise()
        remaining = domains.replace(box=domains.box.to(precise.dtype))
        for method in ("interval", "crown"):
            if len(remaining):
                rows = cast(open_rows(self.problem, remaining), precise.dtype)
                nodes = self._bound_nodes(precise, remaining, method)
                remaining, *_ = self._close(remaining, rows, self._bound_rows(precise, nodes, rows))
        dtype = self.program.dtype
        return remaining.replace(box=remaining.box.to(dtype), bound=narrow_down(remaining.bound, dtype))
