"""Rows that pick elements of a node, for bounds of these elements.

Where a node is affine they begin behind it: the row of an element is that of its weights, and its constant term. That
is a step of the pass for nothing, and without a rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.operator import Affine
from verifier.core.rounding import down, roundoff, up
from verifier.ops import Near


@dataclass(frozen=True, eq=False)
class Picked:
    """`rows` `[..., *shape]` over node `start`, plus `offset` `[...]`. At most `terms` numbers of a row are not 0.
    `exact`: none was rounded. `radius` `[...]`: how far the elements may be from that, None for nowhere."""

    start: int
    rows: Tensor
    offset: Tensor
    terms: int
    exact: bool
    radius: Tensor | None = None

    @property
    def both_sides(self) -> Picked:
        """What the elements `[n, k, ...]` are at least, and behind these what their negatives are, `[n, 2 k, ...]`."""
        rows, offset = (torch.cat([part, -part], 1) for part in (self.rows, self.offset))
        if self.radius is not None:
            radius = self.radius
            if not self.exact:  # of the difference less may be left than the offset's own rounding
                radius = up(radius + roundoff(self.offset.abs(), 2), 2)
            offset = down(offset - torch.cat([radius, radius], 1))
        return replace(self, rows=rows, offset=offset, radius=None)

    def bounded(self, program: Program, found: NodeBounds) -> LinearForm:
        """A linear form below each row `[n, k]`."""
        assert self.radius is None, "a side is chosen first"
        return backward(program, {self.start: self.rows}, self.offset, found, self.exact, terms=self.terms)


def picked(program: Program, source: int, index: Tensor, first: int = 0) -> Picked:
    """The elements at flat positions `index` `[...]` of node `source`, as rows over no node before `first`."""
    node = program.graph.nodes[source]
    if isinstance(node.op, Near) and node.inputs[0] >= first:
        radius = node.op.radius.expand(node.shape).flatten()[index]
        argument = picked(program, node.inputs[0], index, first)
        return replace(argument, radius=radius if argument.radius is None else up(radius + argument.radius))
    if isinstance(node.op, Affine) and len(node.inputs) == 1 and node.inputs[0] >= first:
        rows = node.op.row(index, program.graph.nodes[node.inputs[0]].shape)
        if rows is not None:
            offset = node.op.offset()
            bias = rows.new_zeros(index.shape) if offset is None else offset.expand(node.shape).flatten()[index]
            return Picked(node.inputs[0], rows, bias, node.op.fan_in, False)
    rows = torch.zeros((*index.shape, math.prod(node.shape)), dtype=program.dtype, device=program.device)
    rows.scatter_(-1, index.unsqueeze(-1), 1.0)
    return Picked(source, rows.reshape(*index.shape, *node.shape), rows.new_zeros(index.shape), 1, True)
