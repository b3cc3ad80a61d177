"""The record of one run as JSON: what was asked, with which versions, on which machine, and what came out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from verifier import __version__
from verifier.core.extremum import Extremum
from verifier.core.verdict import Verdict, Witness
from verifier.settings import Settings

SCHEMA_VERSION = 1
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "highspy", "gurobipy", "pulp", "z3-solver")


@dataclass(frozen=True)
class Request:
    """What was asked: the two files as found, and the settings. `started` is UTC in ISO form."""

    model: Path
    property: Path
    settings: Settings
    started: str


def build_record(request: Request, verdict: Verdict, stages: Mapping[str, float], elapsed: float) -> dict[str, Any]:
    """Everything needed to repeat the run and to tabulate it. `stages` and `elapsed` in seconds."""
    answer = {
        "verdict": verdict.status.value,
        "reason": verdict.reason,
        "checked": verdict.checked,
        "trusted": verdict.trusted,
        "bound": verdict.bound,
        "proved": verdict.proved,
        "warnings": list(verdict.warnings),
        "witness": None if verdict.witness is None else _witness(verdict.witness),
        "statistics": verdict.statistics,
    }
    return _record(answer, request, stages, elapsed)


def build_extrema_record(
    request: Request, output: str, extrema: Iterable[Extremum], stages: Mapping[str, float], elapsed: float
) -> dict[str, Any]:
    """The same of an optimisation of `output`."""
    answer = {
        "output": output,
        "extrema": {found.name: _extremum(found) for found in extrema},
    }
    return _record(answer, request, stages, elapsed)


def _record(answer: Mapping[str, Any], request: Request, stages: Mapping[str, float], elapsed: float) -> dict[str, Any]:
    record = {
        "schema_version": SCHEMA_VERSION,
        **answer,
        "started": request.started,
        "elapsed": elapsed,
        "stages": dict(stages),
        "peak_memory_bytes": _peak_memory(),
        "settings": request.settings.as_dict(),
        "model": {"path": str(request.model), "sha256": file_digest(request.model)},
        "property": {"path": str(request.property), "sha256": file_digest(request.property)},
        "versions": _versions(),
        "machine": _machine(),
    }
    return {key: to_json(value) for key, value in record.items()}


def to_json(value: Any) -> Any:
    """`value` in JSON's own types: arrays as lists, numbers that are not finite as the text of them."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def write_text(path: Path, text: str) -> None:
    """Write to a temporary file beside `path` and rename it, so that readers never see half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def record_text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes as they lie on disk (compressed, if it is)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extremum(found: Extremum) -> dict[str, Any]:
    return {
        "lower": found.lower,
        "upper": found.upper,
        "gap": found.gap,
        "reached": found.reached,
        "reason": found.reason,
        **_point(found.x, found.y),
        "value": found.value,
        "statistics": found.statistics,
    }


def _witness(witness: Witness) -> dict[str, Any]:
    return {**_point(witness.x, witness.y), "disjunct": witness.disjunct, "rounded": list(witness.rounded)}


def _point(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    return {
        "x": x.ravel(),
        "x_shape": list(x.shape),
        "x_type": str(x.dtype),
        "y": y.ravel(),
        "y_shape": list(y.shape),
        "y_type": str(y.dtype),
    }


def _versions() -> dict[str, str | None]:
    """Read from the packages' metadata, so that nothing is imported for it."""
    found: dict[str, str | None] = {"verifier": __version__, "python": platform.python_version()}
    return found | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _peak_memory() -> int:
    """Largest resident set of this process, in bytes; Linux counts it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _machine() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "gpu": _gpu(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_name())
