"""Writing to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """One message on stderr. Nobody reading it is no reason to stop."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def answer(text: str) -> None:
    """A result on stdout."""
    print(text, flush=True)
