"""Every knob: its unit, range, default and why. Settings travel as one frozen value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from verifier.errors import UsageError


@dataclass(frozen=True)
class AttackSettings:
    """Falsification before the search.

    `restarts`: most points of projected gradient descent, stepped as one batch; fewer where one is dear.
    `steps`: gradient steps of the thorough attack. `seconds`: budget; the attack stops early when it is spent.
    """

    restarts: int = 256
    steps: int = 100
    seconds: float = 5.0


@dataclass(frozen=True)
class AscentSettings:
    """Optimisation of the multipliers of a bound.

    `iterations`: gradient steps. `slope_rate`: largest step of a slope as a share of its range, `bound_rate`: of a
    bound's multiplier as a share of its neuron's coefficient, `weight_rate`: of the logarithm of a weight; all decay by
    `decay` a step. `enough`: a bound above this needs no further steps.
    """

    iterations: int = 20
    slope_rate: float = 0.3
    bound_rate: float = 0.02
    weight_rate: float = 1.0
    decay: float = 0.95
    enough: float = 0.0


@dataclass(frozen=True)
class SearchSettings:
    """Branch and bound.

    `batch`: most subproblems bounded at once. About 2,000 saturates two cores on networks of 300 neurons; the memory
    budget lowers it for wide ones.
    `width_exponent`: weight of the width in the choice of the input to split. 1.5 beat 1 and pure width on control
    networks (1 leaves instances open that 1.5 closes in 100 domains).
    `root`, `neurons`, `ends`, `ascent`: optimisation of the rows and of the neurons at the root, of the end of a neuron
    after splits, and of a subproblem's bound.
    `levels`: most splits at once while there are too few subproblems to fill a batch.
    """

    batch: int = 2048
    width_exponent: float = 1.5
    root: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=40))
    neurons: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=80))
    ends: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=5))
    ascent: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=20))
    levels: int = 4


@dataclass(frozen=True)
class Gap:
    """How near the two ends of a minimum or maximum have to come: `absolute`, or `relative` to the size of the value,
    whichever is more."""

    absolute: float = 1e-6
    relative: float = 1e-4

    def __post_init__(self) -> None:
        if not all(0 <= part < float("inf") for part in (self.absolute, self.relative)):
            raise UsageError(f"gaps must be numbers from 0 on, not {self.absolute} and {self.relative}")

    def at(self, value: float) -> float:
        """The gap that is near enough for this value."""
        return max(self.absolute, self.relative * abs(value))


@dataclass(frozen=True)
class Settings:
    """`timeout`: wall-clock seconds for the whole call. `device`: cpu, cuda, or auto (cuda where there is one).
    `memory`: bytes that bounds and frontier may take together. `seed`: of every random choice. `gap`: of a minimum or a
    maximum."""

    timeout: float = 300.0
    device: str = "auto"
    memory: int = 4 << 30
    seed: int = 0
    gap: Gap = field(default_factory=Gap)
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
