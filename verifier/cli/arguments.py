"""What several commands share about their arguments."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from verifier.errors import InputError, ModelError, PropertyError, UsageError

_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_UNITS |= {f"{prefix}iB": _UNITS[prefix] for prefix in "KMGT"}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}


class Size(click.ParamType):
    """Bytes: `4GiB`, `512M` (binary), `2GB` (decimal), `1000000`."""

    name = "size"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([A-Za-z]*)", str(value).strip())
        if not found or found[2] not in _UNITS:
            self.fail(f"'{value}' is not a size; write for example 4GiB or 512MiB", parameter, context)
        return int(float(found[1]) * _UNITS[found[2]])


device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)


def model_file(path: str) -> Path:
    return _existing(path, "network", ModelError)


def property_file(path: str) -> Path:
    return _existing(path, "property", PropertyError)


def _existing(path: str, kind: str, error: type[InputError]) -> Path:
    """The file itself, or the one with `.gz` behind its name; said before anything heavy is imported."""
    found = Path(path)
    if not found.exists() and Path(path + ".gz").is_file():
        found = Path(path + ".gz")
    if not found.exists():
        raise error(f"the {kind} file '{path}' does not exist")
    if not found.is_file():
        raise error(f"'{path}' is not a file; a {kind} file is needed")
    if not os.access(found, os.R_OK):
        raise error(f"the {kind} file '{path}' cannot be read; check its permissions")
    return found


def writable(path: str | None) -> Path | None:
    """A file to be written later: its folder must be there now, not after an hour's work."""
    if path is None:
        return None
    folder = Path(path).resolve().parent
    if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write '{path}': it is a folder, or its folder does not exist or is read-only")
    return Path(path)
