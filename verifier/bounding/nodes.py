"""What is known about the nodes of a network over a batch of domains."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from torch import Tensor

from verifier.bounding.contraction import Contracted
from verifier.bounding.forward import Form
from verifier.bounding.reach import Reach
from verifier.core.interval import Interval
from verifier.core.operator import Planes


@dataclass(frozen=True, eq=False)
class NodeBounds:
    """By node: `intervals` of every value, `planes` of every nonlinear node, forward `forms` (may be empty), and, while
    bounds of nodes are made, what is known of `contracted` products of matrices. Each has the batch of the domains, or
    a batch of 1 where it holds for all of them. `known` is the reach of these domains and maybe more; bounds that are
    joined have one of their own, since that of any of them is not that of all."""

    intervals: dict[int, Interval] = field(default_factory=dict)
    planes: dict[int, Planes] = field(default_factory=dict)
    forms: dict[int, Form] = field(default_factory=dict)
    contracted: dict[int, Contracted] = field(default_factory=dict)
    reach: Reach = field(init=False)
    known: InitVar[Reach | None] = None

    def __post_init__(self, known: Reach | None) -> None:
        object.__setattr__(self, "reach", known or Reach(self.intervals))

    def upto(self, position: int) -> NodeBounds:
        """Intervals and planes of the nodes up to a position."""
        intervals = {k: v for k, v in self.intervals.items() if k <= position}
        return NodeBounds(intervals, {k: v for k, v in self.planes.items() if k <= position}, known=self.reach)

    def without_forms(self) -> NodeBounds:
        """Intervals and planes."""
        return NodeBounds(self.intervals, self.planes, known=self.reach)

    def select(self, domains: Tensor | slice) -> NodeBounds:
        """Intervals, planes and contracted products of some domains."""
        intervals = {k: v if v.shape[0] == 1 else v.select(domains) for k, v in self.intervals.items()}
        planes = {k: v if len(v.upper_intercept) == 1 else v.select(domains) for k, v in self.planes.items()}
        contracted = {k: v if len(v.half) == 1 else v.select(domains) for k, v in self.contracted.items()}
        return NodeBounds(intervals, planes, contracted=contracted, known=self.reach)
