"""Every knob: its unit, range, default and why. Settings travel as one frozen value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from verifier.errors import UsageError


@dataclass(frozen=True)
class AttackSettings:
    """Falsification before the search.

    `restarts`: random starting points of projected gradient descent, stepped as one batch.
    `steps`: gradient steps; `step`: first step as a share of the box width, decayed to a hundredth of it.
    `seconds`: budget; the attack stops early when it is spent.
    """

    restarts: int = 64
    steps: int = 100
    step: float = 0.25
    seconds: float = 5.0


@dataclass(frozen=True)
class SearchSettings:
    """Branch and bound.

    `batch`: most subproblems bounded at once. About 2,000 saturates two cores on networks of 300 neurons; the memory
    budget lowers it for wide ones.
    `width_exponent`: weight of the width in the choice of the input to split. 1.5 beat 1 and pure width on control
    networks (1 leaves instances open that 1.5 closes in 100 domains).
    """

    batch: int = 2048
    width_exponent: float = 1.5


@dataclass(frozen=True)
class Settings:
    """`timeout`: wall-clock seconds for the whole call. `device`: cpu, cuda, or auto (cuda where there is one).
    `memory`: bytes that bounds and frontier may take together. `seed`: of every random choice."""

    timeout: float = 300.0
    device: str = "auto"
    memory: int = 4 << 30
    seed: int = 0
    attack: AttackSettings = field(default_factory=AttackSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise UsageError(f"the timeout must be a positive number of seconds, not {self.timeout}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"unknown device '{self.device}'; use auto, cpu or cuda")
        if self.memory < 64 << 20:
            raise UsageError(f"the memory budget must be at least 64 MiB, not {self.memory} bytes")

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
