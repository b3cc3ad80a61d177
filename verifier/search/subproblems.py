"""Subproblems of the search over neurons, and which neurons each of them carries.

A subproblem is one disjunct of one input box, with bounds of its own for the neurons that the root left undecided: a
split tightens one of them, and every bound may carry a multiplier. The rest of the network is described once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.dual import Dual, Multipliers, Objective
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import initial_multipliers
from verifier.bounding.program import Program
from verifier.bounding.undecided import undecided_elements
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.stacked import cast, clone
from verifier.search.sites import Sites


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
        return replace(self, **changes)  # type: ignore[arg-type]


def whole_boxes(
    kept: Kept, objective: Objective, box: Interval, which: Tensor, disjunct: Tensor, bound: Tensor
) -> Subproblems:
    """The subproblems from which a search starts: box `which` `[n]` of `box` with the rows `disjunct` `[n]`, of which
    `objective` is a description and `bound` a bound."""
    neurons = kept.undecided.neurons(kept.base.select(which))
    fill = lambda v: v.expand(len(which), *v.shape[1:])  # noqa: E731
    return Subproblems(
        box=box.select(which),
        problem=which,
        disjunct=disjunct,
        neurons={k: Interval(fill(v.lower), fill(v.upper)) for k, v in neurons.items()},
        multipliers=short(initial_multipliers(kept.undecided, neurons, objective, bounded=True)),
        bound=bound,
        share=torch.full((len(which),), 1.0 / max(1, len(which)), dtype=torch.float64, device=bound.device),
    )


def short(multipliers: Multipliers) -> Multipliers:
    """In half the bits: any multiplier is valid."""
    return replace(cast(multipliers, torch.bfloat16), weights=multipliers.weights)


class Kept:
    """What all subproblems share: `base`, bounds of all nodes over each box, and the neurons that these leave
    `undecided`, of which each subproblem carries bounds of its own. `sites`: where it can be split."""

    def __init__(self, program: Program, base: NodeBounds) -> None:
        self.program, self.base = program, base
        self.undecided = undecided_elements(program, base)
        self.sites = Sites(program, self.undecided)
        self._hull = {
            k: Interval(v.lower.amin(0, keepdim=True), v.upper.amax(0, keepdim=True)) for k, v in base.intervals.items()
        }

    def dual(self, domains: Subproblems, objective: Objective) -> Dual:
        """Of the bounds of some subproblems."""
        return Dual(self.undecided.select(domains.problem), domains.box, domains.neurons, objective)

    def multipliers(self, domains: Subproblems) -> Multipliers:
        """Those of the best bounds so far, in the precision of the program."""
        return clone(cast(domains.multipliers, self.program.dtype))

    def intervals(self, domains: Subproblems) -> dict[int, Interval]:
        """Bounds of every node: those of a subproblem where it has its own, else what holds for all."""
        found = dict(self._hull)
        for source, index in self.undecided.index.items():
            base, own = self.base.intervals[source].select(domains.problem), domains.neurons[source]
            places = index.expand(len(domains), -1)
            lower = torch.scatter(flat(base.lower), 1, places, own.lower)
            upper = torch.scatter(flat(base.upper), 1, places, own.upper)
            found[source] = Interval(lower.reshape(base.shape), upper.reshape(base.shape))
        return found
