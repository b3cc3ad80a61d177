"""What is minimised or maximised: a linear form of a network's outputs, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from verifier.core.query import Box, Disjunct, Query, Row


@dataclass(frozen=True)
class OutputForm:
    """`sum_j c_j y_j + constant`. `terms` are `(index, coefficient)`, sorted, without zeros, and not empty."""

    terms: tuple[tuple[int, Fraction], ...]
    constant: Fraction = Fraction(0)

    @property
    def largest_index(self) -> int:
        return self.terms[-1][0]

    def __neg__(self) -> OutputForm:
        return OutputForm(tuple((index, -coefficient) for index, coefficient in self.terms), -self.constant)

    def below_zero(self, boxes: Sequence[Box], output_size: int) -> Query:
        """The question whether the form without its constant is at most 0 somewhere in the boxes: one row for each."""
        row = Row((), self.terms, Fraction(0))
        return Query(len(boxes[0].lower), output_size, tuple(Disjunct(box, (row,)) for box in boxes))
