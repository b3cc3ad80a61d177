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


def cast_fractions(values: Sequence[Fraction], dtype: type[np.floating]) -> np.ndarray:
    """Read as float64 and cast, as programs do: a neighbour of the value, though not always the nearer one."""
    with np.errstate(over="ignore", under="ignore"):
        return np.array([nearest(value) for value in values], dtype=np.float64).astype(dtype)


def round_fractions(values: Sequence[Fraction], dtype: type[np.floating], direction: int) -> np.ndarray:
    """Nearest numbers of `dtype` not below (`direction` +1) or not above (-1) exact `values`; overflow gives inf."""
    result = cast_fractions(values, dtype)
    for index, (value, rounded) in enumerate(zip(values, result.tolist(), strict=True)):
        if _compare(rounded, value) * direction < 0:
            with np.errstate(over="ignore"):
                result[index] = np.nextafter(result[index], dtype(direction * math.inf))
    return result


def _compare(rounded: float, value: Fraction) -> float:
    """A number with the sign of `rounded - value`."""
    if math.isinf(rounded):
        return rounded
    numerator, denominator = rounded.as_integer_ratio()
    return numerator * value.denominator - value.numerator * denominator
