"""A cheap test of all disjuncts of a query at one point, so that the exact one runs on few.

Computed in float64 with a slack far above its rounding errors: it may keep a disjunct that does not hold, and is
never the reason to accept one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from verifier.core.rationals import nearest, nearest_of

if TYPE_CHECKING:
    from verifier.core.query import Disjunct, Row

RELATIVE_SLACK = 1e-9
ABSOLUTE_SLACK = 1e-290


class Screen:
    """The disjuncts' boxes as arrays `[box, input]`, and their rows as one sparse matrix over `(x, y)`."""

    def __init__(self, disjuncts: Sequence[Disjunct], input_size: int) -> None:
        self.count = len(disjuncts)
        boxes = list({id(disjunct.box): disjunct.box for disjunct in disjuncts}.values())
        places = {id(box): place for place, box in enumerate(boxes)}
        self.box = np.array([places[id(disjunct.box)] for disjunct in disjuncts], dtype=np.intp)
        shape = len(boxes), input_size
        self.lower = np.array([nearest_of(box.lower) for box in boxes]).reshape(shape)
        self.upper = np.array([nearest_of(box.upper) for box in boxes]).reshape(shape)
        rows: list[Row] = [row for disjunct in disjuncts for row in disjunct.rows]
        self.owner = np.repeat(np.arange(self.count), [len(disjunct.rows) for disjunct in disjuncts])
        self.bound = nearest_of([row.bound for row in rows])
        terms = [
            (place, column, nearest(coefficient))
            for place, row in enumerate(rows)
            for column, coefficient in (*row.inputs, *((input_size + index, c) for index, c in row.outputs))
        ]
        self.row = np.array([term[0] for term in terms], dtype=np.intp)
        self.column = np.array([term[1] for term in terms], dtype=np.intp)
        self.coefficient = np.array([term[2] for term in terms], dtype=np.float64)

    def candidates(self, x: np.ndarray, y: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        """Indices, ascending, of the disjuncts that may hold at flat and finite `x`, `y`."""
        with np.errstate(all="ignore"):
            return np.flatnonzero(self._inside(x.astype(np.float64), dtype)[self.box] & self._rows_hold(x, y))

    def _inside(self, x: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).smallest_subnormal)
        low = self.lower - (eps * np.abs(self.lower) + tiny)
        high = self.upper + (eps * np.abs(self.upper) + tiny)
        return np.all((low <= x) & (x <= high), axis=1)

    def _rows_hold(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """An overflow in float64 gives NaN, which keeps the row."""
        parts = self.coefficient * np.concatenate([x, y]).astype(np.float64)[self.column]
        total = np.bincount(self.row, weights=parts, minlength=len(self.bound))
        size = np.bincount(self.row, weights=np.abs(parts), minlength=len(self.bound)) + np.abs(self.bound)
        broken = total - self.bound > RELATIVE_SLACK * size + ABSOLUTE_SLACK
        return np.equal(np.bincount(self.owner[broken], minlength=self.count), 0)
