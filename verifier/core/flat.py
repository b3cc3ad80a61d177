"""Flattening that also works for scalars, whose batched tensors have no dimension to flatten."""

from __future__ import annotations

import math

from torch import Tensor


def flat(value: Tensor, kept: int = 1) -> Tensor:
    """All dimensions after the first `kept` as one (of size 1 where there are none)."""
    return value.reshape(*value.shape[:kept], math.prod(value.shape[kept:]))
