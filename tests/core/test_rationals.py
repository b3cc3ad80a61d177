"""Rounding of exact rationals to floating-point numbers, checked against its definition."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verifier.core.rationals import nearest, round_fractions

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
VALUES = st.one_of(
    st.fractions(),
    st.fractions(min_value=-1, max_value=1, max_denominator=10**30),
    st.floats(allow_nan=False, allow_infinity=False).map(Fraction),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(Fraction),
    st.builds(lambda m, e: Fraction(m) * Fraction(10) ** e, st.integers(-(10**20), 10**20), st.integers(-420, 420)),
    st.builds(
        lambda f, d: Fraction(f) + Fraction(d, 10**40),
        st.floats(width=32, min_value=-4, max_value=4),
        st.integers(-2, 2),
    ),
    # Near the middle of two float32 numbers, where rounding first to float64 misleads.
    st.builds(
        lambda m, d: Fraction(2 * m + 1, 2**25) + Fraction(d, 10**30), st.integers(2**23, 2**24), st.integers(-2, 2)
    ),
)


@DTYPES
@pytest.mark.parametrize("direction", [-1, 1])
@given(value=VALUES)
@example(value=Fraction(10) ** 400)
@example(value=-(Fraction(10) ** 400))
@example(value=Fraction(1, 10**400))
@example(value=Fraction(-1, 10**400))
@example(value=Fraction(float(np.finfo(np.float32).max)) + Fraction(1, 10**9))
@example(value=-Fraction(float(np.finfo(np.float32).max)) - Fraction(1, 10**9))
@example(value=Fraction(2**1024 - 2**971))
@example(value=Fraction(2**1024 - 2**971 + 1))
@example(value=Fraction(2**1024))
@example(value=Fraction(0))
@example(value=Fraction(1, 2**150))
@example(value=Fraction(-3, 2**1075))
def test_the_nearest_number_on_the_right_side(dtype: type[np.floating], direction: int, value: Fraction) -> None:
    (rounded,) = round_fractions([value], dtype, direction)
    assert rounded.dtype == dtype
    with np.errstate(over="ignore"):
        further = float(np.nextafter(rounded, dtype(-direction * math.inf)))
    if direction > 0:
        assert float(rounded) >= value > further
    else:
        assert float(rounded) <= value < further


@DTYPES
@given(value=st.floats(width=16, allow_nan=False, allow_infinity=False))
def test_numbers_of_the_type_stay(dtype: type[np.floating], value: float) -> None:
    for direction in (-1, 1):
        assert round_fractions([Fraction(value)], dtype, direction)[0] == value


def test_tiny_values_do_not_become_zero() -> None:
    tiny = Fraction(1, 10**400)
    assert round_fractions([tiny, -tiny], np.float32, 1).tolist() == [float(np.float32(1e-45)), 0.0]
    assert round_fractions([tiny, -tiny], np.float64, -1).tolist() == [0.0, -5e-324]


@given(VALUES)
def test_nearest_is_nearest(value: Fraction) -> None:
    found = nearest(value)
    if math.isinf(found):
        assert abs(value) >= 2**1024 - 2**970
    else:
        error = abs(Fraction(found) - value)
        for other in (math.nextafter(found, -math.inf), math.nextafter(found, math.inf)):
            assert math.isinf(other) or error <= abs(Fraction(other) - value)
