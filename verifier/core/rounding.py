"""Every rounding that our bounds commit, in one place.

Standard model of floating point (Higham, Accuracy and Stability, 2nd ed., section 3.1): one operation errs by a factor
(1 + d) with |d| <= u, a sum of n products in *any* order, fused or not, by at most `gamma(n) * sum |a_i b_i|`.
Underflow adds at most `tiny` per operation, counted separately because it is absolute. With flush-to-zero the
smallest normal number is the right unit, so that is what is used.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit(dtype: torch.dtype) -> float:
    """Unit roundoff: largest relative error of one correctly rounded operation."""
    return torch.finfo(dtype).eps / 2


def tiny(dtype: torch.dtype) -> float:
    """Largest absolute error of one operation that underflows, flush-to-zero included."""
    return torch.finfo(dtype).tiny


def gamma(count: int, dtype: torch.dtype) -> float:
    """gamma_n = n u / (1 - n u): relative error of n roundings in a row (Higham, lemma 3.1); infinite if n u >= 1."""
    product = count * unit(dtype)
    return product / (1 - product) if product < 1 else float("inf")


def roundoff(size: Tensor, count: int) -> Tensor:
    """How far numbers up to `size` may be off after `count` roundings: by `tiny` at least, if they underflow."""
    return size * gamma(count, size.dtype) + tiny(size.dtype)


def down(value: Tensor, ulps: int = 1) -> Tensor:
    """A number at most the real one, where `value` is `ulps` correctly rounded operations away from it."""
    return value - (value.abs() * ((2 * ulps + 1) * unit(value.dtype)) + tiny(value.dtype))


def up(value: Tensor, ulps: int = 1) -> Tensor:
    """A number at least the real one, where `value` is `ulps` correctly rounded operations away from it."""
    return value + (value.abs() * ((2 * ulps + 1) * unit(value.dtype)) + tiny(value.dtype))


def without_subnormals(value: Tensor) -> Tensor:
    """Zeros in the place of numbers up to `tiny`, which processors multiply a hundred times as slowly as others: 147 of
    9,216 weights are enough to make a convolution take ten times as long. Training with weight decay leaves many. The
    zeros have the numbers' signs."""
    if not value.is_floating_point():
        return value
    rest = torch.nn.functional.hardshrink(value, tiny(value.dtype))
    return value if torch.equal(rest, value) else rest.copysign(value)


def has_negative(value: Tensor) -> bool:
    """Whether any number is negative, or a zero that was a negative number before it was cast or dropped."""
    return bool(value.signbit().any())


def narrow_down(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to `dtype`, never upwards. Exact values stay exact."""
    cast = value.to(dtype)
    return torch.where(cast.to(value.dtype) > value, torch.nextafter(cast, torch.full_like(cast, -torch.inf)), cast)


def narrow_up(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to `dtype`, never downwards. Exact values stay exact."""
    return -narrow_down(-value, dtype)
