"""Exact reasoning in processes of their own: one is given the network once, then parts of a problem."""

from __future__ import annotations

import os
import pickle
import threading
import time
from typing import Any

import torch

from verifier.backends.checked import Checked
from verifier.backends.child import Child
from verifier.backends.protocol import Answer, Budget
from verifier.backends.subproblem import Subproblem
from verifier.bounding.program import Program, prepare
from verifier.core.problem import Problem
from verifier.core.verdict import Status
from verifier.errors import BackendError

HOME = "verifier.backends.elsewhere:Prover"
NICE = 10  # the process gives way to the search where there is no core for it
STARTING = 60.0  # seconds until a process that is not ready is given up


class Prover:
    """What works in the process. Everything comes and goes as bytes: tensors would be shared otherwise."""

    def __init__(self, content: bytes) -> None:
        os.nice(NICE)
        torch.set_num_threads(1)
        graph, self.problem = pickle.loads(content)
        self.program = prepare(graph, torch.float64)

    def ready(self) -> bool:
        return True

    @torch.no_grad()
    def solve(self, asked: bytes, seconds: float) -> bytes:
        """A violation is not confirmed here."""
        found, box, which, disjunct = pickle.loads(asked)
        subproblem = Subproblem(self.program, found, self.problem, box, which, disjunct)
        return pickle.dumps(Checked().solve(subproblem, Budget(time.monotonic() + seconds)))


class Process:
    """What is at `home`, made with `content`, in a process that starts with the first question, and anew where it died.
    All is asked in one thread; `stop` may come from another one."""

    def __init__(self, home: str, content: bytes) -> None:
        self.home, self.content = home, content
        self.child: Child | None = None
        self.stopped, self.lock = False, threading.Lock()

    def ask(self, seconds: float, name: str, *arguments: object) -> Any:
        """What a method returns; None where it did not answer in time. Raises `BackendError` where it failed; the
        process is gone then, as without an answer."""
        reply = None
        try:
            reply = self.start().ask(seconds, name, *arguments)
        finally:
            if reply is None:
                self._drop()
        return reply

    def stop(self) -> None:
        """At once; there are no answers any more."""
        with self.lock:
            self.stopped = True
            if self.child is not None:
                self.child.kill()

    def start(self) -> Child:
        """The process, started and ready, which takes seconds the first time."""
        if self.child is None:
            with self.lock:
                if self.stopped:
                    raise BackendError("exact reasoning was stopped")
                self.child = Child(self.home, self.content)
            if not self.child.ask(STARTING, "ready"):
                raise BackendError("the process for exact reasoning does not start")
        return self.child

    def _drop(self) -> None:
        with self.lock:
            child, self.child = self.child, None
        if child is not None:
            child.end()


class Elsewhere:
    """A `Backend`: `Checked` in a process of its own. All questions are about `problem`."""

    def __init__(self, program: Program, problem: Problem) -> None:
        self.process = Process(HOME, pickle.dumps((program.graph, problem)))

    def supports(self, subproblem: Subproblem) -> str | None:
        return Checked().supports(subproblem)

    def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
        """SAT rests on double precision alone."""
        asked = pickle.dumps((subproblem.found, subproblem.box, subproblem.which, subproblem.disjunct))
        seconds = budget.seconds
        reply = self.process.ask(seconds, "solve", asked, seconds)
        return Answer(Status.TIMEOUT, "time was up") if reply is None else pickle.loads(reply)

    def start(self) -> None:
        """Which takes seconds the first time."""
        self.process.start()

    def stop(self) -> None:
        """At once; there are no answers any more."""
        self.process.stop()
