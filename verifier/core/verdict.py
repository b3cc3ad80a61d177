"""The answer, as a value."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Status(enum.Enum):
    """`SAT`: a violation was replayed. `UNSAT`: none exists. The other two say nothing about the property."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"

    def __and__(self, other: Status) -> Status:
        """Status of "both sub-queries have a violation of their own kind": unsat if either is."""
        return _weakest(self, other, decisive=Status.UNSAT, neutral=Status.SAT)

    def __or__(self, other: Status) -> Status:
        """Status of a query that is the disjunction of two: sat if either is, unsat only if both are."""
        return _weakest(self, other, decisive=Status.SAT, neutral=Status.UNSAT)


def _weakest(left: Status, right: Status, decisive: Status, neutral: Status) -> Status:
    if decisive in (left, right):
        return decisive
    if left is neutral:
        return right
    if right is neutral:
        return left
    return Status.TIMEOUT if Status.TIMEOUT in (left, right) else Status.UNKNOWN


@dataclass(frozen=True, eq=False)
class Witness:
    """An input of the original network that violates the property, and what onnxruntime computes there.

    `x`: the input in the network's own type and shape; `y`: the output; `disjunct`: which disjunct of the query holds.
    `rounded`: flat positions of inputs whose written range holds no number of the network's type, so that the
    nearest one was taken (the rounding that any such network does on reading its input).
    """

    x: np.ndarray
    y: np.ndarray
    disjunct: int
    rounded: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Verdict:
    """`reason`: one sentence. `bound`: the best proved lower bound of the margin that is still open (negative or zero),
    or of the smallest proved margin for UNSAT. `proved`: share of the input set's volume proved free of violations,
    0 to 1, averaged over the property's input boxes. `statistics`: counts and stage times in seconds. `trusted`: of
    UNSAT, the solver on whose word alone some of the proof rests; None where all of it was checked."""

    status: Status
    reason: str
    witness: Witness | None = None
    bound: float | None = None
    proved: float | None = None
    statistics: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    trusted: str | None = None

    @property
    def checked(self) -> bool:
        """Whether nobody need be trusted: SAT was replayed, UNSAT rests on bounds with rounding accounted for."""
        return self.status in (Status.SAT, Status.UNSAT) and self.trusted is None

    def __str__(self) -> str:
        return f"{self.status.value}: {self.reason}"
