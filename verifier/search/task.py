"""What every search is given, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.program import Program, prepare
from verifier.core.events import Observer, ignore
from verifier.core.problem import Problem
from verifier.core.stacked import move
from verifier.search.branching.neurons_first import neurons_first
from verifier.search.branching.rule import Rule
from verifier.settings import SearchSettings

Candidates = Callable[[Tensor, Tensor], bool]
"""Takes points `[n, *input]` and the input box each belongs to `[n]`; True if one was confirmed as a violation."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended, or where it stands. `found`: a violation was confirmed. `open`: subproblems left, `stuck`:
    those that cannot be split further, `bounded`: so many were bounded. `proved`: share of the input set. `bound`: the
    worst one of what is left. `reason`: why something is left, where more is known. `trusted`: the solver on whose word
    alone some of the proof rests."""

    found: bool
    open: int
    stuck: int
    bounded: int
    proved: float
    bound: float
    reason: str = ""
    trusted: str | None = None

    @property
    def complete(self) -> bool:
        """Everything is proved."""
        return not self.found and not self.open and not self.stuck


@dataclass(frozen=True, eq=False)
class Limits:
    """`deadline`: a `time.monotonic()` value. `memory`: bytes for bounds and frontier together."""

    deadline: float
    memory: int

    @property
    def seconds(self) -> float:
        """Left."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True, eq=False)
class Task:
    """What to decide and by what means: `program` bounds, `precise` gives the slower one in double precision for close
    calls, `candidates` is asked about points that may be violations, `exact` says whether exact reasoning may serve,
    `rule` which neuron or input the search over neurons splits."""

    problem: Problem
    program: Program
    precise: Callable[[], Program]
    settings: SearchSettings
    limits: Limits
    candidates: Candidates
    observer: Observer = ignore
    exact: bool = True
    rule: Rule = neurons_first

    def in_double(self) -> Task:
        """The same in double precision throughout."""
        narrow = self.problem.box.lower.dtype
        return replace(
            self,
            problem=self.problem.in_double(),
            program=self.precise(),
            candidates=lambda points, which: self.candidates(points.to(narrow), which),
        )

    def for_solvers(self) -> tuple[Program, Problem]:
        """The network and the problem in double precision, both on the CPU."""
        program = self.precise()
        if program.device.type != "cpu":
            program = prepare(program.graph, torch.float64)
        return program, move(self.problem.in_double(), "cpu")

    def confirms(self, point: Tensor, which: int) -> bool:
        """Whether a point `[*input]` that was found elsewhere in box `which` is a violation."""
        own = self.problem.box.lower
        return self.candidates(point[None].to(own), torch.tensor([which], device=own.device))
