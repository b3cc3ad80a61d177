"""From assertions to a query: boxes, rows and disjuncts, and every way in which other readers got them wrong."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.core.query import Disjunct, Query
from verifier.errors import PropertyError
from verifier.frontend.vnnlib import parse_property

HEADER = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (>= X_1 0)) (assert (<= X_1 1))\n"


def read(body: str) -> Query:
    return parse_property(HEADER + body, "file")


def inside(disjunct: Disjunct, x: tuple[Fraction, ...], y: tuple[Fraction, ...]) -> bool:
    """Membership by the definitions of `Box` and `Row`, in exact arithmetic."""
    box = disjunct.box
    for index, value in enumerate(x):
        if value < box.lower[index] or value > box.upper[index]:
            return False
        if (value == box.lower[index] and (index, "lower") in box.strict) or (
            value == box.upper[index] and (index, "upper") in box.strict
        ):
            return False
    for row in disjunct.rows:
        total = sum(c * x[i] for i, c in row.inputs) + sum(c * y[j] for j, c in row.outputs)
        if total > row.bound or (row.strict and total == row.bound):
            return False
    return True


def ranges(query: Query) -> list[tuple[Any, ...]]:
    return [(*d.box.lower, *d.box.upper) for d in query.disjuncts]


def bounds_of_rows(query: Query) -> list[list[Any]]:
    return [[row.bound for row in d.rows] for d in query.disjuncts]


def test_two_ors_are_conjoined_not_united() -> None:
    query = read(BOX + "(assert (or (<= Y_0 1) (<= Y_0 2))) (assert (or (<= Y_1 3) (<= Y_1 4)))")
    assert bounds_of_rows(query) == [[1, 3], [1, 4], [2, 3], [2, 4]]


def test_an_assert_after_an_or_holds_in_every_disjunct() -> None:
    query = read("(assert (or (<= Y_0 1) (<= Y_0 2) (<= Y_0 3)))" + BOX + "(assert (<= Y_1 9)) (assert (<= X_0 0.5))")
    assert [sorted(bounds) for bounds in bounds_of_rows(query)] == [[1, 9], [2, 9], [3, 9]]
    assert ranges(query) == [(0, 0, Fraction(1, 2), 1)] * 3


def test_input_bounds_do_not_bleed_into_other_disjuncts() -> None:
    query = read(BOX + "(assert (or (and (<= X_0 0.25) (<= Y_0 1)) (<= Y_0 2) (and (>= X_1 0.5) (<= Y_0 3))))")
    assert ranges(query) == [(0, 0, Fraction(1, 4), 1), (0, 0, 1, 1), (0, Fraction(1, 2), 1, 1)]
    assert bounds_of_rows(query) == [[1], [2], [3]]


def test_an_or_of_input_boxes_alone() -> None:
    body = "(assert (or {} {}))(assert (>= Y_0 5))".format(
        "(and (>= X_0 0) (<= X_0 1) (>= X_1 2) (<= X_1 3))", "(and (>= X_0 4) (<= X_0 5) (>= X_1 6) (<= X_1 7))"
    )
    query = read(body)
    assert ranges(query) == [(0, 2, 1, 3), (4, 6, 5, 7)]
    assert bounds_of_rows(query) == [[-5], [-5]]


def test_and_over_or_inside_of_or() -> None:
    query = read(BOX + "(assert (or (and (or (<= Y_0 1) (<= Y_0 2)) (<= Y_1 3)) (<= Y_0 4)))")
    assert [sorted(bounds) for bounds in bounds_of_rows(query)] == [[1, 3], [2, 3], [4]]


def test_a_sum_of_inputs_is_a_row_and_leaves_the_box_alone() -> None:
    query = read(BOX + "(assert (<= (+ X_0 X_1) 1.5))")
    assert ranges(query) == [(0, 0, 1, 1)]
    assert query.disjuncts[0].rows[0].inputs == ((0, 1), (1, 1))
    assert query.disjuncts[0].rows[0].bound == Fraction(3, 2)


@pytest.mark.parametrize(
    ("atom", "lower", "upper", "strict"),
    [
        ("(<= X_0 0.25)", 0, Fraction(1, 4), set()),
        ("(< X_0 0.25)", 0, Fraction(1, 4), {(0, "upper")}),
        ("(> X_0 0.25)", Fraction(1, 4), 1, {(0, "lower")}),
        ("(> 0.25 X_0)", 0, Fraction(1, 4), {(0, "upper")}),
        ("(not (<= X_0 0.25))", Fraction(1, 4), 1, {(0, "lower")}),
        ("(= X_0 0.25)", Fraction(1, 4), Fraction(1, 4), set()),
        ("(<= (* 3 X_0) 1)", 0, Fraction(1, 3), set()),
        ("(<= (* -3 X_0) -1)", Fraction(1, 3), 1, set()),
        ("(< (* -3 X_0) -1)", Fraction(1, 3), 1, {(0, "lower")}),
        ("(<= (- X_0) -0.25)", Fraction(1, 4), 1, set()),
        ("(<= -X_0 -0.25)", Fraction(1, 4), 1, set()),
        ("(<= (+ X_0 1) (- 2 X_0))", 0, Fraction(1, 2), set()),
        ("(<= (+ X_0 0.5) 1)", 0, Fraction(1, 2), set()),
        ("(<= X_0 7)", 0, 1, set()),
        ("(< X_0 7)", 0, 1, set()),
        ("(< X_0 1)", 0, 1, {(0, "upper")}),
        ("(and (< X_0 0.5) (<= X_0 0.25))", 0, Fraction(1, 4), set()),
        ("(and (< X_0 0.5) (<= X_0 0.5))", 0, Fraction(1, 2), {(0, "upper")}),
    ],
)
@pytest.mark.parametrize(
    "form", ["(assert {})", "(assert (or {} {}))", "(assert (or (and (<= Y_0 1) {}) (and {} (> Y_0 1))))"]
)
def test_a_bound_on_one_input(form: str, atom: str, lower: Fraction, upper: Fraction, strict: set[Any]) -> None:
    query = read(BOX + form.format(atom, atom))
    for disjunct in query.disjuncts:
        assert (disjunct.box.lower, disjunct.box.upper) == ((lower, 0), (upper, 1))
        assert disjunct.box.strict == strict
        assert all(not row.inputs for row in disjunct.rows)
    assert len({id(disjunct.box) for disjunct in query.disjuncts}) == 1


def test_a_disjunct_may_replace_a_strict_common_end_by_a_tighter_one() -> None:
    query = read(BOX + "(assert (< X_0 1)) (assert (or (<= X_0 0.5) (<= Y_0 1)))")
    assert [d.box.strict for d in query.disjuncts] == [frozenset(), frozenset({(0, "upper")})]


def test_an_equality_of_outputs_is_two_rows_and_its_negation_two_disjuncts() -> None:
    equal, unequal = read(BOX + "(assert (= Y_0 Y_1))"), read(BOX + "(assert (not (= Y_0 Y_1)))")
    assert [row.outputs for row in equal.disjuncts[0].rows] == [((0, 1), (1, -1)), ((0, -1), (1, 1))]
    assert [[row.strict for row in d.rows] for d in unequal.disjuncts] == [[True], [True]]


def test_ties_violate_unless_strict() -> None:
    x, tie = np.zeros(2), np.ones(2)
    assert read(BOX + "(assert (>= Y_1 Y_0))").violated(x, tie, np.float64) == (0, ())
    assert read(BOX + "(assert (> Y_1 Y_0))").violated(x, tie, np.float64) is None


def test_equal_boxes_are_one_object() -> None:
    half = "(<= X_0 0.5)"
    query = read(
        BOX
        + f"(assert (or (<= Y_0 1) (and (<= X_0 3) (<= Y_0 2)) (and {half} (>= X_1 0.5))"
        + " (and (>= X_1 .50) (<= X_0 5e-1)) (and (< X_0 0.5) (>= X_1 0.5))))"
    )
    boxes = [d.box for d in query.disjuncts]
    assert boxes[0] is boxes[1]
    assert boxes[2] is boxes[3]
    assert len({id(box) for box in boxes}) == 3


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("(assert (and (>= X_0 0) (>= X_1 0) (<= X_1 1)))", "X_0 (upper)"),
        ("(assert (and (>= X_0 0) (<= X_0 1)))", "X_1 (lower), X_1 (upper)"),
        ("(assert (<= Y_0 1))", "X_0 (lower), X_0 (upper), X_1 (lower), X_1 (upper)"),
        ("(assert (and (<= (+ X_0 X_1) 1) (>= X_0 0) (>= X_1 0)))", "X_0 (upper), X_1 (upper)"),
        (
            "(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (or (and (<= X_1 1) (>= X_1 0)) (<= X_1 1)))",
            "missing in disjunct 2 of 2: X_1 (lower)",
        ),
    ],
)
def test_a_missing_bound_is_refused_never_invented(body: str, named: str) -> None:
    with pytest.raises(PropertyError) as caught:
        read(body)
    assert named in str(caught.value)


def test_many_missing_bounds_are_counted() -> None:
    text = "".join(f"(declare-const X_{index} Real)" for index in range(100))
    with pytest.raises(PropertyError, match=r"X_0 \(lower\).* and 195 more"):
        parse_property(text, "file")


@pytest.mark.parametrize(
    "part",
    ["(<= X_0 -1)", "(>= X_0 2)", "(and (<= X_1 0.2) (>= X_1 0.3))", "(< X_0 0)", "(<= 1 0)", "(< (- Y_0 Y_0) 0)"],
)
def test_contradictory_disjuncts_are_dropped_with_a_warning(part: str) -> None:
    query = read(BOX + f"(assert (or (<= Y_0 1) {part} (<= Y_0 2)))")
    assert bounds_of_rows(query) == [[1], [2]]
    (warning,) = query.warnings
    assert warning.startswith("disjunct 2 is contradictory: ")


def test_bounds_may_be_missing_where_there_is_a_contradiction() -> None:
    query = read("(assert (or (and (<= X_0 0) (>= X_0 1)) (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1))))")
    assert ranges(query) == [(0, 0, 1, 1)]


@pytest.mark.parametrize(
    "body", ["(assert (<= X_0 -1))", "(assert (> 0 0))", "(assert (or (< X_0 0) (> X_0 1)))", "(assert (< X_0 0))"]
)
def test_nothing_is_left_where_everything_contradicts(body: str) -> None:
    query = read(BOX + body)
    assert query.disjuncts == ()
    assert "nothing to verify" in query.warnings[-1]
    assert (query.input_size, query.output_size) == (2, 2)


def test_many_warnings_are_summed_up() -> None:
    query = read(BOX + "(assert (or " + "(<= X_0 -1) " * 1000 + "(<= Y_0 1)))")
    assert len(query.disjuncts) == 1
    assert len(query.warnings) == 6
    assert query.warnings[-1] == "995 more disjuncts are contradictory"


@pytest.mark.parametrize(
    "true", ["(<= 0 0)", "(>= 2 1)", "(= 1 1.0)", "(not (< 1 1))", "(<= (- Y_0 Y_0) 0)", "(= Y_1 Y_1)"]
)
def test_true_constants_vanish(true: str) -> None:
    query = read(BOX + f"(assert {true}) (assert (or (and {true} (<= Y_0 1)) {true}))")
    assert bounds_of_rows(query) == [[1], []]
    assert query.warnings == ()


def test_a_property_of_inputs_only_makes_every_point_a_violation() -> None:
    (disjunct,) = read(BOX).disjuncts
    assert disjunct.rows == ()


def test_point_boxes_and_denormal_and_huge_numbers() -> None:
    query = read("(assert (and (= X_0 -0.0) (>= X_1 1e-400) (<= X_1 1e400) (<= Y_0 4.9e-324)))")
    (disjunct,) = query.disjuncts
    assert disjunct.box.lower == (0, Fraction(1, 10**400))
    assert disjunct.box.upper == (0, 10**400)
    assert disjunct.rows[0].bound == Fraction("4.9e-324")


def test_an_explosion_is_refused_before_it_happens() -> None:
    with pytest.raises(PropertyError, match="more than 2,000,000 disjuncts"):
        read(BOX + "(assert (or (<= Y_0 1) (<= Y_1 1)))" * 1000)
    with pytest.raises(PropertyError, match="more than 2,000,000 disjuncts"):
        read(BOX + "(assert (or (<= Y_0 9) (and" + " (or (<= Y_0 1) (<= Y_1 1))" * 1000 + ")))")


COEFFICIENTS = st.sampled_from(["-2", "-1", "-0.5", "0", "0.5", "1", "3"])
VARIABLES = ["X_0", "X_1", "Y_0", "Y_1"]
TERMS = st.recursive(
    st.sampled_from(VARIABLES) | COEFFICIENTS | st.sampled_from(["-X_1", "-Y_0"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), inner),
        st.tuples(st.sampled_from("+-"), inner, inner),
        st.tuples(st.just("*"), COEFFICIENTS, inner),
    ),
    max_leaves=4,
)
ATOMS = st.tuples(st.sampled_from(["<=", ">=", "<", ">", "="]), TERMS, TERMS) | st.tuples(
    st.sampled_from(["<=", ">=", "<", ">", "="]), st.sampled_from(VARIABLES), COEFFICIENTS
)
FORMULAS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.lists(inner, min_size=1, max_size=3).flatmap(
            lambda parts: st.sampled_from([("and", *parts), ("or", *parts)])
        ),
    ),
    max_leaves=7,
)
GRID = st.sampled_from([Fraction(number, 2) for number in range(-5, 6)])


def render(tree: Any) -> str:
    return tree if isinstance(tree, str) else f"({' '.join(map(render, tree))})"


def evaluate(tree: Any, point: dict[str, Fraction]) -> Any:
    """What the formula says, straight from its text, without any normal form."""
    if isinstance(tree, str):
        if tree in point:
            return point[tree]
        return -point[tree[1:]] if tree[1:] in point else Fraction(tree)
    head, values = tree[0], [evaluate(part, point) for part in tree[1:]]
    if head in ("and", "or", "not"):
        return {"and": all, "or": any, "not": lambda parts: not parts[0]}[head](values)
    if head == "*":
        return values[0] * values[1]
    if head in "+-":
        return (
            (values[0] if head == "+" else -values[0]) if len(values) == 1 else values[0] + int(head + "1") * values[1]
        )
    return {"<=": values[0] <= values[1], ">=": values[0] >= values[1], "<": values[0] < values[1]}.get(
        head, values[0] > values[1] if head == ">" else values[0] == values[1]
    )


@settings(max_examples=1500, deadline=None)
@given(st.lists(FORMULAS, min_size=1, max_size=3), st.lists(st.tuples(GRID, GRID, GRID, GRID), min_size=8, max_size=8))
def test_the_query_says_what_the_formula_says(formulas: list[Any], points: list[tuple[Fraction, ...]]) -> None:
    box = ("and", *((side, name, value) for name in ("X_0", "X_1") for side, value in ((">=", "-2"), ("<=", "2"))))
    query = read("".join(f"(assert {render(formula)})\n" for formula in [*formulas, box]))
    for point in points:
        expected = all(evaluate(formula, dict(zip(VARIABLES, point, strict=True))) for formula in [*formulas, box])
        assert any(inside(disjunct, point[:2], point[2:]) for disjunct in query.disjuncts) == expected
        flat = np.array([float(value) for value in point])
        found = query.violated(flat[:2], flat[2:], np.float64)
        if found is None or not found[1]:
            assert (found is not None) == expected


def test_a_large_file_of_boxes_is_read_right() -> None:
    count = 50_000
    parts = [
        f"(and (>= X_0 {k}e-5) (<= X_0 {k + 1}e-5) ({'<=' if k % 2 else '>='} Y_0 0.{k}) (<= Y_0 {k}))"
        for k in range(count)
    ]
    query = parse_property(
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (or\n" + "\n".join(parts * 2) + "))", "file"
    )
    assert len(query.disjuncts) == 2 * count
    assert len({id(disjunct.box) for disjunct in query.disjuncts}) == count
    for k in (0, 1, 777, count - 1):
        for disjunct in (query.disjuncts[k], query.disjuncts[k + count]):
            assert (disjunct.box.lower, disjunct.box.upper) == ((Fraction(k, 10**5),), (Fraction(k + 1, 10**5),))
            sign = 1 if k % 2 else -1
            assert [(row.outputs, row.bound) for row in disjunct.rows] == [
                (((0, sign),), sign * Fraction(f"0.{k}")),
                (((0, 1),), k),
            ]
    x, y = np.array([1.5 * 2**-9]), np.array([0.0])
    index = int(x[0] * 10**5)
    assert query.violated(x, y, np.float32) == (None if index % 2 == 0 else (index, ()))


def test_many_disjuncts_share_one_large_box() -> None:
    count, classes = 20_000, 43
    lines = [f"(declare-const X_{k} Real)" for k in range(count)] + [
        f"(declare-const Y_{k} Real)" for k in range(classes)
    ]
    lines += [f"(assert (>= X_{k} -0.{k}))\n(assert (<= X_{k} 0.{k}))" for k in range(count)]
    lines += ["(assert (or"] + [f"(and (>= Y_{k} Y_0))" for k in range(1, classes)] + ["))"]
    query = parse_property("\r\n".join(lines), "file")
    assert len(query.disjuncts) == classes - 1
    assert len({id(disjunct.box) for disjunct in query.disjuncts}) == 1
    assert query.disjuncts[0].box.upper[12345] == Fraction("0.12345")
    assert query.disjuncts[41].rows[0].outputs == ((0, 1), (42, -1))
