"""Products of matrices whose rounding errors do not grow with the length of their sums."""

from __future__ import annotations

from torch import Tensor

PART = 256  # products in a part: shorter ones take longer, these a tenth more than whole sums
LONG = 1024  # products, from which on a sum is made of parts


def product(x: Tensor, y: Tensor) -> Tensor:
    """`[..., n]` by `[n, m]` to `[..., m]`, long sums in parts that are added up in order."""
    if y.shape[0] <= LONG:
        return x @ y
    total = x[..., :PART] @ y[:PART]
    for first in range(PART, y.shape[0], PART):
        total = total + x[..., first : first + PART] @ y[first : first + PART]
    return total


def depth(count: int) -> int:
    """The n of gamma_n for sums of `count` products by `product`."""
    return count if count <= LONG else PART + -(-count // PART)
