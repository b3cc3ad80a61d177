"""Reads a linear form of outputs as people write it: `2*Y_0 - 1/3*Y_1 + 0.5`. Numbers are read exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from verifier.core.output_form import OutputForm
from verifier.errors import UsageError
from verifier.frontend.vnnlib.formula import ONE, Linear, Term, Terms, add, multiply
from verifier.frontend.vnnlib.tokens import number

_TOKEN = re.compile(r"\s*(?:(Y_\d+)|((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(\S))", re.ASCII)
_LEAST, _LARGEST = Fraction(1, 10**30), Fraction(10**30)  # sizes of numbers that single precision can work with
_EXAMPLE = "write for example 2*Y_0 - Y_1/3 + 0.5"


def parse_output_form(text: str) -> OutputForm:
    """Sums of signed products of numbers and at most one output each, `Y_k` with k from 0; a product may be divided by
    numbers. Raises `UsageError`, which names the column."""
    value = _Reader(text).sum()
    if not isinstance(value, Linear):
        raise UsageError(f"the output '{text}' does not depend on any output; {_EXAMPLE}")
    terms = tuple((index, coefficient) for (_, index), coefficient in sorted(value.terms.items()))
    if not all(_LEAST <= abs(c) <= _LARGEST for _, c in terms) or abs(value.constant) > _LARGEST:
        raise UsageError(f"the output '{text}' has numbers of sizes beyond 1e-30 and 1e30; scale it")
    return OutputForm(terms, value.constant)


class _Reader:
    """Lexemes of a text, one after another; `place` is where the next one begins, `operator` is it, if it is one."""

    def __init__(self, text: str) -> None:
        self.text, self.end = text, 0
        self._next()

    def sum(self) -> Term:
        parts: list[tuple[Fraction, Term]] = []
        while not parts or self.found is not None:
            sign = self.operator
            if sign not in ("+", "-") and parts:
                raise self._fault("an operator (+ - * /) is expected")
            if sign in ("+", "-"):
                self._next()
            parts.append((-ONE if sign == "-" else ONE, self._product()))
        return add(parts)

    def _product(self) -> Term:
        value = self._factor()
        while self.operator in ("*", "/"):
            operator = self.operator
            self._next()
            place, factor = self.place, self._factor()
            if operator == "/" and isinstance(factor, Linear):
                raise self._fault("division by an output is not linear", place)
            if operator == "/" and not factor:
                raise self._fault("division by zero", place)
            product = multiply([value, ONE / factor if operator == "/" and not isinstance(factor, Linear) else factor])
            if product is None:
                raise self._fault("a product of outputs is not linear", place)
            value = product
        return value

    def _factor(self) -> Term:
        found, place = self.found, self.place
        if found is None:
            raise self._fault(f"a number or an output is expected at the end; {_EXAMPLE}")
        output, literal, other = found.groups()
        if other is not None:
            raise self._fault(f"a number or an output Y_0, Y_1, ... is expected, not '{other}'; {_EXAMPLE}")
        self._next()
        if output is not None:
            terms: Terms = {(True, int(output[2:])): ONE}
            return Linear(terms, Fraction(0))
        try:
            value = number(literal)
        except ValueError as error:
            raise self._fault(str(error), place) from None
        assert value is not None
        return value

    @property
    def operator(self) -> str | None:
        return None if self.found is None else self.found[3]

    def _next(self) -> None:
        self.found = _TOKEN.match(self.text, self.end)
        if self.found is not None:
            assert self.found.lastindex is not None
            self.place, self.end = self.found.start(self.found.lastindex), self.found.end()
        else:
            self.place = len(self.text.rstrip())

    def _fault(self, message: str, place: int | None = None) -> UsageError:
        column = (self.place if place is None else place) + 1
        return UsageError(f"the output '{self.text}', column {column}: {message}")
