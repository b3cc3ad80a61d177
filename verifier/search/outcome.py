"""What every search takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Candidates = Callable[[Tensor, Tensor], bool]
"""Takes points `[n, *input]` and the input box each belongs to `[n]`; True if one was confirmed as a violation."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended, or where it stands. `found`: a violation was confirmed. `open`: subproblems left, `stuck`:
    those that cannot be split further, `bounded`: so many were bounded. `proved`: share of the input set. `bound`: the
    worst one of what is left."""

    found: bool
    open: int
    stuck: int
    bounded: int
    proved: float
    bound: float

    @property
    def complete(self) -> bool:
        """Everything is proved."""
        return not self.found and not self.open and not self.stuck


@dataclass(frozen=True, eq=False)
class Limits:
    """`deadline`: a `time.monotonic()` value. `memory`: bytes for bounds and frontier together."""

    deadline: float
    memory: int
