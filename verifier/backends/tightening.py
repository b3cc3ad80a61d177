"""Bounds of neurons by linear programs and small trees: each end of an undecided neuron is a question of its own.

Whether a neuron is ever beyond a kink is asked like a property (Tjeng 2019): of a linear program first, whose bound
counts as rebuilt from its multipliers; where that leaves it open and its point does not settle it, of cuts and a tree.
Where the neuron is beyond the kink somewhere, the same is asked about half of what lies between that value and the
bound. All questions about one node share the encoding of what comes before it, with the bounds known by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.backends.encoding import Frame
from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import Budget, LinearProgram, LinearSolver
from verifier.backends.rows import Rows
from verifier.backends.subproblem import Subproblem
from verifier.backends.tree import Tree
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.problem import Problem

NODES = 8  # of the tree of one end: more of them decided hardly more ends
AT_ONCE = 64  # elements whose rows are worked out together
SHARE = 0.5  # of what lies between an end and a value of the neuron; cuts alone prove most halves, and no more
FAIR = 4.0  # times its equal part of the time, which a question may take


@dataclass(frozen=True, eq=False)
class NodeTask:
    """Of which elements `index` `[m]` of node `source` better bounds are wanted, the first ones first. `box`
    `[1, *input]`; `found`: bounds of the nodes up to the source."""

    box: Interval
    found: NodeBounds
    source: int
    index: Tensor


@dataclass(eq=False)
class End:
    """An end of an element z, as the lower end of  value = sign z: `bound` is what is known of it, `most` the other
    end. `row`: of z, in the columns of the encoding. `reached`: a value that it has somewhere, if one was found."""

    element: int
    sign: float
    bound: float
    most: float
    row: Rows
    reached: float | None = None

    def margin(self, target: float) -> Rows:
        """value - target."""
        row = self.row
        low, high = (row.low, row.high) if self.sign > 0 else (-row.high, -row.low)
        low, high = np.nextafter(low - target, -np.inf), np.nextafter(high - target, np.inf)
        return Rows(self.sign * row.inputs, self.sign * row.columns, self.sign * row.reads, low, high)


class Tightening:
    """Of one task. `improve` it once; `ends` then has what is proved, in the order of the index, lower ends first."""

    def __init__(
        self,
        program: Program,
        task: NodeTask,
        deadline: float,
        solver: Callable[[LinearProgram], LinearSolver] = HighsSolver,
    ) -> None:
        self.task, self.deadline, self.solver = task, deadline, solver
        self.kinks = kinks_of(program, task.source)
        self.part, self.old = program.up_to(task.source), task.found.intervals[task.source]
        self.ends: list[End] = []

    @torch.no_grad()
    def improve(self) -> None:
        """Anything at all only where the encoding has no obstacle."""
        first = self._question(0, 1.0, 0.0)
        bounded = bool(self.old.lower.isfinite().all() and self.old.upper.isfinite().all())
        if self._late() or not bounded or first.obstacle() is not None or first.contradicts():
            return
        self.frame = Frame(first)
        for part in self.task.index.split(AT_ONCE):
            if self._late():
                return
            self._settle(part)
        self._half()

    def _half(self) -> None:
        """What lies between a bound and a value, of the ends that are beyond a kink, of elements still undecided."""
        pairs = [pair for pair in zip(self.ends[::2], self.ends[1::2], strict=True) if self._inner(pair[1])]
        beyond = [(end, end.reached) for pair in pairs for end in pair if end.reached is not None]
        for number, (end, reached) in enumerate(beyond):
            self._ask(end, end.bound + SHARE * (reached - end.bound), NODES, len(beyond) - number)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds, `[m]` each, infinite for those that are not known any better."""
        found = torch.full((2, len(self.task.index)), torch.inf, dtype=torch.float64)
        found[0] = -torch.inf
        for number, end in enumerate(self.ends):
            found[number % 2, number // 2] = end.sign * end.bound
        return found[0], found[1]

    def _settle(self, part: Tensor) -> None:
        """Both ends of some elements, by whether they are beyond a kink."""
        rows = self.frame.substitution.arguments(self.task.source, part)
        old_lower, old_upper = flat(self.old.lower)[0], flat(self.old.upper)[0]
        for place, element in enumerate(part.tolist()):
            one, low, high = slice(place, place + 1), float(old_lower[element]), float(old_upper[element])
            row = Rows(rows.inputs[one], rows.columns[one], rows.reads[one], rows.low[one], rows.high[one])
            lower = End(element, 1.0, low, high, row)
            inner, left = self._inner(lower), 2 * len(self.task.index) - len(self.ends)
            self._ask(lower, min(inner, default=high), NODES if inner else 0, left)
            upper = End(element, -1.0, -high, -lower.bound, row)
            rest = self._inner(upper)
            if rest or not inner:  # else it is decided
                self._ask(upper, min(rest, default=upper.most), NODES if rest else 0, left - 1)
            self.ends += [lower, upper]

    def _inner(self, end: End) -> list[float]:
        """Kinks at which the end's value may still be."""
        return [end.sign * kink for kink in self.kinks if end.bound < end.sign * kink < end.most]

    def _ask(self, end: End, target: float, nodes: int, left: int) -> None:
        """Whether the end's value is above the target everywhere; `left` questions have the time that is left."""
        if self._late():
            return
        now = time.monotonic()
        budget = Budget(min(self.deadline, now + FAIR * (self.deadline - now) / left), nodes=nodes)
        question = self._question(end.element, end.sign, end.sign * target)
        answer = Tree(question, self.frame.encoding(end.margin(target)), self.solver, budget).run()
        bound = float(np.nextafter(target + answer.bound, -np.inf))
        end.bound = max(end.bound, max(bound, target) if answer.bound > 0 else bound)
        if answer.point is not None:
            end.reached = end.sign * float(flat(self.part.graph.evaluate(answer.point[None]))[0, end.element])

    def _question(self, element: int, sign: float, place: float) -> Subproblem:
        """Whether an element z has  sign (z - place) <= 0  somewhere."""
        zero, size = torch.zeros(1, 1, dtype=torch.int64), self.part.graph.nodes[self.task.source].size
        row = torch.zeros(1, size, dtype=torch.float64)
        row[0, element] = sign
        offset = torch.full((1, 1), -sign * place, dtype=torch.float64)
        problem = Problem(self.task.box, zero, offset, zero, zero[0] + 1, row, None, exact=True)
        return Subproblem(self.part, self.task.found, problem, self.task.box, 0, 0)

    def _late(self) -> bool:
        return time.monotonic() >= self.deadline


def kinks_of(program: Program, origin: int) -> tuple[float, ...]:
    """Where the readers of a node, or of copies of it, bend."""
    found: set[float] = set()
    for source in (origin, *program.copies[origin]):
        for reader in program.graph.consumers[source]:
            op = program.graph.nodes[reader].op
            if isinstance(op, Elementwise):
                found.update(op.kinks() or ())
    return tuple(sorted(found))
