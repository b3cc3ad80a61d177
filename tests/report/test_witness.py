"""The text of a counterexample."""

from __future__ import annotations

import re

import numpy as np
import pytest

from verifier.core.verdict import Witness
from verifier.report.witness import format_witness


def test_layout() -> None:
    witness = Witness(np.array([[0.5, -1.0]], dtype=np.float32), np.array([1e-7, 2.0, 3e30]), disjunct=0)
    assert format_witness(witness) == "((X_0 0.5)\n(X_1 -1.0)\n(Y_0 1e-07)\n(Y_1 2.0)\n(Y_2 3e+30))"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_read_back_exactly_with_or_without_the_type(dtype: type[np.floating]) -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal((20, 50)) * 10.0 ** random.integers(-44, 38, (20, 50))).astype(dtype)
    x[0, :6] = 0.1, -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, np.nextafter(dtype(0.1), dtype(1)), 1
    text = format_witness(Witness(x, np.zeros(1, dtype), disjunct=0))
    pairs = re.findall(r"\(([XY])_(\d+) ([^()\s]+)\)", text)
    assert [(letter, int(index)) for letter, index, _ in pairs] == [("X", k) for k in range(1000)] + [("Y", 0)]
    doubles = np.array([float(number) for letter, _, number in pairs if letter == "X"])
    assert doubles.tobytes() == x.ravel().astype(np.float64).tobytes()
    assert doubles.astype(dtype).tobytes() == x.tobytes()
