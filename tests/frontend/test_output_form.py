"""Linear forms of outputs as people write them: exact values, and errors that name the column."""

from __future__ import annotations

from fractions import Fraction

import pytest

from verifier.errors import UsageError
from verifier.frontend.output_form import parse_output_form


@pytest.mark.parametrize(
    ("text", "terms", "constant"),
    [
        ("Y_0", {0: 1}, 0),
        ("-Y_12", {12: -1}, 0),
        ("Y_1 - Y_0", {0: -1, 1: 1}, 0),
        ("2*Y_0 - 1/3*Y_1 + 0.5", {0: 2, 1: Fraction(-1, 3)}, Fraction(1, 2)),
        (" +Y_3/4*2+1e-3*Y_0 -.5", {0: Fraction(1, 1000), 3: Fraction(1, 2)}, Fraction(-1, 2)),
        ("Y_0 + Y_1 - Y_0 + Y_1", {1: 2}, 0),
        ("0.1*Y_0", {0: Fraction(1, 10)}, 0),
    ],
)
def test_values_are_exact(text, terms, constant):
    form = parse_output_form(text)
    assert dict(form.terms) == terms and form.constant == constant
    assert [index for index, _ in form.terms] == sorted(terms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: a number or an output is expected"),
        ("Y_0 +", "column 6: a number or an output is expected"),
        ("2 Y_0", "column 3: an operator"),
        ("Y_0 Y_1", "column 5: an operator"),
        ("Y_0 * Y_1", "column 7: a product of outputs is not linear"),
        ("1/Y_0", "column 3: division by an output"),
        ("Y_0 / 0.0", "column 7: division by zero"),
        ("Y_0 - X_0", "column 7: a number or an output Y_0, Y_1, ... is expected, not 'X'"),
        ("(Y_0)", "column 1: a number or an output Y_0, Y_1, ... is expected, not '('"),
        ("1e99999*Y_0", "column 1: the number '1e99999...'"),
        ("Y_0 - Y_0", "does not depend on any output"),
        ("7", "does not depend on any output"),
        ("1e31*Y_0", "scale it"),
        ("1e-31*Y_0", "scale it"),
        ("Y_0 + 1e31", "scale it"),
    ],
)
def test_faults_are_named(text, message):
    with pytest.raises(UsageError) as raised:
        parse_output_form(text)
    assert message in str(raised.value)
