"""Stand-ins for what the command line calls, so that its tests wait for no verification."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from verifier.core.events import Notice, Progress, StageFinished
from verifier.core.query import Query
from verifier.core.verdict import Status, Verdict, Witness

SAT = Verdict(
    Status.SAT,
    "found by the attack",
    witness=Witness(np.float32([[0.5, 0.25]]), np.float32([[np.inf]]), 0, (1,)),
    statistics={"restarts": np.int64(3), "margin": float("nan")},
    warnings=("input 1 was rounded",),
)
UNSAT = Verdict(Status.UNSAT, "every subproblem is proved", bound=0.25, proved=1.0)
UNKNOWN = Verdict(Status.UNKNOWN, "the memory ran out", bound=-0.5, proved=0.75)
OUTCOMES = {"sat": SAT, "unsat": UNSAT, "unknown": UNKNOWN}

BOUNDS = [(np.full(60, -0.1), np.full(60, 0.3))] * 7


def modules(outcome: Verdict | BaseException, calls: list[Any] | None = None) -> dict[str, ModuleType]:
    """Modules to be put into `sys.modules`. `verify` notes its arguments in `calls` and returns or raises `outcome`."""

    def verify(network: object, query: object, settings: object, observer: Callable[[object], None]) -> Verdict:
        if calls is not None:
            calls.append(settings)
        observer(StageFinished("attack", 0.5))
        observer(Progress(1.0, 7, 12, 0.5, -0.125))
        observer(Notice("float16 was widened"))
        observer(Notice("bounds are not sound", loud=True))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return {
        "verifier.frontend.network": _module("verifier.frontend.network", load=lambda path: SimpleNamespace(path=path)),
        "verifier.frontend.vnnlib": _module("verifier.frontend.vnnlib", read_property=lambda path: Query(2, 1, ())),
        "verifier.pipeline": _module(
            "verifier.pipeline", verify=verify, bounds=lambda network, query, method, settings: BOUNDS
        ),
        "verifier.report.witness": _module(
            "verifier.report.witness", format_witness=lambda witness: "((X_0 0.5)\n(X_1 0.25)\n(Y_0 inf))\n"
        ),
    }


def sleepy_modules() -> dict[str, ModuleType]:
    """As `modules`, but verification says that it runs and never ends."""
    found = modules(UNSAT)

    def verify(*arguments: object) -> Verdict:
        print("running", flush=True)
        while True:
            time.sleep(1)

    found["verifier.pipeline"] = _module("verifier.pipeline", verify=verify)
    return found


def _module(name: str, **members: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members)
    return module
