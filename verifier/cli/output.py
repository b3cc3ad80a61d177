"""Writing to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from verifier.errors import UsageError
from verifier.report.record import write_text


def say(text: str) -> None:
    """One message on stderr. Nobody reading it is no reason to stop."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def answer(text: str) -> None:
    """A result on stdout."""
    print(text, flush=True)


def write(path: Path, text: str) -> None:
    """A file that was asked for."""
    try:
        write_text(path, text)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror}") from error
