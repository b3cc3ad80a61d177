"""Exact rationals, as properties state them, against floating-point numbers, as networks read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def nearest(value: Fraction) -> float:
    """The nearest float64; infinite on overflow."""
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def nearest_of(values: Sequence[Fraction]) -> np.ndarray:
    """The nearest float64 numbers `[n]`."""
    return np.array([nearest(value) for value in values], dtype=np.float64)


def cast_fractions(values: Sequence[Fraction], dtype: type[np.floating]) -> np.ndarray:
    """Read as float64 and cast, as programs do: a neighbour of the value, though not always the nearer one."""
    with np.errstate(over="ignore", under="ignore"):
        return nearest_of(values).astype(dtype)


def round_fractions(values: Sequence[Fraction], dtype: type[np.floating], direction: int) -> np.ndarray:
    """Nearest numbers of `dtype` not below (`direction` +1) or not above (-1) exact `values`; overflow gives inf.

    Numbers of `dtype` are float64 numbers, and rounding keeps the order: those that differ from the nearest float64
    are on the same side of it as of the value. Only the others are compared exactly."""
    wide = nearest_of(values)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = wide.astype(dtype)
        side = np.sign(result.astype(np.float64) - wide)
        for index in np.flatnonzero(result == wide).tolist():
            side[index] = _side(float(wide[index]), values[index])
        wrong = side * direction < 0
        result[wrong] = np.nextafter(result[wrong], dtype(direction * math.inf))
    return result


def _side(rounded: float, value: Fraction) -> float:
    """The sign of `rounded - value`: -1, 0 or 1."""
    if math.isinf(rounded):
        return math.copysign(1.0, rounded)
    numerator, denominator = rounded.as_integer_ratio()
    ours, theirs = numerator * value.denominator, value.numerator * denominator
    return float(ours > theirs) - float(ours < theirs)
