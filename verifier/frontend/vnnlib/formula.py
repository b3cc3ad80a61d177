"""Formulas over linear constraints: what the text of a property becomes before it is brought into normal form.

Constraints are normalised as they are built: a constraint on a single input is a `Bound`, one without variables is
its truth value, every other one a `Row`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from verifier.core.query import Row

ZERO, ONE = Fraction(0), Fraction(1)
LARGEST_COUNT = 1 << 62

Terms: TypeAlias = dict[tuple[bool, int], Fraction]
"""Coefficients, none zero, of the variables `(is an output, index)`."""


class Bound(NamedTuple):
    """`x_variable <= value` if `upper`, else `>=`; `<` and `>` where `strict`."""

    variable: int
    upper: bool
    value: Fraction
    strict: bool


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """Conjunction. `count`: disjuncts of its normal form, capped."""

    parts: tuple[Formula, ...]
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Some:
    """Disjunction. `count` as above."""

    parts: tuple[Formula, ...]
    count: int


Leaf: TypeAlias = Bound | Row | bool
Formula: TypeAlias = Leaf | All | Some


def count_disjuncts(formula: Formula) -> int:
    return formula.count if isinstance(formula, (All, Some)) else 1


def conjunction(parts: list[Formula]) -> Formula:
    if len(parts) == 1:
        return parts[0]
    count = 1
    for part in parts:
        count = min(count * count_disjuncts(part), LARGEST_COUNT)
    return All(tuple(parts), count)


def disjunction(parts: list[Formula]) -> Formula:
    if len(parts) == 1:
        return parts[0]
    return Some(tuple(parts), min(sum(map(count_disjuncts, parts)), LARGEST_COUNT))


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A term with variables; a term without any is a plain `Fraction`."""

    terms: Terms
    constant: Fraction


Term: TypeAlias = Fraction | Linear


def add(operands: Iterable[tuple[Fraction, Term]]) -> Term:
    """Sum of `factor * term`."""
    terms: Terms = {}
    constant = Fraction(0)
    for factor, term in operands:
        if not isinstance(term, Linear):
            constant += factor * term
            continue
        constant += factor * term.constant
        for variable, coefficient in term.terms.items():
            terms[variable] = terms.get(variable, 0) + factor * coefficient
    terms = {variable: coefficient for variable, coefficient in terms.items() if coefficient}
    return Linear(terms, constant) if terms else constant


def multiply(operands: list[Term]) -> Term | None:
    """The product; None if it is not linear."""
    factor = ONE
    variable: Linear | None = None
    for term in operands:
        if not isinstance(term, Linear):
            factor *= term
        elif variable is None:
            variable = term
        else:
            return None
    return factor if variable is None else add([(factor, variable)])


_MIRRORED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<", "=": "="}
_NEGATED = {"<=": ">", ">=": "<", "<": ">=", ">": "<="}


def compare(operator: str, left: Term, right: Term, negated: bool) -> Formula:
    """`left operator right`, or its negation."""
    if not isinstance(left, Linear):
        if not isinstance(right, Linear):
            return _holds(operator, left, right) is not negated
        left, right, operator = right, left, _MIRRORED[operator]
    if isinstance(right, Linear) or left.constant:
        difference = add([(ONE, left), (-ONE, right)])
        if not isinstance(difference, Linear):
            return _holds(operator, difference, Fraction(0)) is not negated
        left, right = difference, -difference.constant
    if operator == "=":
        if negated:
            return disjunction([_inequality(side, left.terms, right) for side in "<>"])
        return conjunction([_inequality(side, left.terms, right) for side in ("<=", ">=")])
    return _inequality(_NEGATED[operator] if negated else operator, left.terms, right)


def _holds(operator: str, left: Fraction, right: Fraction) -> bool:
    return (
        (left < right and operator in ("<", "<="))
        or (left > right and operator in (">", ">="))
        or (left == right and operator in ("<=", ">=", "="))
    )


def _inequality(operator: str, terms: Terms, bound: Fraction) -> Bound | Row:
    upper, strict = operator[0] == "<", len(operator) == 1
    if len(terms) == 1:
        (is_output, index), coefficient = next(iter(terms.items()))
        if not is_output:
            if coefficient is ONE:
                return Bound(index, upper, bound, strict)
            return Bound(index, upper is (coefficient > 0), bound / coefficient, strict)
    if not upper:
        bound = -bound
        terms = {variable: -coefficient for variable, coefficient in terms.items()}
    ordered = sorted(terms.items())
    inputs = tuple([(index, coefficient) for (is_output, index), coefficient in ordered if not is_output])
    outputs = tuple([(index, coefficient) for (is_output, index), coefficient in ordered if is_output])
    return Row(inputs, outputs, bound, strict)
