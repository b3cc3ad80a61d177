"""Every knob: its unit, range, default and why. Settings travel as one frozen value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from verifier.errors import UsageError

METHODS: dict[str, tuple[str, ...]] = {"auto": (), "bab": (), "milp": ("highs", "gurobi", "cbc"), "smt": ("z3",)}
"""Ways to decide a query, each with the solvers that can serve it; the first one does unless another is named."""
SOLVERS = [solver for solvers in METHODS.values() for solver in solvers]
TRUSTS = ("checked", "solver")


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
    `decay` a step. `enough`: a bound above this needs no further steps. `again`: gradient steps from where an ascent
    for the same row over a box nearby ended.
    """

    iterations: int = 20
    slope_rate: float = 0.3
    bound_rate: float = 0.02
    weight_rate: float = 1.0
    decay: float = 0.95
    enough: float = 0.0
    again: int = 3


@dataclass(frozen=True)
class SearchSettings:
    """Branch and bound.

    `batch`: most subproblems bounded at once. About 2,000 saturates two cores on networks of 300 neurons; the memory
    budget lowers it for wide ones.
    `width_exponent`: weight of the width in the choice of the input to split. 1.5 beat 1 and pure width on control
    networks (1 leaves instances open that 1.5 closes in 100 domains).
    `root`, `neurons`, `brief`, `ends`, `ascent`: optimisation of the rows and of the neurons at the root, the latter
    `brief` where it is dear and gains little after the first steps, tile by tile or over several boxes, of the end of a
    neuron after splits, and of a subproblem's bound.
    `levels`: most splits at once while there are too few subproblems to fill a batch.
    """

    batch: int = 2048
    width_exponent: float = 1.5
    root: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=40))
    neurons: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=80))
    brief: AscentSettings = field(default_factory=lambda: AscentSettings(iterations=5, slope_rate=1.0))
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
    maximum.

    `method`: auto (bounds, both searches, and exact reasoning where it serves), bab (the same without the last), milp
    or smt (a mixed-integer program or a formula for what the root's bounds leave open, on the CPU). `solver`: which one
    of the method's. `trust`: checked (what a solver only says must be proved again, or is unknown), solver (its word
    will do, and the verdict names it). One wrong answer is worse than many unknown ones, so the default is checked."""

    timeout: float = 300.0
    device: str = "auto"
    memory: int = 4 << 30
    seed: int = 0
    gap: Gap = field(default_factory=Gap)
    method: str = "auto"
    solver: str | None = None
    trust: str = "checked"
    attack: AttackSettings = field(default_factory=AttackSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise UsageError(f"the timeout must be a positive number of seconds, not {self.timeout}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"unknown device '{self.device}'; use auto, cpu or cuda")
        if self.memory < 64 << 20:
            raise UsageError(f"the memory budget must be at least 64 MiB, not {self.memory} bytes")
        self._check_method()

    def _check_method(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method '{self.method}'; use one of {', '.join(METHODS)}")
        if self.trust not in TRUSTS:
            raise UsageError(f"unknown trust '{self.trust}'; use one of {', '.join(TRUSTS)}")
        if self.solver is not None and self.solver not in METHODS[self.method]:
            serves = [method for method, solvers in METHODS.items() if self.solver in solvers]
            if not serves:
                raise UsageError(f"unknown solver '{self.solver}'; use one of {', '.join(SOLVERS)}")
            raise UsageError(
                f"{self.solver} serves the method {serves[0]}, not {self.method}; use --method {serves[0]}"
            )
        if self.trust == "solver" and not METHODS[self.method]:
            raise UsageError(f"the method {self.method} never rests on a solver's word; leave out --trust solver")

    @property
    def chosen_solver(self) -> str | None:
        """The one that serves the method, where one does."""
        return self.solver or next(iter(METHODS[self.method]), None)

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
