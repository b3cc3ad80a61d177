"""A solver in a process of its own: its crash, or an end that it cannot find, costs one attempt and nothing else.

Calls are sent without waiting; whatever went wrong with them comes back from the next one that is answered. The process
ends with its pipe, so it never outlives whoever asked, and what it started ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from verifier.backends.protocol import LinearProgram, LpResult, LpStatus, MixedProgram, MixedResult, MixedStatus
from verifier.errors import BackendError

GRACE = 1.0  # seconds after its time limit until a solver that does not answer is killed
LONGEST = 1e6  # seconds that the operating system can wait for at once
HIGHS = "verifier.backends.highs:HighsSolver"


class Child:
    """A process with one solver in it, `home` (its module and class), made with `arguments`. It leads a group of its
    own and has a folder of its own for temporary files; both end with it."""

    def __init__(self, home: str, *arguments: object) -> None:
        ours, theirs = socket.socketpair()
        folder = tempfile.TemporaryDirectory(prefix="verifier-", ignore_cleanup_errors=True)
        with theirs:
            self.process = _process(theirs.fileno(), folder.name)
        self.pipe = Connection(ours.detach())
        self.end = weakref.finalize(self, _end, self.process, self.pipe, folder)
        self.send(home, *arguments)

    def send(self, name: str, *arguments: object, answered: bool = False) -> None:
        try:
            self.pipe.send((name, arguments, answered))
        except OSError as error:
            raise BackendError("the solver's process died") from error

    def ask(self, seconds: float, name: str, *arguments: object) -> Any:
        """What a method of the solver returns; None where it did not answer in time and was killed."""
        self.send(name, *arguments, answered=True)
        try:
            answered = self.pipe.poll(min(max(seconds, 0.0) + GRACE, LONGEST))
            reply = self.pipe.recv() if answered else None
        except (EOFError, OSError) as error:
            raise BackendError("the solver's process died") from error
        if isinstance(reply, BackendError):
            raise reply
        if reply is None:
            self.end()
        return reply

    def kill(self) -> None:
        """From another thread than the one that asks, which then is told that the process died."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class ChildSolver:
    """A `LinearSolver`: HiGHS, elsewhere."""

    def __init__(self, program: LinearProgram) -> None:
        self.child = Child(HIGHS, program)
        self.rows, self.columns = program.matrix.shape

    def bound_columns(self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        self.child.send("bound_columns", columns, lower, upper)

    def add_rows(self, matrix: np.ndarray, high: np.ndarray) -> None:
        self.rows += len(high)
        self.child.send("add_rows", matrix, high)

    def delete_rows(self, rows: np.ndarray) -> None:
        self.rows -= len(rows)
        self.child.send("delete_rows", rows)

    def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
        reply = self.child.ask(seconds, "minimise", cutoff, seconds, fresh)
        if reply is None:
            return LpResult(LpStatus.STOPPED, -float("inf"), np.zeros(self.columns), np.zeros(self.rows))
        return reply


class ChildMixed:
    """A `MixedSolver`: the one at `home`, elsewhere."""

    def __init__(self, home: str, program: MixedProgram) -> None:
        self.child = Child(home, program)

    def minimise(self, target: float, seconds: float) -> MixedResult:
        reply = self.child.ask(seconds, "minimise", target, seconds)
        return MixedResult(MixedStatus.STOPPED) if reply is None else reply


def made(home: str, *arguments: object) -> Any:
    """The solver at `home`, in this process."""
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)(*arguments)


def _process(number: int, folder: str) -> subprocess.Popen[bytes]:
    """With the socket of this number as its pipe."""
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "verifier.backends.child", str(number)],
            pass_fds=[number],
            stdout=subprocess.DEVNULL,  # solvers like to introduce themselves
            start_new_session=True,
            env={**os.environ, "TMPDIR": folder},
        )
    except OSError as error:
        raise BackendError(f"no process could be started for the solver: {error}") from error


def _end(process: subprocess.Popen[bytes], pipe: Connection, folder: tempfile.TemporaryDirectory[str]) -> None:
    pipe.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder.cleanup()


def serve(pipe: Connection) -> None:
    """Do what is asked until the other end closes. The first message names the solver, and what it is made with; where
    an answer is expected, it is the result, or what failed."""
    solver: Any = None
    failed: BackendError | None = None
    while True:
        try:
            name, arguments, answered = pipe.recv()
        except EOFError:
            return
        reply: object = None
        try:
            if failed is None and solver is None:
                solver = made(name, *arguments)
            elif failed is None:
                reply = getattr(solver, name)(*arguments)
        except BackendError as error:
            failed = error
        except Exception as error:
            failed = BackendError(f"the solver's process failed: {error}")
        if answered:
            pipe.send(failed or reply)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; whoever asked decides
    serve(Connection(int(sys.argv[1])))
