"""Branch and bound over the phases of neurons, one linear program a node, each leaf proved from its multipliers.

The tree is ours, so that every leaf can be checked: a branch fixes columns of one neuron, its phases together are all
there are, and a leaf is closed by `dual_bound` alone. Cuts are made for the points that the programs end in, and are
valid everywhere. The neuron to branch on is chosen by pseudo-costs (Benichou 1971), which are measured by solving the
children of candidates while too little is known about them (Achterberg 2005, reliability branching).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from verifier.backends.columns import BESIDE
from verifier.backends.dual_bound import certain_bound
from verifier.backends.encoding import Encoding
from verifier.backends.envelope import Envelopes
from verifier.backends.protocol import Answer, Budget, LinearProgram, LinearSolver, LpResult, LpStatus
from verifier.backends.readings import leaves
from verifier.backends.subproblem import Subproblem
from verifier.core.verdict import Status
from verifier.errors import BackendError

CUTOFF = 1e-6  # of the margin's range: a cost above this is rebuilt as a positive bound, whatever the tolerances
ROOT_ROUNDS, NODE_ROUNDS = 20, 4  # most rounds of cuts
WORTH = 0.01  # cuts are added where they are violated by this much of the open bound, in terms of the margin
MOST_CUTS = 2.0  # kept, for each neuron
RELIABLE = 2  # solved children of a neuron's phase after which its pseudo-cost is believed
CANDIDATES = 8  # neurons of which children are solved
IN_PHASE = 1e-9  # of what a neuron's columns can add: gaps below it are rounding
MOST_LOOSE = 8  # points between the planes of functions, at which pieces are cut before the tree is grown again
SMALL = 1e-6  # share of the open bound that counts as no gain


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
        self.program, self.neurons = encoding.program, encoding.neurons
        self.solver = solver(encoding.program)
        self.envelopes = Envelopes(encoding)
        self.base_rows = len(self.program.low)
        self.lower, self.upper = self.program.lower.copy(), self.program.upper.copy()
        span = float(self.program.upper[-1] - self.program.lower[-1])
        self.cutoff = CUTOFF * span
        self.largest = np.abs(self.neurons.gains).sum(1) + self.neurons.spread
        count, most = self.neurons.columns.shape
        self.gains, self.counts = np.zeros((count, most)), np.zeros((count, most))
        self.nodes = self.programs = self.believed = 0
        self.stopped = False
        self.least = float("inf")  # of the proved leaves

    def run(self) -> Answer:
        root = self._bounded(np.where(self.neurons.real.any(1), -1, 0))
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
        worst = min((node.value for node in (*stack, *stuck)), default=-float("inf") if loose else self.least)
        if loose and not self.stopped:
            reason = f"{len(loose)} points between the planes of functions are no violations"
            return replace(self._answer(Status.UNKNOWN, reason, worst), loose=np.stack(loose))
        if stack or self.stopped:
            return self._answer(Status.TIMEOUT, f"the budget is spent, {len(stack)} nodes are open", worst)
        if stuck:
            reason = f"{len(stuck)} nodes with every neuron fixed are neither proved nor violated"
            return self._answer(Status.UNKNOWN, reason, worst)
        if self.believed:
            reason = f"{self.believed} of the bounds of {self.programs} programs could not be rebuilt"
            return self._answer(Status.UNSAT, reason, worst)
        return self._answer(Status.UNSAT, f"all leaves are proved, after {self.nodes} branchings", worst)

    def _answer(
        self, status: Status, reason: str, bound: float = -float("inf"), point: np.ndarray | None = None
    ) -> Answer:
        checked = status is Status.UNSAT and not self.believed
        found = None if point is None else self.subproblem.shaped(point)
        return Answer(status, reason, checked, found, bound, self.nodes, self.programs)

    def _bounded(self, phase: np.ndarray) -> _Node | None:
        """The node of these phases; None where it is proved (or, unchecked, believed)."""
        self._fix(phase)
        for fresh in (False, True):
            result = self._solve(fresh)
            if self.stopped:
                return _Node(phase, -float("inf"), np.clip(0.0, self.lower, self.upper), np.zeros(len(phase)))
            if self._proves(result):
                return None
            if not self._closes(result):
                return self._node(phase, result)
        self.believed += 1
        return None

    def _closes(self, result: LpResult) -> bool:
        """Whether the solver claims that there is no violation."""
        return result.status in (LpStatus.BEYOND, LpStatus.INFEASIBLE) or result.value > self.cutoff

    def _node(self, phase: np.ndarray, result: LpResult) -> _Node:
        point = np.clip(result.point, self.lower, self.upper)
        weight = np.abs(result.multipliers[: self.base_rows] @ self.encoding.reads)
        return _Node(phase, result.value, point, weight)

    def _solve(self, fresh: bool = False) -> LpResult:
        self.programs += 1
        self.stopped |= self.budget.spent()
        result = self.solver.minimise(self.cutoff, self.budget.seconds, fresh)
        self.stopped |= result.status is LpStatus.STOPPED
        if result.status is LpStatus.OPTIMAL:
            sizes = result.multipliers.shape, result.point.shape
            if sizes != (self.program.low.shape, self.program.cost.shape):
                raise BackendError("the solver's answer does not have the size of the linear program")
            if not (np.isfinite(result.value) and np.isfinite(result.point).all()):
                raise BackendError("the solver's answer is not finite")
        return result

    def _proves(self, result: LpResult) -> bool:
        """Whether the multipliers prove that there is no violation, whatever the solver claims."""
        if not (self._closes(result) or result.value > 0) or len(result.multipliers) != len(self.program.low):
            return False
        now = LinearProgram(
            self.program.cost, self.program.matrix, self.program.low, self.program.high, self.lower, self.upper
        )
        bound = certain_bound(now, result.multipliers, costless=result.status is LpStatus.INFEASIBLE)
        if not bound > 0:
            return False
        if result.status is not LpStatus.INFEASIBLE:
            self.least = min(self.least, bound)
        return True

    def _beside_jumps(self, node: _Node) -> np.ndarray | None:
        """Where the node's point is at a jump, its function may have another value there: a violation next to it."""
        if not self.neurons.jumps.any():
            return None
        self._fix(node.phase, BESIDE)
        point = np.clip(self._solve().point, self.lower, self.upper)[: self.encoding.inputs]
        return point if not self.stopped and self.subproblem.violates(point) else None

    def _fix(self, phase: np.ndarray, distance: float = 0.0) -> None:
        """Bounds of the neurons' columns in these phases, at a distance from jumps."""
        lower, upper = self.neurons.phase_bounds(phase, distance)
        real = self.neurons.real
        columns = self.neurons.columns[real]
        changed = (self.lower[columns] != lower[real]) | (self.upper[columns] != upper[real])
        self.lower[columns], self.upper[columns] = lower[real], upper[real]
        if changed.any():
            which = columns[changed]
            self.solver.bound_columns(which, self.lower[which], self.upper[which])

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
            self._append(cuts.matrix[worth], cuts.high[worth])
            better = self._bounded(node.phase)
            if better is None:
                return None
            if self.stopped:
                break
            node = better
        if len(self.program.low) - self.base_rows > MOST_CUTS * len(self.neurons):
            self._drop_slack(node.point)
        return node

    def _append(self, matrix: np.ndarray, high: np.ndarray) -> None:
        self.solver.add_rows(matrix, high)
        old = self.program
        self.program = LinearProgram(
            old.cost,
            np.concatenate([old.matrix, matrix]),
            np.concatenate([old.low, np.full(len(high), -np.inf)]),
            np.concatenate([old.high, high]),
            old.lower,
            old.upper,
        )

    def _drop_slack(self, point: np.ndarray) -> None:
        """Cuts that are far from a point go."""
        old = self.program
        slack = old.high[self.base_rows :] - old.matrix[self.base_rows :] @ point
        gone = (slack > 1e-9).nonzero()[0] + self.base_rows
        if not len(gone):
            return
        self.solver.delete_rows(gone)
        kept = np.setdiff1d(np.arange(len(old.low)), gone)
        self.program = LinearProgram(old.cost, old.matrix[kept], old.low[kept], old.high[kept], old.lower, old.upper)

    def _branch(self, node: _Node) -> list[_Node] | None:
        """Open children; None where no neuron is left to branch on, or time is up."""
        gap = self.neurons.gaps(node.point)
        gap = np.where(node.phase < 0, np.maximum(gap, 0.0), -1.0)
        if not (gap > IN_PHASE * self.largest).any() and leaves(self.subproblem, self.encoding, node.point):
            return None
        order, score = self._ranked(node, gap)
        best, best_gain = None, -1.0
        for neuron in order[:CANDIDATES].tolist():
            known = bool((self.counts[neuron][self.neurons.real[neuron]] >= RELIABLE).all())
            if best is not None and known and score[neuron] <= best_gain:
                break
            children = self._children(node, neuron, gap[neuron] * node.weight[neuron])
            if self.stopped:
                return None
            gain = self._product(node, [child.value for child in children], int(self.neurons.real[neuron].sum()))
            if gain > best_gain:
                best, best_gain = children, gain
            if known or len(children) < 2:
                break
        return best

    def _ranked(self, node: _Node, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Open neurons, the most promising first, and their expected scores `[N]`."""
        lacking = max(-node.value, self.cutoff)
        size = gap * np.where(gap > 0, node.weight, 0.0)
        total = self.counts.sum()
        average = self.gains.sum() / total if total else 1.0
        rate = np.where(self.counts > 0, self.gains / np.maximum(self.counts, 1), average)
        expected = np.minimum(np.maximum(size, 0.0)[:, None] * rate, lacking)
        expected = np.where(self.neurons.real, np.maximum(expected, SMALL * lacking), np.inf)
        least = np.sort(expected, axis=1)[:, :2]
        score = np.where(gap >= 0, least.prod(1), -1.0)
        # neurons that the point contradicts come first; where it contradicts none, any will do
        order = np.lexsort((-gap, -score))
        return order[gap[order] >= 0], score

    def _product(self, node: _Node, values: list[float], phases: int) -> float:
        """What the two least improved children gain, multiplied; closed ones gain all there is."""
        lacking = max(-node.value, self.cutoff)
        gains = [min(max(value - node.value, SMALL * lacking), lacking) for value in values]
        gains = sorted(gains + [lacking] * (phases - len(values)))
        return gains[0] * gains[1]

    def _children(self, node: _Node, neuron: int, size: float) -> list[_Node]:
        children = []
        for phase in self.neurons.real[neuron].nonzero()[0]:
            phases = node.phase.copy()
            phases[neuron] = phase
            child = self._bounded(phases)
            if self.stopped:
                break
            gained = (0.0 if child is None else min(child.value, 0.0)) - node.value
            if size > 0:
                self.gains[neuron, phase] += max(gained, 0.0) / size
                self.counts[neuron, phase] += 1
            if child is not None:
                children.append(child)
        return children
