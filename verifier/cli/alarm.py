"""Ends work that does not look at the clock itself: reading a large file, one pass over a very large network.

The operating system's timer raises an exception in the main thread, as Ctrl-C does, and whatever ends with Ctrl-C ends
with it: solvers' processes, temporary files. A single call of a library comes back first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

LONGEST = 1e6  # seconds that the operating system's timer can surely be set to


class TimeIsUp(BaseException):
    """Like `KeyboardInterrupt` no `Exception`: what handles faults of a file or a solver must not take it for one."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises `TimeIsUp` in the block after so many seconds, unless they are very many. Only for the main thread."""
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds if seconds < LONGEST else 0.0)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeIsUp
