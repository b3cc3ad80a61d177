from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fakes import modules
from verifier.core.verdict import Verdict


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A network and a property file; the stand-ins do not read them."""
    model, question = tmp_path / "n.onnx", tmp_path / "p.vnnlib"
    model.write_bytes(b"network")
    question.write_bytes(b"property")
    return str(model), str(question)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Verdict | BaseException], list[Any]]:
    """`pretend(outcome)` makes verification end like that and returns the list of settings it was called with."""

    def install(outcome: Verdict | BaseException) -> list[Any]:
        calls: list[Any] = []
        for name, module in modules(outcome, calls).items():
            monkeypatch.setitem(sys.modules, name, module)
        return calls

    return install
