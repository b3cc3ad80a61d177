"""The parser: what is accepted, what is refused, and where messages point."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.core.query import Query
from verifier.errors import PropertyError
from verifier.frontend.vnnlib import parse_property
from verifier.frontend.vnnlib.tokens import number

HEADER = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
BOX = "(assert (and (<= 0 X_0) (<= X_0 1) (>= X_1 0) (>= 1 X_1)))\n"


def read(body: str) -> Query:
    return parse_property(HEADER + BOX + body, "file")


def only_row(body: str) -> tuple[object, ...]:
    (disjunct,) = read(body).disjuncts
    (row,) = disjunct.rows
    return row.inputs, row.outputs, row.bound, row.strict


def dump(query: Query) -> list[object]:
    return [(d.box.lower, d.box.upper, d.box.strict, d.rows) for d in query.disjuncts]


LITERALS = st.from_regex(r"[+-]?([0-9]{1,25}(\.[0-9]{0,25})?|\.[0-9]{1,25})([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(LITERALS)
def test_a_literal_is_read_exactly(literal: str) -> None:
    assert number(literal) == Fraction(literal)


@pytest.mark.parametrize(
    "text", ["", ".", "-", "+", "e5", ".e5", "1e", "1e+", "--1", "1.2.3", "0x10", "1/2", "1_000", "inf"]
)
def test_other_symbols_are_no_numbers(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize("text", ["nan", "\N{ARABIC-INDIC DIGIT THREE}", "1\N{SUPERSCRIPT TWO}", "1 ", "1\n"])
def test_what_python_takes_for_a_number_is_not_one(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize("literal", ["1e999999999", "-1e-999999999", "1" * 5000, "1e" + "9" * 5000])
def test_literals_of_monstrous_size_are_refused(literal: str) -> None:
    with pytest.raises(PropertyError, match=r"line 3, column 17: the number .* exponent"):
        read(f"(assert (<= Y_0 {literal}))")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("(assert (<= Y_0 5))", ((), ((0, 1),), 5, False)),
        ("(assert (>= Y_0 5))", ((), ((0, -1),), -5, False)),
        ("(assert (< Y_0 Y_1))", ((), ((0, 1), (1, -1)), 0, True)),
        ("(assert (> Y_0 Y_1))", ((), ((0, -1), (1, 1)), 0, True)),
        ("(assert (<= 5 Y_1))", ((), ((1, -1),), -5, False)),
        ("(assert (<= -Y_1 5))", ((), ((1, -1),), 5, False)),
        ("(assert (<= (- Y_1) 5))", ((), ((1, -1),), 5, False)),
        ("(assert (<= (+ X_0 X_1) 0.5))", (((0, 1), (1, 1)), (), Fraction(1, 2), False)),
        ("(assert (<= Y_0 X_0))", (((0, -1),), ((0, 1),), 0, False)),
        (
            "(assert (<= (+ (* 2 X_0) (* Y_0 -3 2) 1) (- 1 Y_0 X_0 .5)))",
            (((0, 3),), ((0, -5),), Fraction(-1, 2), False),
        ),
        ("(assert (<= (* 2 (+ Y_0 (- 1 X_1))) 0))", (((1, -2),), ((0, 2),), -2, False)),
        ("(assert (<= (+ Y_1 X_0 (- X_0)) 0))", ((), ((1, 1),), 0, False)),
        ("(assert (<= (* (- X_0 X_0) Y_0) Y_1))", ((), ((1, -1),), 0, False)),
        ("(assert (not (<= Y_0 5)))", ((), ((0, -1),), -5, True)),
        ("(assert (not (not (<= Y_0 5))))", ((), ((0, 1),), 5, False)),
    ],
)
def test_rows(body: str, expected: tuple[object, ...]) -> None:
    assert only_row(body) == expected


@pytest.mark.parametrize(
    "spacing",
    [
        "(assert(<= Y_0 5))",
        "( assert ( <=  Y_0\t5 ) )",
        "(assert\r\n(<= Y_0 5 ; why\r\n)\r\n)",
        "(assert (<= Y_0 5));(assert (<= Y_0 (",
        "(assert (<= ; a comment\rY_0 5))",
        ";(\n(assert (<= ;)\n Y_0 5)) ; \N{GREEK SMALL LETTER EPSILON}",
    ],
)
def test_layout_does_not_matter(spacing: str) -> None:
    assert only_row(spacing) == ((), ((0, 1),), 5, False)


def test_declarations_in_any_order_and_as_functions() -> None:
    text = "(declare-fun Y_0 () Real)(declare-const X_1 Real)(declare-fun X_0 ( ) Real)" + BOX
    query = parse_property(text, "file")
    assert (query.input_size, query.output_size) == (2, 1)


@pytest.mark.parametrize(
    ("body", "column", "message"),
    [
        ("(assert (<= Y_2 5))", 13, "'Y_2' is used but not declared"),
        ("(assert (<= 5 -X_7))", 15, "'X_7' is used but not declared"),
        ("(assert (<= Y_0 (+ 1 X_9)))", 22, "'X_9' is used but not declared"),
        ("(assert (<= Y_00 5))", 13, "neither a number nor a variable"),
        ("(assert (<= Z_0 5))", 13, "neither a number nor a variable"),
        ("(assert (<= Y_0 1,5))", 17, "neither a number nor a variable"),
        ("(assert (<= Y_0 |5|))", 17, "neither a number nor a variable"),
        ("(assert (<= Y_0 --5))", 17, "neither a number nor a variable"),
        ("(assert (<= Y_0 +Y_1))", 17, "neither a number nor a variable"),
        ("(assert (<= Y_0))", 9, "'<=' takes 2 operands, not 1"),
        ("(assert (<= Y_0 1 2))", 9, "'<=' takes 2 operands, not 3"),
        ("(assert (<=))", 9, "'<=' takes 2 operands, not 0"),
        ("(assert (and))", 9, "'and' takes at least one operand"),
        ("(assert (or))", 9, "'or' takes at least one operand"),
        ("(assert (<= Y_0 (+)))", 17, r"'\+' takes at least one operand"),
        ("(assert (not (<= Y_0 1) (<= Y_0 2)))", 9, "'not' takes 1 operand, not 2"),
        ("(assert)", 1, "'assert' takes 1 operand, not 0"),
        ("(assert (<= Y_0 1) (<= Y_1 2))", 1, "'assert' takes 1 operand, not 2"),
        ("(assert (<= (* Y_0 Y_1) 1))", 13, "not linear"),
        ("(assert (<= (* X_0 2 X_0) 1))", 13, "not linear"),
        ("(assert (<= (/ Y_0 2) 1))", 14, "'/' is not an operator"),
        ("(assert (=> (<= Y_0 1) (<= Y_1 2)))", 10, "'=>' is not an operator"),
        ("(assert (+ Y_0 1))", 10, r"'\+' cannot stand here"),
        ("(assert (and (<= Y_0 1) (+ Y_0 1)))", 26, r"'\+' cannot stand here"),
        ("(assert (<= (<= Y_0 1) 1))", 14, "'<=' cannot stand here"),
        ("(assert (<= (and Y_0 1) 1))", 14, "'and' cannot stand here"),
        ("(assert (assert (<= Y_0 1)))", 10, "'assert' cannot stand here"),
        ("(assert Y_0)", 9, "takes constraints in parentheses"),
        ("(assert (or Y_0 (<= Y_0 1)))", 13, "takes constraints in parentheses"),
        ("(<= Y_0 1)", 2, "'<=' cannot stand here; expected at the top level: assert"),
        ("(check-sat)", 2, "not an operator"),
        ("(assert ((<= Y_0 1)))", 10, r"an operator was expected after '\('"),
        ("(assert ())", 9, "empty"),
        ("()", 1, "empty"),
        ("Y_0", 1, "outside of all parentheses"),
        ("(assert (<= Y_0 1))) ", 20, "closes nothing"),
        ("(assert (or (<= Y_0 1)", 9, "never closed"),
        ("(assert (<= Y_0 1)", 1, "never closed"),
        ("(declare-const X_1 Real)", 16, "'X_1' is declared twice"),
        ("(declare-fun Y_1 () Real)", 14, "'Y_1' is declared twice"),
        ("(declare-const Z_0 Real)", 16, "not a name of a variable"),
        ("(declare-const X_02 Real)", 16, "not a name of a variable"),
        ("(declare-const X_2 Int)", 1, r"a declaration reads \(declare-const X_0 Real\)"),
        ("(declare-const X_2)", 1, "a declaration reads"),
        ("(declare-const X_2 () Real)", 20, "empty"),
        ("(declare-fun X_2 Real)", 1, r"a declaration reads \(declare-fun X_0 \(\) Real\)"),
        ("(declare-fun X_2 (Real) Real)", 19, "'Real' is not an operator"),
        ("(declare-const X_2 (<= 1 2))", 21, "'<=' cannot stand here"),
        ("(assert (<= (Y_0 5)))", 13, r"extra pair of parentheses.*remove that pair: \(<= A B\)"),
        ("(assert (or (and (>= ((+ Y_0 1) 5)))))", 22, "extra pair of parentheses"),
    ],
)
def test_faults_are_refused_where_they_stand(body: str, column: int, message: str) -> None:
    with pytest.raises(PropertyError, match=rf"^file, line 3, column {column}: .*{message}"):
        read(body)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_counted_for_every_line_end(newline: str) -> None:
    text = newline.join(["; comment", "(declare-const X_0 Real)", "", "  (assert (<= X_1 0))"])
    with pytest.raises(PropertyError, match=r"^file, line 4, column 15:"):
        parse_property(text, "file")


def test_a_variable_must_be_declared_before_it_is_used() -> None:
    with pytest.raises(PropertyError, match="'X_0' is used but not declared"):
        parse_property("(assert (<= X_0 1)) (declare-const X_0 Real)", "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(declare-const X_0 Real)(declare-const X_2 Real)", "X_1 is not declared"),
        ("(declare-const X_1 Real)", "X_0 is not declared"),
        ("(declare-const X_0 Real)(declare-const Y_1 Real)", "Y_0 is not declared"),
        ("(declare-const X_0 Real)(declare-const Y_99999999999999 Real)", "too large"),
        ("", "declares no input variables"),
        ("; only a comment", "declares no input variables"),
    ],
)
def test_indices_must_be_consecutive_from_0(text: str, message: str) -> None:
    with pytest.raises(PropertyError, match=message):
        parse_property(text, "file")


@pytest.mark.parametrize(
    "text",
    [
        "(vnnlib-version <2.0>)\n(declare-network N\n (declare-input X float32 [1]))",
        "(declare-network N)",
        "(vnnlib-version 2.0)",
    ],
)
def test_vnnlib_2_is_recognised(text: str) -> None:
    with pytest.raises(PropertyError, match=r"line 1, column 2: .*VNN-LIB 2\.0"):
        parse_property(text, "file")


@pytest.mark.parametrize("head", ["and", "or", "not", "+", "-", "*"])
def test_nesting_may_be_very_deep(head: str) -> None:
    depth = 200_000
    opening, closing = f"({head} " * depth, ")" * depth
    body = f"(<= {opening}Y_0{closing} 5)" if head in "+-*" else f"{opening}(<= Y_0 5){closing}"
    assert only_row(f"(assert {body})") == ((), ((0, 1),), 5, False)


def test_deep_alternation_of_and_and_or() -> None:
    depth = 50_000
    body = "(and (<= Y_0 5) (or " * depth + "(<= Y_1 7)" + "))" * depth
    (disjunct,) = read(f"(assert {body})").disjuncts
    assert len(disjunct.rows) == depth + 1
    assert disjunct.rows[-1].bound == 7


TOKENS = re.findall(
    r"[()]|[^\s()]+",
    HEADER + "(declare-fun Y_2 () Real)" + BOX + "(assert (<= X_1 -1e-3))"
    "(assert (or (and (>= Y_0 .5) (< X_0 1e-1)) (not (= Y_1 Y_0)) (<= (+ Y_0 1) 2)))"
    "(assert (> 1 Y_0)) (assert (= Y_1 Y_0))",
)
OTHERS = ("(", ")", "X_9", "X_2", "foo", "declare-fun", "declare-const", "assert", "<", "=", "-Y_1", "1e99999", "Real")
GAPS = ("", " ", " ", " ", "\n", "\r\n", "\t  ", " ;) (\n")


@st.composite
def mutated(draw: st.DrawFn) -> list[str]:
    tokens = list(TOKENS)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(tokens) - 1))
        change = draw(st.sampled_from(["delete", "double", "swap", "replace"]))
        if change == "delete":
            del tokens[place]
        elif change == "double":
            tokens.insert(place, tokens[place])
        elif change == "swap":
            other = draw(st.integers(0, len(tokens) - 1))
            tokens[place], tokens[other] = tokens[other], tokens[place]
        else:
            tokens[place] = draw(st.sampled_from([*set(TOKENS), *OTHERS]))
    return tokens


@st.composite
def laid_out(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Tokens, and what stands behind each of them: nothing only where a parenthesis parts it from the next."""
    tokens = draw(mutated())
    gaps = draw(st.lists(st.sampled_from(GAPS), min_size=len(tokens), max_size=len(tokens)))
    for place, (one, other) in enumerate(itertools.pairwise(tokens)):
        if not gaps[place] and one not in "()" and other not in "()":
            gaps[place] = " "
    return tokens, gaps


def outcome(text: str) -> list[object] | tuple[int, int, str]:
    try:
        return dump(parse_property(text, "file"))
    except PropertyError as error:
        found = re.match(r"file, line (\d+), column (\d+): (.*)", str(error))
        return (int(found[1]), int(found[2]), found[3]) if found else (0, 0, str(error))


@settings(max_examples=1000, deadline=None)
@given(laid_out())
def test_constraints_in_one_piece_and_in_single_tokens_read_alike(layout: tuple[list[str], list[str]]) -> None:
    """A comment after every token keeps the tokenizer from taking anything in one piece; faults are at the same
    token."""
    tokens, gaps = layout
    pieces = [token + gap for token, gap in zip(tokens, gaps, strict=True)]
    whole, single = outcome("".join(pieces)), outcome("".join(f"{token};\n" for token in tokens))
    if isinstance(single, list) or single[0] == 0:
        assert whole == single
    else:
        before = re.split(r"\r\n|\n", "".join(pieces[: single[0] - 1]))
        assert single[1] == 1
        assert whole == (len(before), len(before[-1]) + 1, single[2])
