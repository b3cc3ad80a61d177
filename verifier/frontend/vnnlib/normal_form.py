"""Brings the assertions of a property into a `Query`: a disjunction of boxes with linear rows.

`or` is distributed over `and` by walking the formula as a tableau: a state is what must still hold and what was
gathered so far, and an `or` continues it once for each part. Bounds asserted outside of every `or` make the common
box; a disjunct states only what tightens it, so that boxes are shared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import TypeAlias

from verifier.core.query import Box, Disjunct, Query, Row
from verifier.core.rationals import nearest
from verifier.errors import PropertyError
from verifier.frontend.vnnlib.formula import All, Bound, Formula, Leaf, Some, count_disjuncts
from verifier.frontend.vnnlib.syntax import Statement

MOST_DISJUNCTS = 2_000_000
MOST_BOX_ENDS = 50_000_000
_LISTED = 5

Ends: TypeAlias = dict[tuple[int, bool], Bound]
"""The tightest bound met at each end `(input, is upper)`."""

_Formulas: TypeAlias = tuple[Formula, "_Formulas"] | None
_Leaves: TypeAlias = tuple[Leaf, "_Leaves"] | None


def to_query(statement: Statement, name: str) -> Query:
    if not statement.input_size:
        raise PropertyError(f"{name} declares no input variables X_0, X_1, ...; is it a VNN-LIB 1.0 property?")
    leaves, choices = _split(statement.assertions)
    count = math.prod(count_disjuncts(choice) for choice in choices)
    if count > MOST_DISJUNCTS:
        raise PropertyError(
            f"{name} expands to more than {MOST_DISJUNCTS:,} disjuncts; split it into several properties"
        )
    common = _Conjunct(leaves, {})
    if common.contradiction:
        warning = f"the constraints contradict each other, so there is nothing to verify: {common.contradiction}"
        return Query(statement.input_size, statement.output_size, (), (warning,))
    boxes = _Boxes(common.ends, statement.input_size, name)
    kept: list[Disjunct] = []
    dropped: list[str] = []
    for position, chosen in enumerate(_conjunctions(choices), start=1):
        conjunct = _Conjunct(chosen, common.ends)
        if conjunct.contradiction:
            dropped.append(f"disjunct {position} is contradictory: {conjunct.contradiction}")
        else:
            box = boxes.find(conjunct.ends, f" in disjunct {position} of {count}" if count > 1 else "")
            kept.append(Disjunct(box, (*common.rows, *conjunct.rows)))
    return Query(statement.input_size, statement.output_size, tuple(kept), _warnings(dropped, not kept))


def _warnings(dropped: list[str], nothing_left: bool) -> tuple[str, ...]:
    warnings = dropped[:_LISTED]
    if len(dropped) > _LISTED:
        warnings.append(f"{len(dropped) - _LISTED:,} more disjuncts are contradictory")
    if nothing_left:
        warnings.append("every disjunct is contradictory, so there is nothing to verify")
    return tuple(warnings)


def _split(assertions: Sequence[Formula]) -> tuple[list[Leaf], list[Some]]:
    """The constraints that every disjunct shares, and the disjunctions; all must hold."""
    leaves: list[Leaf] = []
    choices: list[Some] = []
    pending = list(reversed(assertions))
    while pending:
        formula = pending.pop()
        if isinstance(formula, All):
            pending += reversed(formula.parts)
        elif isinstance(formula, Some):
            choices.append(formula)
        else:
            leaves.append(formula)
    return leaves, choices


def _conjunctions(choices: list[Some]) -> Iterator[list[Leaf]]:
    """The disjuncts of the conjunction of `choices`, in the order in which they are written."""
    start: _Formulas = None
    for choice in reversed(choices):
        start = (choice, start)
    states: list[tuple[_Formulas, _Leaves]] = [(start, None)]
    while states:
        pending, leaves = states.pop()
        while pending is not None:
            formula, pending = pending
            if isinstance(formula, All):
                for part in reversed(formula.parts):
                    pending = (part, pending)
            elif isinstance(formula, Some):
                states += [((part, pending), leaves) for part in reversed(formula.parts)]
                break
            else:
                leaves = (formula, leaves)
        else:
            yield _unchain(leaves)


def _unchain(leaves: _Leaves) -> list[Leaf]:
    found: list[Leaf] = []
    while leaves is not None:
        leaf, leaves = leaves
        found.append(leaf)
    found.reverse()
    return found


class _Conjunct:
    """Constraints that hold together: rows, and the ends that are tighter than the `common` ones."""

    def __init__(self, leaves: list[Leaf], common: Ends) -> None:
        self.rows: list[Row] = []
        self.ends: Ends = {}
        self.contradiction = ""
        for leaf in leaves:
            if isinstance(leaf, Bound):
                key = leaf[:2]
                current = self.ends.get(key) or common.get(key)
                if current is None or _tighter(leaf, current):
                    self.ends[key] = leaf
            elif isinstance(leaf, Row):
                self.rows.append(leaf)
            elif not leaf:
                self.contradiction = "it contains a constraint without variables that is false"
                return
        for key, end in self.ends.items():
            index, upper = key
            other = self.ends.get((index, not upper))
            if other is None:
                other = common.get((index, not upper))
            elif upper:
                continue  # seen from below
            low, high = (other, end) if upper else (end, other)
            if low is not None and high is not None and _excludes(low, high):
                self.contradiction = (
                    f"X_{index} would be {'above' if low.strict else 'at least'} {_show(low.value)} "
                    f"and {'below' if high.strict else 'at most'} {_show(high.value)}"
                )
                return


def _tighter(new: Bound, old: Bound) -> bool:
    if new.value == old.value:
        return new.strict and not old.strict
    return (new.value < old.value) is new.upper


def _excludes(low: Bound, high: Bound) -> bool:
    (a, b), (c, d) = low.value.as_integer_ratio(), high.value.as_integer_ratio()
    difference = a * d - c * b  # several times as fast as comparing fractions
    return difference > 0 or (difference == 0 and (low.strict or high.strict))


def _show(value: Fraction) -> str:
    return f"{nearest(value):.17g}"


def _put(ends: Ends, lower: list[Fraction | None], upper: list[Fraction | None], strict: set[tuple[int, bool]]) -> None:
    for key, end in ends.items():
        index, is_upper = key
        (upper if is_upper else lower)[index] = end.value
        if end.strict:
            strict.add(key)


class _Boxes:
    """Makes boxes, one object for equal ones."""

    def __init__(self, common: Ends, size: int, name: str) -> None:
        self.common, self.size, self.name = common, size, name
        self.missing = [key for key in product(range(size), (False, True)) if key not in common]
        self.lower: list[Fraction | None] = [None] * size
        self.upper: list[Fraction | None] = [None] * size
        self.strict: set[tuple[int, bool]] = set()
        _put(common, self.lower, self.upper, self.strict)
        self.made: dict[tuple[tuple[int, bool, int, int, bool], ...], Box] = {}

    def find(self, ends: Ends, place: str) -> Box:
        """The common box tightened by `ends`."""
        key = tuple(sorted((*place_of, *end.value.as_integer_ratio(), end.strict) for place_of, end in ends.items()))
        box = self.made.get(key)
        if box is None:
            if (len(self.made) + 1) * self.size > MOST_BOX_ENDS:
                raise PropertyError(f"{self.name} has too many different input boxes; split it into several properties")
            box = self.made[key] = self.make(ends, place)
        return box

    def make(self, ends: Ends, place: str) -> Box:
        if self.missing:
            self.refuse_missing([key for key in self.missing if key not in ends], place)
        lower, upper, strict = self.lower, self.upper, self.strict
        if ends:
            lower, upper, strict = lower.copy(), upper.copy(), strict - ends.keys()
            _put(ends, lower, upper, strict)
        sides = frozenset((index, "upper" if is_upper else "lower") for index, is_upper in strict)
        return Box(tuple(lower), tuple(upper), sides)  # type: ignore[arg-type]  # None was refused above

    def refuse_missing(self, missing: list[tuple[int, bool]], place: str) -> None:
        if not missing:
            return
        named = ", ".join(f"X_{index} ({'upper' if upper else 'lower'})" for index, upper in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED:,} more" if len(missing) > _LISTED else ""
        raise PropertyError(
            f"{self.name}: input bounds are missing{place}: {named}{more}; every input needs both bounds"
        )
