"""Lexemes of VNN-LIB 1.0 text: one regular expression over the whole text, exact numbers, positions for messages.

A comparison of two plain symbols, `(<= X_12 0.5)`, is one lexeme, and so are its assertion and the declaration of a
constant: they are nearly all of a large file.
"""

from __future__ import annotations

import re
from fractions import Fraction

from verifier.errors import PropertyError

_SYMBOL = r"[^ \t\r\n\f\v();]++"
_SPACE = r"[ \t\r\n\f\v]"

ASSERTION, DECLARATION, ATOM, OPEN, CLOSE, SYMBOL = 3, 4, 7, 8, 9, 10
"""`lastindex` of the matches of `LEXEME`; None is a comment. Groups 1 to 3 of an assertion and 5 to 7 of an atom:
operator, left, right. Group 4: the name that is declared."""

_ATOM = rf"\({_SPACE}*+(<=|>=|<|>|=){_SPACE}++({_SYMBOL}){_SPACE}++({_SYMBOL}){_SPACE}*+\)"

LEXEME = re.compile(
    rf"\({_SPACE}*+assert{_SPACE}*+{_ATOM}{_SPACE}*+\)"
    rf"|\({_SPACE}*+declare-const{_SPACE}++({_SYMBOL}){_SPACE}++Real{_SPACE}*+\)"
    rf"|{_ATOM}|(\()|(\))|({_SYMBOL})|;[^\r\n]*+"
)

_NUMBER = re.compile(r"([+-]?\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?", re.ASCII)
_LONGEST_NUMBER = 2000
_LARGEST_EXPONENT = 5000


def number(text: str) -> Fraction | None:
    """The exact value of a literal; None if `text` is none. ValueError says why a literal is too large to be meant."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    whole, decimals, exponent = found.groups("")
    digits = whole + decimals
    if digits in ("", "+", "-"):
        return None
    if len(text) > _LONGEST_NUMBER or (exponent and abs(int(exponent)) > _LARGEST_EXPONENT):
        raise ValueError(f"the number '{text[:20]}...' has too many digits or too large an exponent")
    power = (int(exponent) if exponent else 0) - len(decimals)
    mantissa = int(digits)
    return Fraction(mantissa, 10**-power) if power < 0 else Fraction(mantissa * 10**power)


def fault(name: str, text: str, offset: int, message: str) -> PropertyError:
    """An error that points at `offset` of `text`. Lines and columns count from 1."""
    before = re.split(r"\r\n?|\n", text[:offset])
    return PropertyError(f"{name}, line {len(before)}, column {len(before[-1]) + 1}: {message}")
