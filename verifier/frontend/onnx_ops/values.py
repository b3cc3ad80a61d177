"""What an ONNX tensor is while a graph is being built: a known array or a node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that does not depend on the input. Floats are kept in float64, whatever the declared `dtype`."""

    array: np.ndarray
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


@dataclass(frozen=True, eq=False)
class Variable:
    """The value of node `position`; `dtype` is what ONNX declares (integers and booleans travel as floats)."""

    position: int
    shape: tuple[int, ...]
    dtype: np.dtype


Value = Known | Variable


def known(array: np.ndarray, dtype: np.dtype | None = None) -> Known:
    """Wraps a numpy result: floats widened to float64, declared as `dtype` or as they come."""
    array = np.asarray(array)
    declared = array.dtype if dtype is None else np.dtype(dtype)
    return Known(array.astype(np.float64 if declared.kind == "f" else declared), declared)
