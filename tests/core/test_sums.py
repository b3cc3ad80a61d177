"""Long sums are made of parts: close to the exact ones within the depth that is promised, which is small."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.soundness.exact import fractions
from verifier.core.rounding import gamma
from verifier.core.sums import LONG, product, product_depth


@pytest.mark.parametrize("count", [1, 300, LONG, LONG + 1, 3000])
def test_errors_stay_within_the_depth(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    x, y = torch.rand(2, 1, count, generator=generator), torch.rand(count, 3, generator=generator)
    found = product(x, y)
    assert found.shape == (2, 1, 3)
    for row in range(2):
        for column in range(3):
            pairs = zip(fractions(x[row, 0]), fractions(y[:, column]), strict=True)
            exact = sum((a * b for a, b in pairs), Fraction(0))
            error = abs(Fraction(float(found[row, 0, column])) - exact)
            assert error <= Fraction(gamma(product_depth(count), torch.float32)) * exact


def test_depth_does_not_grow_with_the_length() -> None:
    assert product_depth(100) == 100 and product_depth(3072) < 300 and product_depth(100_000) < 1000
