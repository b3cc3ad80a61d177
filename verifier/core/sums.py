"""Sums and products of matrices in parts, so that their rounding errors do not grow with their length."""

from __future__ import annotations

from torch import Tensor

PRODUCT_PART = (
    256  # products in a part of a matrix product: shorter ones take longer, these a tenth more than whole sums
)
LONG = 1024  # products, from which on a sum of a matrix product is made of parts
PART = 128  # numbers in a part of a plain sum


def product(x: Tensor, y: Tensor) -> Tensor:
    """`[..., n]` by `[n, m]` to `[..., m]`, long sums in parts that are added up in order."""
    if y.shape[0] <= LONG:
        return x @ y
    total = x[..., :PRODUCT_PART] @ y[:PRODUCT_PART]
    for first in range(PRODUCT_PART, y.shape[0], PRODUCT_PART):
        total = total + x[..., first : first + PRODUCT_PART] @ y[first : first + PRODUCT_PART]
    return total


def product_depth(count: int) -> int:
    """The n of gamma_n for sums of `count` products by `product`."""
    return count if count <= LONG else PRODUCT_PART + -(-count // PRODUCT_PART)


def total(values: Tensor) -> Tensor:
    """Over the last axis, in parts."""
    size = values.shape[-1]
    if size <= PART:
        return values.sum(-1)
    whole = size - size % PART
    parts = values[..., :whole].unflatten(-1, (-1, PART)).sum(-1).sum(-1)
    return parts if whole == size else parts + values[..., whole:].sum(-1)


def total_depth(count: int) -> int:
    """The n of gamma_n for a sum of `count` products by `total`."""
    return min(count, PART) + (-(-count // PART) if count > PART else 0)
