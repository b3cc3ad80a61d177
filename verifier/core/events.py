"""What the pipeline and the search tell whoever listens. They do not know who does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verifier.core.extremum import Extremum


@dataclass(frozen=True)
class StageFinished:
    """A stage of the pipeline (`load`, `replay`, `attack`, `bound`, `search`) took `seconds`."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Progress:
    """State of the search after a batch: seconds since its start, subproblems open and bounded so far, share of the
    input set proved (0 to 1), and the worst bound among the open ones."""

    elapsed: float
    open: int
    bounded: int
    proved: float
    bound: float


@dataclass(frozen=True)
class Enclosed:
    """What is proved of an extremum after a batch, `elapsed` seconds after the start of its search."""

    elapsed: float
    extremum: Extremum


@dataclass(frozen=True)
class Notice:
    """Something the user should know; `loud` if the answer means less than it seems."""

    text: str
    loud: bool = False


Event = StageFinished | Progress | Enclosed | Notice
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer that does not listen."""
