"""No operator's planes are looser than published ones, over a grid of intervals (`benchmarks/relaxations.py`)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.relaxations import CASES, COLUMNS, quotients
from verifier.core.operator import Elementwise
from verifier.ops import OPERATORS, IsNonzero, LogRatio, Minimum, Share, Where

TABLE = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "relaxations.csv"
LOOSE = {"Cos": 1.3}
ELSEWHERE = {Minimum, IsNonzero, LogRatio, Share, Where}  # a maximum's mirror, a point, a difference, exp, a choice


@pytest.mark.parametrize("name", CASES)
def test_no_planes_are_looser_than_the_published_ones(name: str) -> None:
    """And few are looser than the best pair there is, on any interval. (Hulls are of sampled points: of a jump or a
    kink between two of them, a little too small.)"""
    table = list(quotients(CASES[name]))
    assert len(table) >= 10
    for hull, best, published in table:
        assert hull > 0.999 and 0.999 < best < LOOSE.get(name, 1.1)
        assert not published > 1.005


def test_every_elementwise_operator_is_in_the_table() -> None:
    assert {type(case.op) for case in CASES.values()} == {
        op for op in OPERATORS if issubclass(op, Elementwise)
    } - ELSEWHERE
    with TABLE.open() as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS and [row[0] for row in rows[1:]] == list(CASES)
