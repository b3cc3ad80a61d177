"""Branch and bound over the phases of neurons, one linear program a node, each leaf proved from its multipliers.

The tree is ours, so that every leaf can be checked: a branch fixes columns of one neuron, its phases together are all
there are, and a leaf is closed by `dual_bound` alone. Cuts are made for the points that the programs end in, and are
valid everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from verifier.backends.columns import BESIDE
from verifier.backends.encoding import Encoding
from verifier.backends.envelope import Envelopes
from verifier.backends.protocol import Answer, Budget, LinearProgram, LinearSolver, LpResult
from verifier.backends.pseudo_costs import PseudoCosts
from verifier.backends.readings import leaves
from verifier.backends.relaxation import Relaxation
from verifier.backends.subproblem import Subproblem
from verifier.core.verdict import Status

ROOT_ROUNDS, NODE_ROUNDS = 20, 4  # most rounds of cuts
WORTH = 0.01  # cuts are added where they are violated by this much of the open bound, in terms of the margin
MOST_CUTS = 2.0  # kept, for each neuron
CANDIDATES = 8  # neurons of which children are solved
IN_PHASE = 1e-9  # of what a neuron's columns can add: gaps below it are rounding
MOST_LOOSE = 8  # points between the planes of functions, at which pieces are cut before the tree is grown again


@dataclass(frozen=True, eq=False)
class _Node:
    """`phase` `[N]`, -1 where open; `value` what the program claims; `point` `[columns]`; `weight` `[N]` how much the
    margin changes with each neuron's value."""

    phase: np.ndarray
    value: float
    point: np.ndarray
    weight: np.ndarray


class Tree:
    """`run` it once."""

    def __init__(
        self,
        subproblem: Subproblem,
        encoding: Encoding,
        solver: Callable[[LinearProgram], LinearSolver],
        budget: Budget,
    ) -> None:
        self.subproblem, self.encoding, self.budget = subproblem, encoding, budget
        self.neurons = encoding.neurons
        self.relaxation = Relaxation(encoding, solver, budget)
        self.envelopes = Envelopes(encoding)
        self.costs = PseudoCosts(self.neurons, self.relaxation.cutoff)
        self.largest = np.abs(self.neurons.gains).sum(1) + self.neurons.spread
        self.all_open = np.where(self.neurons.real.any(1), -1, 0)
        self.nodes = self.believed = 0
        self.least = float("inf")  # margin of the proved leaves
        self.proved = -float("inf")  # margin everywhere, by the programs of the root

    @property
    def stopped(self) -> bool:
        return self.relaxation.stopped

    def run(self) -> Answer:
        root = self._bounded(self.all_open)
        stack = [] if root is None else [root]
        stuck: list[_Node] = []
        loose: list[np.ndarray] = []
        rounds = ROOT_ROUNDS
        while stack and not self.stopped and self.nodes < self.budget.nodes:
            node = stack.pop()
            self.nodes += 1
            point = node.point[: self.encoding.inputs]
            if self.subproblem.violates(point):
                return self._answer(Status.SAT, "a point of a linear program violates the property", point=point)
            improved = self._cut(node, rounds)
            rounds = NODE_ROUNDS
            if improved is None:
                continue
            children = None if self.stopped else self._branch(improved)
            if children is not None:
                stack += sorted(children, key=lambda child: -child.value)
            elif self.stopped:
                stack.append(improved)
            elif leaves(self.subproblem, self.encoding, improved.point):
                loose.append(improved.point)
                if len(loose) == MOST_LOOSE:
                    break
            else:
                stuck.append(improved)
                found = self._beside_jumps(improved)
                if found is not None:
                    return self._answer(Status.SAT, "a point beside a jump violates the property", point=found)
        return self._ended(stack, stuck, loose)

    def _ended(self, stack: list[_Node], stuck: list[_Node], loose: list[np.ndarray]) -> Answer:
        """The answer where no violation was found: nodes still open, nodes neither proved nor violated, and points that
        leave functions."""
        if loose and not self.stopped:
            reason = f"{len(loose)} points between the planes of functions are no violations"
            return replace(self._answer(Status.UNKNOWN, reason), loose=np.stack(loose))
        if stack or self.stopped:
            return self._answer(Status.TIMEOUT, f"the budget is spent, {len(stack)} nodes are open")
        if stuck:
            reason = f"{len(stuck)} nodes with every neuron fixed are neither proved nor violated"
            return self._answer(Status.UNKNOWN, reason)
        if self.believed:
            programs = self.relaxation.programs
            reason = f"{self.believed} of the bounds of {programs} programs could not be rebuilt"
            return self._answer(Status.UNSAT, reason)
        return self._answer(Status.UNSAT, f"all leaves are proved, after {self.nodes} branchings")

    def _answer(self, status: Status, reason: str, point: np.ndarray | None = None) -> Answer:
        checked = status is Status.UNSAT and not self.believed
        found = None if point is None else self.subproblem.shaped(point)
        bound = self.least if checked else self.proved
        return Answer(status, reason, checked, found, bound, self.nodes, self.relaxation.programs)

    def _bounded(self, phase: np.ndarray) -> _Node | None:
        """The node of these phases; None where it is proved (or, unchecked, believed)."""
        self.relaxation.fix(phase)
        for fresh in (False, True):
            result = self.relaxation.solve(fresh)
            if self.stopped:
                point = self.relaxation.clipped(np.zeros_like(self.relaxation.program.cost))
                return _Node(phase, -float("inf"), point, np.zeros(len(phase)))
            if self._proves(phase, result):
                return None
            if not self.relaxation.closes(result):
                return self._node(phase, result)
        self.believed += 1
        return None

    def _proves(self, phase: np.ndarray, result: LpResult) -> bool:
        """Whether the multipliers prove that there is no violation. What they prove of the root is noted: that holds
        whatever becomes of the tree."""
        root = phase is self.all_open
        if not (root or self.relaxation.closes(result) or result.value > 0):
            return False
        bound = self.relaxation.proved(result)
        if root:
            self.proved = max(self.proved, bound)
        if not bound > 0:
            return False
        self.least = min(self.least, bound)
        return True

    def _node(self, phase: np.ndarray, result: LpResult) -> _Node:
        weight = np.abs(result.multipliers[: self.relaxation.base_rows] @ self.encoding.reads)
        return _Node(phase, result.value, self.relaxation.clipped(result.point), weight)

    def _beside_jumps(self, node: _Node) -> np.ndarray | None:
        """Where the node's point is at a jump, its function may have another value there: a violation next to it."""
        if not self.neurons.jumps.any():
            return None
        self.relaxation.fix(node.phase, BESIDE)
        point = self.relaxation.clipped(self.relaxation.solve().point)[: self.encoding.inputs]
        return point if not self.stopped and self.subproblem.violates(point) else None

    def _cut(self, node: _Node, rounds: int) -> _Node | None:
        """The node after rounds of cuts; None where they prove it."""
        for _ in range(rounds):
            least = WORTH * -min(node.value, 0.0)
            cuts = self.envelopes.at(
                node.point, (node.phase < 0) & (self.neurons.gaps(node.point) * node.weight > least)
            )
            worth = cuts.violation * node.weight[cuts.neuron] > least
            if not worth.any() or self.stopped:
                break
            self.relaxation.append(cuts.matrix[worth], cuts.high[worth])
            better = self._bounded(node.phase)
            if better is None:
                return None
            if self.stopped:
                break
            node = better
        if self.relaxation.cuts > MOST_CUTS * len(self.neurons):
            self.relaxation.drop_slack(node.point)
        return node

    def _branch(self, node: _Node) -> list[_Node] | None:
        """Open children; None where no neuron is left to branch on, or time is up."""
        gap = self.neurons.gaps(node.point)
        gap = np.where(node.phase < 0, np.maximum(gap, 0.0), -1.0)
        if not (gap > IN_PHASE * self.largest).any() and leaves(self.subproblem, self.encoding, node.point):
            return None
        order, score = self.costs.ranked(node.value, gap, node.weight)
        best, best_gain = None, -1.0
        for neuron in order[:CANDIDATES].tolist():
            known = self.costs.known(neuron)
            if best is not None and known and score[neuron] <= best_gain:
                break
            children = self._children(node, neuron, gap[neuron] * node.weight[neuron])
            if self.stopped:
                return None
            gain = self.costs.score(node.value, [child.value for child in children], neuron)
            if gain > best_gain:
                best, best_gain = children, gain
            if known or len(children) < 2:
                break
        return best

    def _children(self, node: _Node, neuron: int, size: float) -> list[_Node]:
        children = []
        for phase in self.neurons.real[neuron].nonzero()[0]:
            phases = node.phase.copy()
            phases[neuron] = phase
            child = self._bounded(phases)
            if self.stopped:
                break
            gained = (0.0 if child is None else min(child.value, 0.0)) - node.value
            self.costs.note(neuron, int(phase), gained, size)
            if child is not None:
                children.append(child)
        return children
