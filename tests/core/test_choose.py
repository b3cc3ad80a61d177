"""Choices without branches are exact for all finite numbers."""

from __future__ import annotations

import pytest
import torch

from verifier.core.choose import choose, negative, positive


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_choices_are_exact_whatever_the_sizes(dtype: torch.dtype) -> None:
    """Numbers of all magnitudes beside each other, whole vectors and their ends, with and without broadcasting."""
    generator = torch.Generator().manual_seed(1)
    limit = torch.finfo(dtype).max ** 0.49
    for size in (1, 7, 33, 1000):
        exponent = torch.randint(-140, 60, (2, 5, size), generator=generator).to(torch.float64)
        values = (torch.randn(2, 5, size, generator=generator, dtype=torch.float64) * 2**exponent).to(dtype)
        one, other = values.clamp(-limit, limit)
        side = torch.randn(5, size, generator=generator).to(dtype)
        side[:, ::3] = 0.0
        assert torch.equal(choose(negative(side), one, other), torch.where(side < 0, one, other))
        assert torch.equal(choose(positive(side), one[:1], other), torch.where(side > 0, one[:1], other))
        zero = torch.zeros((), dtype=dtype)
        assert torch.equal(choose(positive(side), one, zero), torch.where(side > 0, one, zero))


def test_what_is_not_a_number_is_on_neither_side() -> None:
    values = torch.tensor([torch.nan, -torch.inf, torch.inf, -0.0])
    assert negative(values).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert positive(values).tolist() == [0.0, 0.0, 1.0, 0.0]
