"""Boxes against floating-point numbers, and the exact test of a witness."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.core.query import Box, Disjunct, Query, Row

F = Fraction
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ENDS = st.one_of(
    st.fractions(min_value=-2, max_value=2, max_denominator=10**20),
    st.floats(width=32, min_value=-2, max_value=2).map(Fraction),
    st.builds(lambda f, d: F(f) + F(d, 10**12), st.sampled_from([0, 0.1, 0.5, 1]), st.integers(-3, 3)),
)


def box_of(*ranges: tuple[object, object], strict: frozenset[tuple[int, str]] = frozenset()) -> Box:
    return Box(tuple(F(low) for low, _ in ranges), tuple(F(high) for _, high in ranges), strict)  # type: ignore[arg-type]


def query_of(*disjuncts: tuple[Box, list[Row]]) -> Query:
    return Query(len(disjuncts[0][0].lower), 2, tuple(Disjunct(box, tuple(rows)) for box, rows in disjuncts))


UNIT = box_of((0, 1), (0, 1))
BELOW_HALF = Row((), ((0, F(1)),), F(1, 2))


@DTYPES
@given(ends=st.tuples(ENDS, ENDS).map(sorted))
def test_outward_ends_hold_the_box_and_all_its_roundings(dtype: type[np.floating], ends: list[Fraction]) -> None:
    (lower,), (upper,) = (end.tolist() for end in box_of((ends[0], ends[1])).outward(dtype))
    assert lower <= ends[0] <= ends[1] <= upper
    for point in (ends[0], ends[1], (ends[0] + ends[1]) / 2):
        assert lower <= float(dtype(float(point))) <= upper


@DTYPES
@given(ends=st.tuples(ENDS, ENDS).map(sorted), strict=st.sets(st.sampled_from(["lower", "upper"])))
def test_inward_ends_are_the_extreme_numbers_inside(
    dtype: type[np.floating], ends: list[Fraction], strict: set[str]
) -> None:
    box = box_of((ends[0], ends[1]), strict=frozenset((0, side) for side in strict))
    lower, upper, none = box.inward(dtype)

    def inside(number: np.floating) -> bool:
        value = float(number)
        above = value > ends[0] or (value == ends[0] and "lower" not in strict)
        return above and (value < ends[1] or (value == ends[1] and "upper" not in strict))

    if none[0]:
        start = np.nextafter(dtype(float(ends[0])), dtype(-np.inf))
        for _ in range(3):
            assert not inside(start)
            start = np.nextafter(start, dtype(np.inf))
        assert (lower[0], upper[0]) == (dtype(float(ends[0])), dtype(float(ends[1])))
    else:
        assert inside(lower[0]) and inside(upper[0])
        assert not inside(np.nextafter(lower[0], dtype(-np.inf)))
        assert not inside(np.nextafter(upper[0], dtype(np.inf)))


@DTYPES
def test_ends_beyond_the_type_do_not_crash(dtype: type[np.floating]) -> None:
    huge = 10**400
    box = box_of((-huge, huge), (huge, huge), (0, huge), strict=frozenset({(0, "lower"), (2, "upper"), (1, "upper")}))
    lower, upper, none = box.inward(dtype)
    largest = np.finfo(dtype).max
    assert (lower[0], upper[0], upper[2]) == (-largest, largest, largest)
    assert none.tolist() == [False, True, False]
    assert box.outward(dtype)[0].tolist() == [-np.inf, largest, 0]
    assert box.contains(np.array([0, largest, 0], dtype=dtype), dtype) is None


def test_empty_boxes() -> None:
    assert box_of((0, 1), (1, 0)).is_empty
    assert not box_of((1, 1)).is_empty
    assert box_of((1, 1), strict=frozenset({(0, "upper")})).is_empty
    assert not box_of((0, 1), strict=frozenset({(0, "upper"), (0, "lower")})).is_empty


def test_a_point_between_two_float32_numbers_is_rounded() -> None:
    box = box_of(("0.1", "0.1"), (0, 1))
    x = np.array([0.1, 0.5], dtype=np.float32)
    assert box.contains(x, np.float32) == (0,)
    assert box.contains(np.nextafter(x, np.float32(-1)), np.float32) is None
    assert box.contains(np.nextafter(x, np.float32(1)), np.float32) is None
    assert box.contains(np.array([0.1, 0.5]), np.float64) == (0,)


def test_a_range_between_two_numbers_may_be_read_as_either() -> None:
    below, above = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    gap = F(float(above)) - 1
    box = box_of((1 + gap / 4, 1 + 3 * gap / 4))
    assert [end.tolist() for end in box.inward(np.float32)] == [[below], [above], [True]]
    assert all(box.contains(np.array([number]), np.float32) == (0,) for number in (below, above))
    assert box_of((1 + gap / 4, 1 + gap / 3)).contains(np.array([above]), np.float32) is None


@pytest.mark.parametrize("written", ["0.1", "-0.3", "1e-42", "123456.789"])
def test_a_rounded_point_violates_and_says_so(written: str) -> None:
    query = query_of((box_of((written, written), (0, 1)), []))
    x = np.array([written, "1"]).astype(np.float32)
    assert query.violated(x, np.zeros(2, np.float32), np.float32) == (0, (0,))
    x[0] = np.nextafter(x[0], np.float32(np.inf))
    assert query.violated(x, np.zeros(2, np.float32), np.float32) is None


def test_a_narrow_box_is_not_left_by_rounding() -> None:
    """float32(0.1) exceeds 0.1, and a smaller float32 number lies inside: the larger one is no witness."""
    box = box_of((0, "0.1"))
    above = np.array([0.1], dtype=np.float32)
    assert box.contains(above, np.float32) is None
    assert box.contains(np.nextafter(above, np.float32(0)), np.float32) == ()


def test_strict_ends_exclude_witnesses() -> None:
    box = box_of((0, 1), strict=frozenset({(0, "lower")}))
    assert box.contains(np.array([0.0]), np.float64) is None
    assert box.contains(np.array([-0.0]), np.float64) is None
    assert box.contains(np.array([5e-324]), np.float64) == ()
    assert box.contains(np.array([1.0]), np.float64) == ()
    assert box_of((0, 0)).contains(np.array([-0.0], dtype=np.float32), np.float32) == ()


def test_the_first_disjunct_that_holds_is_returned() -> None:
    left, right = box_of((0, "0.5"), (0, 1)), box_of(("0.5", 1), (0, 1))
    query = query_of((left, [BELOW_HALF]), (right, [BELOW_HALF]), (right, []))
    good, bad = np.array([0.5, 7]), np.array([0.75, 7])
    assert query.violated(np.array([0.25, 0]), good, np.float64) == (0, ())
    assert query.violated(np.array([0.5, 0]), good, np.float64) == (0, ())
    assert query.violated(np.array([0.75, 0]), good, np.float64) == (1, ())
    assert query.violated(np.array([0.75, 0]), bad, np.float64) == (2, ())
    assert query.violated(np.array([0.25, 0]), bad, np.float64) is None
    assert query.violated(np.array([0.25, 2]), good, np.float64) is None


def test_every_row_of_a_disjunct_must_hold() -> None:
    rows = [BELOW_HALF, Row((), ((1, F(1)),), F(1, 2)), Row(((0, F(1)),), ((0, F(1)),), F(1))]
    query = query_of((UNIT, rows))
    assert query.violated(np.array([0.5, 0]), np.array([0.5, 0.5]), np.float64) == (0, ())
    for x, y in [((0.5, 0), (0.6, 0.5)), ((0.5, 0), (0.5, 0.6)), ((0.6, 0), (0.5, 0.5))]:
        assert query.violated(np.array(x), np.array(y), np.float64) is None


def test_rows_are_exact_where_floating_point_is_not() -> None:
    """0.1 + 0.2 <= 0.3 as written numbers, but the doubles 0.1 and 0.2 sum to more than 3/10."""
    query = query_of((UNIT, [Row((), ((0, F(1)), (1, F(1))), F(3, 10))]))
    assert query.violated(np.zeros(2), np.array([0.1, 0.2]), np.float64) is None
    exact = query_of((UNIT, [Row((), ((0, F(1)), (1, F(1))), F(0.1) + F(0.2))]))
    assert exact.violated(np.zeros(2), np.array([0.1, 0.2]), np.float64) == (0, ())
    strict = query_of((UNIT, [Row((), ((0, F(1)), (1, F(1))), F(0.1) + F(0.2), strict=True)]))
    assert strict.violated(np.zeros(2), np.array([0.1, 0.2]), np.float64) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [[BELOW_HALF], [Row((), ((0, F(-1)),), F(1))], []])
def test_numbers_that_are_not_finite_violate_nothing(bad: float, rows: list[Row]) -> None:
    query = query_of((UNIT, rows))
    assert query.violated(np.zeros(2), np.array([0.0, bad]), np.float64) is None
    assert query.violated(np.zeros(2), np.array([bad, 0.0]), np.float64) is None
    assert query.violated(np.array([0.0, bad]), np.zeros(2), np.float64) is None
    assert not BELOW_HALF.holds(np.zeros(2), np.array([bad, 0.0]))


def test_wrong_sizes_and_types_are_refused() -> None:
    query = query_of((UNIT, []))
    with pytest.raises(ValueError, match="2 inputs and 2 outputs, not 3 and 2"):
        query.violated(np.zeros(3), np.zeros(2), np.float32)
    with pytest.raises(ValueError, match="float32"):
        query.violated(np.array([0.1, 0.0]), np.zeros(2), np.float32)
    assert query.violated(np.zeros((1, 2), np.float32), np.zeros((2, 1)), np.float32) == (0, ())


def test_no_disjuncts_are_never_violated() -> None:
    assert Query(2, 2, ()).violated(np.zeros(2), np.zeros(2), np.float32) is None


def test_numbers_that_overflow_float64() -> None:
    huge = F(10**400)
    query = query_of(
        (box_of((huge, huge), (0, 1)), []),
        (box_of((-huge, huge), (0, 1)), [Row((), ((0, huge), (1, -huge)), F(0), strict=True)]),
    )
    assert query.violated(np.zeros(2), np.array([1.0, 2.0]), np.float64) == (1, ())
    assert query.violated(np.zeros(2), np.array([2.0, 2.0]), np.float64) is None


SMALL = st.sampled_from([F(k, 4) for k in range(-4, 5)])
TERMS = st.dictionaries(st.integers(0, 1), SMALL.filter(bool)).map(lambda terms: tuple(sorted(terms.items())))
ROWS = st.builds(Row, st.just(()) | SMALL.filter(bool).map(lambda c: ((0, c),)), TERMS, SMALL, st.booleans())
BOXES = st.tuples(SMALL, SMALL).map(lambda ends: Box((min(ends),), (max(ends),)))


@given(
    st.lists(st.tuples(BOXES, st.lists(ROWS, max_size=3)), min_size=1, max_size=6),
    st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1, max_size=5),
)
def test_the_screen_never_loses_a_disjunct(
    parts: list[tuple[Box, list[Row]]], points: list[tuple[Fraction, ...]]
) -> None:
    """On a grid where rows hold with equality all the time: the answer is that of the definition."""
    query = query_of(*parts)
    for x, *y in points:
        expected = None
        for index, (box, rows) in enumerate(parts):
            sums = [sum(c * x for _, c in row.inputs) + sum(c * y[j] for j, c in row.outputs) for row in rows]
            fine = all(s < row.bound or (s == row.bound and not row.strict) for s, row in zip(sums, rows, strict=True))
            if expected is None and fine and box.lower[0] <= x <= box.upper[0]:
                expected = index, ()
        assert query.violated(np.array([float(x)]), np.array([float(v) for v in y]), np.float32) == expected
