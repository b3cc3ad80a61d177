"""Margins of disjuncts read as the property means them."""

from __future__ import annotations

from fractions import Fraction

import torch

from verifier.core.problem import build_problem, violation_margin
from verifier.core.query import Box, Disjunct, Query, Row


def test_margin_of_a_disjunct_is_its_worst_row() -> None:
    margins = torch.tensor([[1.0, -2.0, -3.0, torch.nan]])
    found = violation_margin(margins, torch.tensor([[0, 0, 1, 2]]), 4)
    assert found[0, :2].tolist() == [1.0, -3.0]
    assert found[0, 2] > 0, "a NaN margin never violates"
    assert found[0, 3] == -torch.inf, "a disjunct without rows is violated anywhere"


def test_a_box_with_fewer_disjuncts_is_not_violated_by_what_it_lacks() -> None:
    row = Row((), ((0, Fraction(1)),), Fraction(3))
    boxes = [Box((Fraction(low),), (Fraction(low + 1),)) for low in (0, 5)]
    query = Query(1, 1, (Disjunct(boxes[0], (row,)), Disjunct(boxes[0], (row,)), Disjunct(boxes[1], (row,))))
    problem = build_problem(query, torch.float32, "cpu")
    assert problem.real.tolist() == [[True, True], [True, False]]
    x, y, which = torch.zeros(2, 1), torch.tensor([[4.0], [5.0]]), torch.tensor([0, 1])
    assert problem.disjunct_margins(x, y, which).tolist() == [[1.0, 1.0], [2.0, torch.inf]]


def test_coefficients_in_double_are_not_those_of_single_precision() -> None:
    box = Box((Fraction(0),), (Fraction(1),))
    tenth = Disjunct(box, (Row(((0, Fraction("0.1")),), ((0, Fraction("0.3")),), Fraction(0)),))
    exact = Disjunct(box, (Row((), ((0, Fraction("0.25")),), Fraction(0)),))
    for disjunct, rounded in ((tenth, True), (exact, False)):
        problem = build_problem(Query(1, 1, (disjunct,)), torch.float32, "cpu")
        double = problem.in_double()
        assert problem.exact != rounded and double.exact != rounded
        for table, terms in (
            (double.output_rows, disjunct.rows[0].outputs),
            (double.input_rows, disjunct.rows[0].inputs),
        ):
            if terms:
                assert table is not None and table.dtype is torch.float64
                assert float(table[0, 0]) == float(terms[0][1])
