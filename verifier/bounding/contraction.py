"""Products of two variable matrices, crossed by a backward pass in one step.

A graph has  z_mn = sum_k x_mk y_nk  as products of copies of the elements and sums of these. With the middles p of x
and q of y and their greatest distances r and s from these,

    x y = q x + p y - p q + (x - p) (y - q),  so that  z  is within  r s^T  of  sum_k (q_nk x_mk + p_mk y_nk) - p q^T,

which are the planes of half of each product together (`ops.products`). Rows over z become rows over x and y by two
products of matrices, and nothing of the size of all copies is touched: it would be read a dozen times for each row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.rounding import roundoff, tiny, up
from verifier.core.stacked import pick
from verifier.ops import Multiply, Select, Sum

WORTH = 2  # copies for each element, from which on this is cheaper


@dataclass(frozen=True, eq=False)
class Contraction:
    """z_gmn = sum_k x_gmk y_gnk. `product`: the node of the products of elements; `sources`: those whose elements
    `moves` takes as x `[g, m, k]` and y `[g, n, k]`."""

    product: int
    sources: tuple[int, int]
    moves: tuple[Select, Select]

    @property
    def summed(self) -> int:
        """Products in each element of z."""
        return self.moves[0].index.shape[2]

    @property
    def depth(self) -> int:
        """The n of gamma_n for the coefficients that a row over z has over x and y."""
        x, y = self.moves
        return max(y.index.shape[1] + x.fan_out, x.index.shape[1] + y.fan_out)


@dataclass(frozen=True, eq=False)
class Contracted:
    """What is known of z over a batch of domains: it is within `half` of  sum_k (q x + p y) + middle.

    `p` `[batch, g, m, k]`, `q` `[batch, g, n, k]`; the others `[batch, *shape]`. `terms`: the most that
    sum_k (|q x| + |p y|)  can be."""

    p: Tensor
    q: Tensor
    middle: Tensor
    half: Tensor
    terms: Tensor

    def select(self, domains: Tensor | slice) -> Contracted:
        """That over some domains."""
        return pick(self, domains)

    def adjoint(self, rows: Tensor, contraction: Contraction) -> tuple[Tensor, Tensor]:
        """Rows `[batch, spec, *shape]` over z to rows over each of the sources."""
        groups, (m, n) = self.p.shape[1], (part.shape[2] for part in (self.p, self.q))
        rows = rows.reshape(*rows.shape[:2], groups, m, n)
        over_x = torch.einsum("bsgmn,bgnk->bsgmk", rows, self.q).flatten(0, 1)
        over_y = torch.einsum("bsgmn,bgmk->bsgnk", rows, self.p).flatten(0, 1)
        pairs = zip(contraction.moves, (over_x, over_y), strict=True)
        x, y = (move.adjoint(over)[0].unflatten(0, rows.shape[:2]) for move, over in pairs)
        return x, y


def contraction_at(graph: Graph, position: int) -> Contraction | None:
    """The one whose sums are the node at `position`, if it is one and has many copies of its elements."""
    node = graph.nodes[position]
    product = graph.nodes[node.inputs[0]] if node.inputs else node
    last = len(product.shape) - 1
    if not isinstance(node.op, Sum) or node.op.axes != (last,) or last < 2 or not isinstance(product.op, Multiply):
        return None
    copies = [graph.nodes[source] for source in product.inputs]
    indices = [copy.op.index.reshape(-1, *product.shape[-3:]) for copy in copies if isinstance(copy.op, Select)]
    if len(indices) < 2 or product.size == 0:
        return None
    x, y = indices[0][:, :, :1], indices[1][:, :1]
    known = torch.equal(x.expand_as(indices[0]), indices[0]) and torch.equal(y.expand_as(indices[1]), indices[1])
    if not known or bool((x < 0).any() | (y < 0).any()) or product.size < WORTH * (x.numel() + y.numel()):
        return None
    sources = [copy.inputs[0] for copy in copies]
    moves = (Select(x.squeeze(2), graph.nodes[sources[0]].shape), Select(y.squeeze(1), graph.nodes[sources[1]].shape))
    return Contraction(node.inputs[0], (sources[0], sources[1]), moves)


def contracted(contraction: Contraction, intervals: dict[int, Interval], shape: tuple[int, ...]) -> Contracted:
    """From bounds of the sources, for sums of this shape."""
    pairs = zip(contraction.moves, (intervals[source] for source in contraction.sources), strict=True)
    x, y = (Interval(move.linear(box.lower), move.linear(box.upper)) for move, box in pairs)
    (p, r), (q, s) = x.around(), y.around()
    # in double precision, since this is done once for many rows
    constant, rest, beside = (_product(u.double(), v.double()) for u, v in ((p, q), (r, s), (p.abs(), q.abs())))
    middle, error = -constant.to(p.dtype), roundoff(rest + beside, 2 * contraction.summed + 8)
    half = rest + error + (constant + middle.double()).abs() + 4 * tiny(p.dtype) * contraction.summed
    half = up(half.to(p.dtype), 2)
    terms = _product(x.magnitude(), q.abs()) + _product(p.abs(), y.magnitude())
    middle, half, terms = (part.reshape(-1, *shape) for part in (middle, half, terms))
    return Contracted(p, q, middle, half, terms)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """`[batch, g, m, k]` and `[batch, g, n, k]` to `[batch, g, m, n]`."""
    return x @ y.transpose(2, 3)
