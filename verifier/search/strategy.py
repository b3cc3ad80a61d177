"""Which search works on a query, and for how long.

Splitting inputs is the right thing where they are few, splitting neurons where they are many. In between, the boxes
that splitting inputs leaves open are handed to the search over neurons, some at a time, as long as it decides most of
them in a turn; else both have turns, by what they prove in a second. Where a turn is too short for that, inputs are
split as long as it gains more than any neuron could, and the search over neurons begins from these few boxes.
"""

from __future__ import annotations

import time
from dataclasses import replace

from torch import Tensor

from verifier.bounding.engine import Effort
from verifier.bounding.precision import narrowed, rounding_prevails
from verifier.core.events import ignore
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.rounding import narrow_down
from verifier.core.stacked import cast
from verifier.search.condensing import condense
from verifier.search.domains import DomainBatch
from verifier.search.exact import decide_exactly
from verifier.search.inputs import InputSearch
from verifier.search.measured import FasterProof
from verifier.search.neurons import NeuronSearch
from verifier.search.root import MOST_SHARE, MOST_TIGHTENED, NOTHING, Known, Root
from verifier.search.splitting import one_by_one, splittable
from verifier.search.task import Outcome, Task
from verifier.search.varying import over_varying

MANY_INPUTS = 40  # varying inputs beyond which splitting them is hopeless: nearly all would have to be split
HALVED = 1 / 3  # of the varying inputs: where the time left is too short to halve so many, splitting them is slow,
TRIED = 0.15  # and so much of the time must show what it gains
FIRST_SEARCH = 1.0  # seconds of search, at least one batch, before the thorough attack: easy proofs need no attack
PAYING = 0.4  # of what the bounds lack, by halving all boxes: no split of a neuron gains as much
LEAST_BOXES = 4  # to be bounded in a turn: with fewer, a turn of the search over neurons decides none
TURN = 2.0  # seconds: a search over neurons needs tens of batches, of a tenth of a second at least
PROMISING = 0.5  # share proved, above which searches go on: over inputs if many vary, over neurons if few are open
LAST_ROUNDS = 5  # subproblems that come of any open one, where a search is about to end
SEARCHED = 0.5  # of the time of a pass over the root's bounds: so long a search goes on before the next pass
SPLIT_SHARE = 0.05  # of the time: so long are inputs split before an exact backend is asked
EXACT_SHARE = 0.85  # of the time left, which an exact backend may have for a problem that is small enough for it
FIRST_HANDED = 256  # boxes handed over at first; their number doubles when most are decided in time, else it halves
READILY = 0.25  # of the boxes that splitting inputs bounds in a turn: no more are handed over at first


class Strategy:
    """Decides a task with both searches, and with exact reasoning where it may serve. `run` may be called again to go
    on where it stopped."""

    def __init__(self, task: Task) -> None:
        self.task = task = over_varying(task)
        self.inputs = InputSearch(task.in_double() if self._rounding_prevails(self._first_box) else task)
        self.pace = float("inf")  # boxes bounded in a second of splitting inputs, once that is known
        self.handed = FIRST_HANDED
        self.decisive = False  # whether the last hand-over decided most of its boxes
        self.gained = 0.0  # of what the bounds lacked, by the last split of inputs
        self.looked = False  # whether a condensed network serves

    @property
    def problem(self) -> Problem:
        """In the precision in which inputs are split."""
        return self.inputs.problem

    def ease(self, problem: Problem) -> None:
        """Go on with an easier question: the same rows over the same boxes, with higher offsets."""
        self.inputs.ease(problem)
        own = self.task.problem
        self.task = replace(self.task, problem=replace(own, offset=narrow_down(problem.offset, own.offset.dtype)))

    def first(self) -> Outcome:
        """The cheap bounds, and some splitting of inputs."""
        began = time.monotonic()
        outcome = self.inputs.run(FIRST_SEARCH)
        self.pace = outcome.bounded / (time.monotonic() - began)
        self.handed = max(1, min(FIRST_HANDED, int(READILY * TURN * self.pace)))
        return outcome

    def run(self) -> Outcome:
        """Until all is proved, a violation is found, or time is up."""
        self._condense()
        problem = self.task.problem
        varying = int(splittable(problem.box).sum(1).max())
        if not varying or not self._neurons_serve() or self.inputs.late:
            return self.inputs.run()
        slow = self._slow(varying)
        dear = self._dear(varying)
        if slow or dear:
            outcome = self._try_inputs(MOST_TIGHTENED if dear else 1)
            if outcome.found or not outcome.open:
                return outcome
            if self._closing_in() and self._fit(outcome.open):
                return self._from_boxes()
        hopeless = self.inputs.proved < PROMISING and (varying > MANY_INPUTS or slow)
        if hopeless and self._fit(len(problem.disjuncts)):
            return search_neurons(self.task, self.inputs.still, self._known())[1]
        if self.inputs.program is self.task.program and self._rounding_prevails(self._first_box.point()):
            self.inputs = self.inputs.in_double()
        if self._ending:
            return self.inputs.outcome()
        return (self._exactly() if self.task.exact else None) or self._in_turns()

    def _condense(self) -> None:
        """Go on over the network condensed to what the whole box leaves undecided, where that serves."""
        found = self._known().found
        if self.looked or found is None or not self.inputs.open or self.inputs.late:
            return
        self.looked = True
        smaller = condense(self.task, found, self.inputs.still)
        if smaller is not None:
            self.task, self.inputs = smaller.task, self.inputs.over(smaller)
            self.pace /= smaller.ratio

    def _try_inputs(self, fan: int) -> Outcome:
        """Some splitting of inputs, and more as long as it pays, until there are as many boxes as may be tightened.
        `fan`: that come of a batch at once; more than two of each save bounds of boxes on the way."""
        self.inputs.fan = fan
        end, outcome = time.monotonic() + TRIED * self.task.limits.seconds, self.inputs.outcome()
        while not outcome.found and outcome.open and (time.monotonic() < end or self.gained > PAYING):
            before = outcome.bound
            outcome = self.inputs.run(0.0)
            self.gained = 1 - max(outcome.bound / before, 0.0) if before < 0 else 0.0
            if self.inputs.late or (self._closing_in() and 2 * outcome.open > MOST_TIGHTENED):
                break
        self.inputs.fan = 1
        return outcome

    def _closing_in(self) -> bool:
        """Whether splits of inputs pay, but prove nothing so far, and there are few boxes to go on from."""
        few = 1 < self.inputs.open <= MOST_TIGHTENED
        return few and self.gained > PAYING and not self.inputs.proved and not self.inputs.stuck

    def _from_boxes(self) -> Outcome:
        """The search over neurons for all boxes that are open; those it does not decide come back."""
        domains, left = self.inputs.frontier.pop(self.inputs.open), self.inputs.left
        domains = domains.select(one_by_one(domains.box))
        inherited = {k: v.narrowed(self.task.program.dtype) for k, v in domains.nodes.items()}
        known = Known(inherited=inherited, share=MOST_SHARE)  # the search ends soon if all have good bounds, else never
        search, outcome = search_neurons(self._task_of(domains), domains.open, known)
        self.inputs.take_back(domains, search.undecided(len(domains)), outcome.bounded)
        return replace(outcome, bounded=self.inputs.bounded, proved=1 - left * (1 - outcome.proved))

    def _task_of(self, domains: DomainBatch) -> Task:
        """To decide boxes of the search over inputs."""
        task = self.task
        return replace(
            task,
            problem=task.problem.select(domains.problem, domains.box.narrowed(task.program.dtype)),
            candidates=lambda points, which: task.candidates(points, domains.problem[which]),
        )

    def _slow(self, varying: int) -> bool:
        """Whether there is no time to halve more than a few of the inputs, of which so many vary."""
        return varying <= MANY_INPUTS and self.pace * self.task.limits.seconds < 2 ** (HALVED * varying)

    def _dear(self, varying: int) -> bool:
        """Whether there is time for a few boxes only in a turn."""
        return varying <= MANY_INPUTS and self.pace * TURN < LEAST_BOXES

    @property
    def _ending(self) -> bool:
        """Whether there is no time for the bounds of one more box."""
        return self.pace * self.task.limits.seconds < 1

    def _known(self) -> Known:
        """What is known of the nodes over the problem's box, in the precision of the task."""
        found, program = self.inputs.whole, self.task.program
        if found is not None and self.inputs.program is not program:
            found = narrowed(program, self.task.problem.box.reshape(-1, *program.graph.input_shape), found)
        return NOTHING if found is None else Known(found, seconds=1 / self.pace)

    def _exactly(self) -> Outcome | None:
        """A few more splits of inputs; if they do not do, most of the time to an exact backend, where it serves."""
        limits = self.task.limits
        outcome = self.inputs.run(SPLIT_SHARE * limits.seconds)
        if outcome.found or not outcome.open:
            return outcome
        end = time.monotonic() + EXACT_SHARE * limits.seconds
        return decide_exactly(
            replace(self.task, limits=replace(limits, deadline=end)), self.inputs.still, self._known()
        )

    def _in_turns(self) -> Outcome:
        """Hand-overs while they are decisive: they leave fewer boxes open, and splits of inputs leave more. Else the
        one that proves more in a second."""
        handing = FasterProof()
        while True:
            hand = self.decisive or handing.choose()
            before, began = self.inputs.proved, time.monotonic()
            found = self._hand_over() if hand else self.inputs.run(TURN).found
            handing.note(hand, self.inputs.proved - before, time.monotonic() - began)
            outcome = self.inputs.outcome(found)
            if found or not outcome.open or self.task.limits.seconds <= 0:
                return outcome

    def _hand_over(self) -> bool:
        """Some open boxes to the search over neurons, for a turn; those it does not decide come back. Whether a
        violation was found."""
        while self.handed > 1 and not self._fit(self.handed):
            self.handed //= 2
        task, domains = self.task, self.inputs.frontier.pop(self.handed)
        limits = replace(task.limits, deadline=min(task.limits.deadline, time.monotonic() + TURN))
        part = replace(self._task_of(domains), limits=limits, observer=ignore)
        search, outcome = search_neurons(part, domains.open)
        undecided = search.undecided(len(domains))
        self.inputs.take_back(domains, undecided, outcome.bounded)
        self.decisive = float(undecided.float().mean()) < 0.5
        self.handed = self.handed * 2 if self.decisive else max(1, self.handed // 2)
        return outcome.found

    def _neurons_serve(self) -> bool:
        """There are neurons to split, and every disjunct has rows to bound."""
        return bool(self.task.program.splittable) and self.task.problem.constrained

    @property
    def _first_box(self) -> Interval:
        return self.task.problem.box.select(slice(0, 1)).reshape(1, *self.task.program.graph.input_shape)

    def _rounding_prevails(self, box: Interval) -> bool:
        """Rows that were rounded to single precision are not known any better in double."""
        effort = Effort(self.task.limits.memory // 2)
        return self.task.problem.exact and rounding_prevails(self.task.program, self.task.precise, box, effort)

    def _fit(self, boxes: int) -> bool:
        """Each box needs bounds and planes of every node."""
        floats = boxes * self.task.program.graph.size
        return floats * 32 < self.task.limits.memory // 4


def search_neurons(task: Task, still: Tensor, known: Known = NOTHING) -> tuple[NeuronSearch, Outcome]:
    """Searches over neurons for the disjuncts that are `still` open `[boxes, disjuncts]`, each from better bounds of
    the root than the one before, while these pay; the last of them."""
    root, bounded = Root(task, still, known), int(still.sum())
    if root.rounded and task.problem.exact and task.limits.seconds > root.seconds:
        task = task.in_double()
        # most of it is the rows' own rounding, not that of the neurons' bounds
        root = Root(task, still, Known(cast(root.found, task.program.dtype), root.seconds))
    task, root = _condensed(task, root)
    while True:
        if root.can_tighten():
            root.tighten()
            task, root = _condensed(task, root)
        search = NeuronSearch(*root.subproblems(), task)
        search.bounded = bounded
        began = time.monotonic()
        outcome = search.run(SEARCHED * root.seconds if root.can_tighten() else float("inf"))
        rest = LAST_ROUNDS * outcome.open * (time.monotonic() - began) / max(outcome.bounded - bounded, 1)
        ending = outcome.proved > PROMISING and rest < root.expected  # few are left, and a pass begins all over
        if outcome.open and not outcome.found and ending:
            outcome = search.run(rest)
        if outcome.found or not outcome.open or search.late:
            return search, outcome
        bounded = outcome.bounded


def _condensed(task: Task, root: Root) -> tuple[Task, Root]:
    """The same over a smaller network, where that serves."""
    smaller = condense(task, root.found, root.still) if root.few else None
    return (task, root) if smaller is None else (smaller.task, root.over(smaller))
