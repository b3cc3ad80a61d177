"""Skips what this machine cannot run; makes OpenMP threads sleep early, since other processes share the cores."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
