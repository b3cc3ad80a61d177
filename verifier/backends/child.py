"""A solver in a process of its own: its crash, or an end that it cannot find, costs one attempt and nothing else.

Changes are sent without waiting; whatever went wrong with them comes back from the next `minimise`. The process ends
with its pipe, so it never outlives whoever asked.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection

import numpy as np

from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import LinearProgram, LpResult, LpStatus
from verifier.errors import BackendError

GRACE = 1.0  # seconds after its time limit until a solver that does not answer is killed
LONGEST = 1e6  # seconds that the operating system can wait for at once


class ChildSolver:
    """A `LinearSolver`: HiGHS, elsewhere."""

    def __init__(self, program: LinearProgram) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "verifier.backends.child", str(number)]
            self.process = subprocess.Popen(command, pass_fds=[number])
        self.pipe = Connection(ours.detach())
        self.end = weakref.finalize(self, _end, self.process, self.pipe)
        self._send("start", program)
        self.rows, self.columns = program.matrix.shape

    def bound_columns(self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        self._send("bound_columns", columns, lower, upper)

    def add_rows(self, matrix: np.ndarray, high: np.ndarray) -> None:
        self.rows += len(high)
        self._send("add_rows", matrix, high)

    def delete_rows(self, rows: np.ndarray) -> None:
        self.rows -= len(rows)
        self._send("delete_rows", rows)

    def minimise(self, cutoff: float, seconds: float, fresh: bool = False) -> LpResult:
        self._send("minimise", cutoff, seconds, fresh)
        try:
            answered = self.pipe.poll(min(max(seconds, 0.0) + GRACE, LONGEST))
            reply = self.pipe.recv() if answered else None
        except (EOFError, OSError) as error:
            raise BackendError("the solver's process died") from error
        if isinstance(reply, BackendError):
            raise reply
        if reply is None:
            self.end()
            return LpResult(LpStatus.STOPPED, -float("inf"), np.zeros(self.columns), np.zeros(self.rows))
        return reply

    def _send(self, name: str, *arguments: object) -> None:
        try:
            self.pipe.send((name, arguments))
        except OSError as error:
            raise BackendError("the solver's process died") from error


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.wait()


def serve(pipe: Connection) -> None:
    """Do what is asked until the other end closes. Only `minimise` is answered: by its result, or by what failed."""
    solver: HighsSolver | None = None
    failed: BackendError | None = None
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        reply: LpResult | BackendError | None = None
        try:
            if failed is None and name == "start":
                solver = HighsSolver(*arguments)
            elif failed is None:
                reply = getattr(solver, name)(*arguments)
        except BackendError as error:
            failed = error
        except Exception as error:
            failed = BackendError(f"the solver's process failed: {error}")
        if name == "minimise":
            pipe.send(failed or reply)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; whoever asked decides
    serve(Connection(int(sys.argv[1])))
