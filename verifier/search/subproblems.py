"""Subproblems of the search over neurons, and which neurons each of them carries.

A subproblem is one disjunct of one input box, with bounds of its own for the neurons that the root left undecided: a
split tightens one of them, and every bound may carry a multiplier. The rest of the network is described once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Multipliers, Objective
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import initial_multipliers
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Adjustable, Elementwise


@dataclass(frozen=True, eq=False)
class Subproblems:
    """`box` `[n, *input]`; `problem`, `disjunct` `[n]`: which box of the query and which of its disjuncts; `neurons` by
    node `[n, kept]`; `multipliers` of the best bound so far, in the same short form; `bound` `[n]` that bound; `share`
    `[n]` part of the whole (float64; each split halves it)."""

    box: Interval
    problem: Tensor
    disjunct: Tensor
    neurons: dict[int, Interval]
    multipliers: Multipliers
    bound: Tensor
    share: Tensor

    def __len__(self) -> int:
        return len(self.problem)

    def contradicts(self) -> Tensor:
        """Where the bounds of some neuron leave nothing, a mask `[n]`."""
        return torch.stack([(box.lower > box.upper).any(1) for box in self.neurons.values()]).any(0)

    def replace(self, **changes: object) -> Subproblems:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def whole_boxes(
    kept: Kept, objective: Objective, box: Interval, which: Tensor, disjunct: Tensor, bound: Tensor
) -> Subproblems:
    """The subproblems from which a search starts: box `which` `[n]` of `box` with the rows `disjunct` `[n]`, of which
    `objective` is a description and `bound` a bound."""
    found = kept.base.select(which)
    multipliers = initial_multipliers(kept.program, found, objective, tuple(kept.index))
    fill = lambda v: v.expand(len(which), *v.shape[1:])  # noqa: E731
    return Subproblems(
        box=box.select(which),
        problem=which,
        disjunct=disjunct,
        neurons={k: Interval(fill(v.lower), fill(v.upper)) for k, v in kept.neurons(found).items()},
        multipliers=kept.compress(multipliers),
        bound=bound,
        share=torch.full((len(which),), 1.0 / max(1, len(which)), dtype=torch.float64, device=bound.device),
    )


class Kept:
    """The neurons that subproblems carry: by node, the flat positions `[kept]` of its elements that some reader could
    not decide over some box of the query. `base`: bounds of all nodes over each box."""

    def __init__(self, program: Program, base: NodeBounds) -> None:
        self.program, self.base = program, base
        self.index: dict[int, Tensor] = {}
        for node in program.graph.nodes:
            if not isinstance(node.op, Elementwise):
                continue
            undecided = flat(node.op.unstable(*(base.intervals[s] for s in node.inputs))).any(0)
            for source in node.inputs:
                known = self.index.get(source)
                if known is not None:
                    undecided = undecided.clone()
                    undecided[known] = True
                self.index[source] = undecided.nonzero().flatten()
        self.adjusted = {
            position: (node.op, node.inputs[0])
            for position, node in enumerate(program.graph.nodes)
            if isinstance(node.op, Adjustable) and position in base.planes
        }
        self._hull = {
            k: Interval(v.lower.amin(0, keepdim=True), v.upper.amax(0, keepdim=True)) for k, v in base.intervals.items()
        }

    @property
    def count(self) -> int:
        return sum(len(index) for index in self.index.values())

    def neurons(self, found: NodeBounds) -> dict[int, Interval]:
        """The kept ones of bounds over `n` domains."""
        kept = {}
        for source, index in self.index.items():
            box = found.intervals[source]
            kept[source] = Interval(flat(box.lower)[:, index], flat(box.upper)[:, index])
        return kept

    def intervals(self, domains: Subproblems) -> dict[int, Interval]:
        """Bounds of every node: those of a subproblem where it has its own, else what holds for all."""
        found = dict(self._hull)
        for source, index in self.index.items():
            base, own = self.base.intervals[source].select(domains.problem), domains.neurons[source]
            lower = flat(base.lower).index_copy(1, index, own.lower)
            upper = flat(base.upper).index_copy(1, index, own.upper)
            found[source] = Interval(lower.reshape(base.shape), upper.reshape(base.shape))
        return found

    def node_bounds(self, domains: Subproblems) -> NodeBounds:
        """The same with the planes that follow."""
        intervals = self.intervals(domains)
        planes = {}
        for position in self.base.planes:
            node = self.program.graph.nodes[position]
            assert isinstance(node.op, Elementwise)
            planes[position] = node.op.relax(*(intervals[source] for source in node.inputs))
        return NodeBounds(intervals, planes)

    def compress(self, multipliers: Multipliers) -> Multipliers:
        """Of the kept neurons only, in half the bits: any multiplier is valid."""
        short = lambda value, source: flat(value)[:, self.index[source]].to(torch.bfloat16)  # noqa: E731
        return Multipliers(
            {k: short(v, self.adjusted[k][1]) for k, v in multipliers.lower.items()},
            {k: short(v, self.adjusted[k][1]) for k, v in multipliers.upper.items()},
            {k: short(v, k) for k, v in multipliers.bounds.items()},
            multipliers.weights,
        )

    def expand(self, multipliers: Multipliers, found: NodeBounds) -> Multipliers:
        """Back to whole nodes; neurons that are not kept have the parameters of their planes, and no multiplier."""
        count = len(multipliers.weights)

        def fill(value: Tensor, short: Tensor, source: int) -> Tensor:
            whole = flat(value.expand(count, *value.shape[1:]))
            return whole.index_copy(1, self.index[source], short.to(value.dtype)).reshape(count, *value.shape[1:])

        start = {k: op.parameters(found.planes[k]) for k, (op, _) in self.adjusted.items()}
        lower = {k: fill(start[k][0], v, self.adjusted[k][1]) for k, v in multipliers.lower.items()}
        upper = {k: fill(start[k][1], v, self.adjusted[k][1]) for k, v in multipliers.upper.items()}
        bounds = {k: fill(torch.zeros_like(found.intervals[k].lower), v, k) for k, v in multipliers.bounds.items()}
        return Multipliers(lower, upper, bounds, multipliers.weights.clone())
