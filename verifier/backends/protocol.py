"""What a backend is asked and what it answers, and what a solver must be able to do.

A backend answers for one disjunct over one box (`Subproblem`). Two kinds of solvers serve one: solvers of linear
programs suggest multipliers, from which `dual_bound` rebuilds the bound, and need not be believed; solvers of
mixed-integer programs give their word, and what rests on it is marked. Trouble of any kind is a `BackendError`, never
an answer.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from verifier.core.verdict import Status

if TYPE_CHECKING:  # a solver's own process does without torch
    from torch import Tensor

    from verifier.backends.pieces import Cuts
    from verifier.backends.subproblem import Subproblem


@dataclass(frozen=True)
class Budget:
    """`deadline`: `time.monotonic()` at which to stop; `stop` is asked between linear programs; `nodes`: most nodes."""

    deadline: float = float("inf")
    stop: Callable[[], bool] = lambda: False
    nodes: int = 10**9

    @property
    def seconds(self) -> float:
        return self.deadline - time.monotonic()

    def spent(self) -> bool:
        return self.seconds <= 0 or self.stop()


@dataclass(frozen=True, eq=False)
class Answer:
    """`status`: UNSAT no violation in the subproblem; SAT `point` `[*input]` violates in double precision;
    TIMEOUT, UNKNOWN neither. `checked`: of UNSAT, whether every bound was rebuilt with rounding accounted for; if not,
    it rests on the solver's word. `bound`: a margin proved everywhere with rounding accounted for, infinite where all
    leaves contradict themselves, minus infinity where nothing is known. `nodes` were branched on, `programs` solved,
    `reason` one sentence. `loose` `[s, columns]`: of UNKNOWN, points of the encoding that the network may leave, since
    functions in it lie between planes. `cuts`: of these, where the answer was given."""

    status: Status
    reason: str
    checked: bool = False
    point: Tensor | None = None
    bound: float = -float("inf")
    nodes: int = 0
    programs: int = 0
    loose: np.ndarray | None = None
    cuts: Cuts = field(default_factory=dict)


class Backend(Protocol):
    """Decides subproblems as a whole."""

    def supports(self, subproblem: Subproblem) -> str | None:
        """Why it cannot be asked, in a few words; None where it can."""

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        """UNSAT counts only where the answer is `checked`, or where the user trusts the solver. Raises `BackendError`
        where the solver is missing, has no licence for this size, or fails, and for what `supports` names."""


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """Minimise `cost . v` with `low <= matrix v <= high` and `lower <= v <= upper`. `cost`, `lower`, `upper`
    `[columns]`, all finite; `matrix` `[rows, columns]`; `low`, `high` `[rows]`, which may be infinite."""

    cost: np.ndarray
    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class LpStatus(enum.Enum):
    """`BEYOND`: the least cost is above the cut-off. `STOPPED`: time was up."""

    OPTIMAL = "optimal"
    BEYOND = "beyond"
    INFEASIBLE = "infeasible"
    STOPPED = "stopped"


@dataclass(frozen=True, eq=False)
class LpResult:
    """`value` the cost, `point` `[columns]`, `multipliers` `[rows]` of the rows (positive on `low`), which for
    INFEASIBLE prove that with no cost at all. All are claims."""

    status: LpStatus
    value: float
    point: np.ndarray
    multipliers: np.ndarray


class LinearSolver(Protocol):
    """Keeps one linear program in memory and starts from where the last solve ended."""

    def bound_columns(self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        """New bounds of some columns."""

    def add_rows(self, matrix: np.ndarray, high: np.ndarray) -> None:
        """Append rows `matrix v <= high`."""

    def delete_rows(self, rows: np.ndarray) -> None:
        """Those behind move up."""

    def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
        """May end early where the cost is above `cutoff`. `fresh`: forget where the last solve ended."""


@dataclass(frozen=True, eq=False)
class MixedProgram(LinearProgram):
    """A linear program in which the columns of the mask `integral` `[columns]`, which run from 0 to 1, are integers."""

    integral: np.ndarray


class MixedStatus(enum.Enum):
    """`ENDED`: with its best point. `INFEASIBLE`: the solver's word that no point exists. `STOPPED`: time was up."""

    ENDED = "ended"
    INFEASIBLE = "infeasible"
    STOPPED = "stopped"


@dataclass(frozen=True, eq=False)
class MixedResult:
    """`point` `[columns]`, the best one found, if any. Both are claims."""

    status: MixedStatus
    point: np.ndarray | None = None


class MixedSolver(Protocol):
    """Made with a `MixedProgram`. The solver's package is imported then, and everything it may say or fail with is
    translated: known statuses by one table, all else to `BackendError`."""

    def minimise(self, target: float, seconds: float) -> MixedResult:
        """May end early with a point whose cost is at most `target`."""
