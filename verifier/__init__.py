"""A formal verifier for neural networks. The public names, each imported when it is first used.

import verifier

network = verifier.load("network.onnx")
query = verifier.read_property("property.vnnlib")
verdict = verifier.verify(network, query, timeout=60)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier import errors as errors
    from verifier.core.extremum import Extremum as Extremum
    from verifier.core.verdict import Status as Status
    from verifier.core.verdict import Verdict as Verdict
    from verifier.frontend.network import load as load
    from verifier.frontend.vnnlib import read_property as read_property
    from verifier.optimisation import optimise as optimise
    from verifier.pipeline import bounds as bounds
    from verifier.pipeline import verify as verify
    from verifier.settings import Gap as Gap
    from verifier.settings import Settings as Settings

__version__ = "0.1.0"

# Public name: the module that has it and what it is called there ("" for the module itself).
_HOMES = {
    "Extremum": ("verifier.core.extremum", "Extremum"),
    "Gap": ("verifier.settings", "Gap"),
    "Settings": ("verifier.settings", "Settings"),
    "Status": ("verifier.core.verdict", "Status"),
    "Verdict": ("verifier.core.verdict", "Verdict"),
    "bounds": ("verifier.pipeline", "bounds"),
    "errors": ("verifier.errors", ""),
    "load": ("verifier.frontend.network", "load"),
    "optimise": ("verifier.optimisation", "optimise"),
    "read_property": ("verifier.frontend.vnnlib", "read_property"),
    "verify": ("verifier.pipeline", "verify"),
}

__all__ = [  # noqa: RUF022, in the order in which they are needed
    "load",
    "read_property",
    "verify",
    "bounds",
    "optimise",
    "Verdict",
    "Status",
    "Extremum",
    "Gap",
    "Settings",
    "errors",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'verifier' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute) if attribute else import_module(module)


def __dir__() -> list[str]:
    return sorted(__all__)
