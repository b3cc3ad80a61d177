"""Ascents and searches for the ends of convolutional neurons, tile by tile.

The bounds of a tile's elements depend on a small part of the network (see `crop`). What takes many passes over the
network for each element takes them over this part, as a network of its own: whole up to the cut, and behind it the
boxes that the tile depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.boxed import joined
from verifier.bounding.crop import WORTH, Patch, lone_patches
from verifier.bounding.fields import row_price
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Part, Program
from verifier.bounding.tighten import Tightener, shared_out
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.ops import Crop


@dataclass(frozen=True, eq=False)
class Tile:
    """One of the `tiles` of a node's `patch`."""

    patch: Patch
    number: int

    @property
    def positions(self) -> Tensor:
        """Of its elements in the node, `[elements]`."""
        return self.patch.positions[self.number]

    @property
    def key(self) -> Hashable:
        """Tells it from all other tiles."""
        return self.patch, self.number

    def network(self, program: Program) -> Part:
        """What it depends on, from the input of `program` to it."""
        graph, cut, inner = program.graph, self.patch.cut, self.patch.program
        start = np.unravel_index(int(self.patch.starts[self.number, 0]), graph.nodes[cut].shape)
        nodes = joined(graph.nodes[: cut + 1], tuple(map(int, start)), inner.graph)
        crop = nodes[cut + 1].op
        assert isinstance(crop, Crop)
        absolute = (*program.absolute[: cut + 1], crop, *inner.absolute[1:])
        read = {position: mask for position, mask in program.read.items() if position <= cut}
        return Part(Graph(nodes, len(nodes) - 1), program.dtype, program.device, absolute, read=read)

    def bounds(self, found: NodeBounds) -> NodeBounds:
        """Of the nodes of its network, from those over one domain of the whole one."""
        cut, before = self.patch.cut, found.upto(self.patch.cut)
        zero = torch.zeros(1, dtype=torch.long, device=self.positions.device)
        own = self.patch.every_bound(found, zero, zero + self.number)
        return NodeBounds(
            {**before.intervals, **{k + cut + 1: v for k, v in own.intervals.items()}},
            {**before.planes, **{k + cut + 1: v for k, v in own.planes.items()}},
        )


def in_tiles(
    program: Program, precise: Program, whole: Tightener, make: Callable[[Program, Program, Hashable], Tightener]
) -> Tightener:
    """`whole`, a tightener of `program`; but where tiles are cheaper, what `make` gives for the network of each, for
    the same in double precision as a part of `precise`, and for a key that tells it from others."""

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        work = list(_tiles(program, precise, source, index))
        if not work:
            return whole(found, source, index, deadline)

        def one(part: tuple[Tile, Tile, Tensor], until: float) -> tuple[Tensor, Tensor]:
            tile, same, own = part
            network = tile.network(program)
            known = tile.bounds(found)
            return make(network, same.network(precise), tile.key)(known, network.graph.output, own, until)

        ends = Interval.unbounded((program.graph.nodes[source].size,), found.intervals[source].lower)
        for part, (lower, upper) in shared_out(work, [len(own) for *_, own in work], one, deadline):
            positions = part[0].positions[part[2]]
            ends.lower[positions], ends.upper[positions] = lower, upper
        return ends.lower[index], ends.upper[index]

    return tighten


def _tiles(program: Program, precise: Program, source: int, index: Tensor) -> Iterator[tuple[Tile, Tile, Tensor]]:
    """The tiles that hold the elements `index` `[m]` of a node, also as parts of `precise`, and the positions in a tile
    of those that it holds; none where the whole network is not much dearer."""
    size = program.graph.nodes[source].size
    wanted = torch.zeros(size, dtype=torch.bool, device=program.device)
    wanted[index] = True
    patches, twins = lone_patches(program, precise, source, len(index) / size)
    shares = [(patch, wanted[patch.positions]) for patch in patches]
    rows = sum(2 * int(mask.sum()) * patch.row + int(mask.any(1).sum()) * patch.crossing for patch, mask in shares)
    # constants that differ in one precision only give tiles of more structures there
    if not shares or len(twins) != len(patches) or rows > WORTH * 2 * len(index) * row_price(program.graph, source):
        return
    for (patch, mask), same in zip(shares, twins, strict=True):
        for number in mask.any(1).nonzero().flatten().tolist():
            yield Tile(patch, number), Tile(same, number), mask[number].nonzero().flatten()
