"""The question: is there a violation?

A `Query` is a disjunction of conjunctions. Each disjunct has an input box and linear rows over inputs and outputs,
and describes violations: a point of the box where every row holds. All numbers are exact rationals, as written.
A query knows no network; `input_size` and `output_size` count the flattened (row-major) variables it talks about.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from verifier.core.rationals import cast_fractions, round_fractions
from verifier.core.screen import Screen


@dataclass(frozen=True, eq=False)
class Box:
    """Inputs with `lower[i] <= x_i <= upper[i]`, exactly. Many disjuncts share one object.

    `strict`: positions where an end is excluded, as `(index, "lower" | "upper")`; only witnesses care, proofs use the
    closure.
    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    strict: frozenset[tuple[int, str]] = frozenset()

    @cached_property
    def is_empty(self) -> bool:
        return any(
            low > high or (low == high and ((index, "lower") in self.strict or (index, "upper") in self.strict))
            for index, (low, high) in enumerate(zip(self.lower, self.upper, strict=True))
        )

    def outward(self, dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray]:
        """Floating-point ends `[input_size]` that contain the box and the rounding to nearest of each of its points."""
        return round_fractions(self.lower, dtype, -1), round_fractions(self.upper, dtype, +1)

    def inward(self, dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers of `dtype` inside the box: `lower`, `upper` `[input_size]`, and a mask of inputs that have none.

        For those the ends are the roundings to nearest of the written ends: what a network of this type reads there.
        """
        if dtype not in self._inward_of:
            self._inward_of[dtype] = self._rounded_inward(dtype)
        return self._inward_of[dtype]

    def _rounded_inward(self, dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lower, upper = round_fractions(self.lower, dtype, +1), round_fractions(self.upper, dtype, -1)
        for index, side in self.strict:
            if side == "lower" and self.lower[index] == float(lower[index]):
                lower[index] = np.nextafter(lower[index], dtype(np.inf))
            if side == "upper" and self.upper[index] == float(upper[index]):
                upper[index] = np.nextafter(upper[index], dtype(-np.inf))
        none = lower > upper
        places = np.flatnonzero(none).tolist()
        lower[none] = cast_fractions([self.lower[place] for place in places], dtype)
        upper[none] = cast_fractions([self.upper[place] for place in places], dtype)
        return lower, upper, none

    def contains(self, x: np.ndarray, dtype: type[np.floating]) -> tuple[int, ...] | None:
        """Whether the numbers `x` `[input_size]` of `dtype` lie in the box, exactly; None if not.

        An input whose range holds no number of `dtype` may be the rounding of its range; those are returned.
        """
        lower, upper, none = self.inward(dtype)
        if not ((lower <= x) & (x <= upper)).all():
            return None
        return tuple(int(index) for index in np.flatnonzero(none))

    @cached_property
    def _inward_of(self) -> dict[type[np.floating], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {}


@dataclass(frozen=True, slots=True)
class Row:
    """`sum_i c_i x_i + sum_j c_j y_j  <=  bound`, or `<` where `strict`. Terms are `(index, coefficient)`, sorted,
    without zeros."""

    inputs: tuple[tuple[int, Fraction], ...]
    outputs: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool = False

    def holds(self, x: np.ndarray, y: np.ndarray) -> bool:
        """Exact test at flat `x`, `y` (each floating-point number taken as the rational it is). Not finite: False."""
        values = [(c, float(x[i])) for i, c in self.inputs] + [(c, float(y[j])) for j, c in self.outputs]
        if not all(np.isfinite(value) for _, value in values):
            return False
        total = sum((c * Fraction(value) for c, value in values), Fraction(0))
        return total < self.bound or (total == self.bound and not self.strict)


@dataclass(frozen=True, slots=True, eq=False)
class Disjunct:
    box: Box
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Query:
    """A disjunction; no disjuncts means that the constraints contradict each other. `warnings` for the user."""

    input_size: int
    output_size: int
    disjuncts: tuple[Disjunct, ...]
    warnings: tuple[str, ...] = ()

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The distinct input boxes, in the order in which disjuncts first use them."""
        return tuple({id(disjunct.box): disjunct.box for disjunct in self.disjuncts}.values())

    def violated(self, x: np.ndarray, y: np.ndarray, dtype: type[np.floating]) -> tuple[int, tuple[int, ...]] | None:
        """The first disjunct that the point satisfies, exactly, and the inputs that were rounded (see `Box.contains`).

        `x`: input of a network of `dtype`, `y`: its output, both of any shape. Where any number is not finite: None.
        """
        x, y = np.ravel(x), np.ravel(y)
        if (x.size, y.size) != (self.input_size, self.output_size):
            raise ValueError(
                f"the query has {self.input_size} inputs and {self.output_size} outputs, not {x.size} and {y.size}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        with np.errstate(over="ignore"):
            if (x.astype(dtype) != x).any():
                raise ValueError(f"the input is not made of numbers of type {np.dtype(dtype).name}")
        for index in self._screen.candidates(x, y, dtype):
            disjunct = self.disjuncts[index]
            rounded = disjunct.box.contains(x, dtype)
            if rounded is not None and all(row.holds(x, y) for row in disjunct.rows):
                return int(index), rounded
        return None

    @cached_property
    def _screen(self) -> Screen:
        return Screen(self.disjuncts, self.input_size)
