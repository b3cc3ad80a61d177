"""Reads properties in VNN-LIB 1.0, the text format of VNN-COMP, into a `Query`.

The file states the violation: the property holds where no point satisfies all assertions. `X_i` and `Y_j` number the
flattened (row-major) input and output of the network. Numbers are read exactly.
"""

from __future__ import annotations

import gc
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verifier.core.query import Query
from verifier.errors import PropertyError
from verifier.frontend.vnnlib.normal_form import to_query
from verifier.frontend.vnnlib.syntax import parse

__all__ = ["parse_property", "read_property"]


def read_property(path: str | Path) -> Query:
    """The property in a file, plain or gzipped; where only `path` + '.gz' exists, that one is read."""
    return parse_property(_read_text(Path(path)), str(path))


def parse_property(text: str, name: str) -> Query:
    """The property in `text`; messages call it `name`."""
    with _paused_garbage_collector():
        return to_query(parse(text, name), name)


@contextmanager
def _paused_garbage_collector() -> Iterator[None]:
    """Nothing made here is cyclic, and looking for cycles in millions of new objects takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_text(path: Path) -> str:
    if not path.exists() and path.with_name(path.name + ".gz").exists():
        path = path.with_name(path.name + ".gz")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PropertyError(f"property file '{path}' does not exist") from None
    except IsADirectoryError:
        raise PropertyError(f"'{path}' is a directory; give the .vnnlib file inside") from None
    except OSError as error:
        raise PropertyError(f"property file '{path}' cannot be read: {error.strerror}") from None
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            raise PropertyError(f"property file '{path}' is not a complete gzip file; fetch it again") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PropertyError(f"property file '{path}' is not text: byte {error.start} is not valid UTF-8") from None
