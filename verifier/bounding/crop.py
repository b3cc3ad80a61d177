"""Backward bounds of a convolutional neuron need only its receptive field: the network cut down to it, as a graph.

A node's positions are divided into tiles. Walking back from a tile gives the box of every earlier node that it depends
on (the hull, where several nodes read one), and the operators restricted to these boxes are a small network whose
bounds are those of the large one. Tiles whose small networks are equal (all that touch no border) are a batch of
domains of one program, so that the backward pass runs on them as on any other.

The walk ends at the input, or at the one node before the tile of which no box can be followed further (behind a dense
layer, say): the `cut`. From there rows go on in the whole network.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward
from verifier.bounding.boxed import boxed
from verifier.bounding.elements import Picked
from verifier.bounding.fields import GATHERED, OPEN_SHARE, Fields, best_tiles, looking_price, node_price, row_price
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Part, Program
from verifier.bounding.reach import Reach
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Elementwise
from verifier.core.regions import Local, Shape
from verifier.core.stacked import map_tensors
from verifier.ops import Crop

T = TypeVar("T")

WORTH = 0.75  # tiles are used where they take at most this share of the operations of whole passes
FEW = 2e9  # operations of whole passes up to which tiles are not even looked for
SIMILAR = 3.0  # times the share of undecided elements for which tiles were chosen: up to there they serve


@dataclass(frozen=True, eq=False)
class Patch:
    """Tiles of one structure, of node `source` of a program.

    `program`: from the box of node `cut` that a tile depends on to the tile. By its nodes, `origins`: the node of the
    large program of which it is a box, and `starts` `[tiles, nodes]` where the box begins (a flat
    position). `positions` `[tiles, elements]` of the tile's elements in the source. `row`: the price of taking a row
    back to the input, `crossing`: of a pass, however few its rows."""

    program: Part
    cut: int
    origins: tuple[int, ...]
    starts: Tensor
    positions: Tensor
    row: float
    crossing: float

    def bounds(self, found: NodeBounds, domains: Tensor, tiles: Tensor) -> NodeBounds:
        """What a backward pass over tiles `tiles` `[n]` of domains `domains` `[n]` needs: the arguments of affine
        nodes, and what is read more than once, where rows are added up."""
        nodes = self.program.graph.nodes
        reads = Counter(source for node in nodes for source in node.inputs)
        affine = {source for node in nodes if isinstance(node.op, Affine) for source in node.inputs}
        summed = {source for source, count in reads.items() if count > 1}
        return self._bounds(found, domains, tiles, sorted({0} | affine | summed))

    def every_bound(self, found: NodeBounds, domains: Tensor, tiles: Tensor) -> NodeBounds:
        """All that is known of the boxes of tiles `tiles` `[n]` over domains `domains` `[n]`."""
        return self._bounds(found, domains, tiles, range(len(self.origins)))

    def _bounds(self, found: NodeBounds, domains: Tensor, tiles: Tensor, places: Iterable[int]) -> NodeBounds:
        """Intervals of the nodes `places`, and all planes. Of other arguments of nonlinear nodes only sums are needed:
        those over the whole nodes are at least as large."""
        nodes = self.program.graph.nodes
        bent = [place for place, node in enumerate(nodes) if isinstance(node.op, Elementwise)]
        intervals = {k: self._part(found.intervals[self.origins[k]], k, domains, tiles) for k in places}
        others = {source for k in bent for source in nodes[k].inputs} - set(intervals)
        totals = {k: found.reach.total(self.origins[k], self.program.dtype) for k in others}
        planes = {k: self._part(found.planes[self.origins[k]], k, domains, tiles) for k in bent}
        return NodeBounds(intervals, planes, known=Reach(intervals, totals))

    def _part(self, value: T, place: int, domains: Tensor, tiles: Tensor) -> T:
        """The boxes of node `place` in tensors `[batch, *shape]` over its origin."""
        return map_tensors(lambda tensors: self._boxes(tensors[0], place, domains, tiles), [value])

    def _boxes(self, value: Tensor, place: int, domains: Tensor, tiles: Tensor) -> Tensor:
        """`[n, *box]`, or `[1, *box]` where it is the same for all."""
        box, shape = self.program.graph.nodes[place].shape, tuple(value.shape[1:])
        if len(value) == 1:
            domains = torch.zeros_like(domains)
        if box == shape:
            return value if len(value) == 1 else value[domains]
        value = value.contiguous()
        places = value[0].numel() - sum((n - 1) * step for n, step in zip(box, value.stride()[1:], strict=True))
        boxes = value.as_strided((len(value), places, *box), (value.stride(0), 1, *value.stride()[1:]))
        return boxes[domains, self.starts[tiles, place]]

    def price(self, elements: int, tiles: int) -> float:
        """Of bounding so many elements on both sides, in so many tiles."""
        size = self.program.graph.size
        return 2 * elements * self.row + GATHERED * tiles * size + self.crossing

    def minimum(
        self, program: Program, found: NodeBounds, box: Interval, domains: Tensor, tiles: Tensor, picked: Picked
    ) -> Tensor:
        """Lower bounds `[n, k]` of the elements `picked` `[n, k, ...]` of tiles `tiles` `[n]` over domains `domains`
        `[n]`; `found` and `box` are those of the whole `program`."""
        own = self.bounds(found, domains, tiles)
        form = picked.bounded(self.program, own)
        if self.cut == 0:
            return form.minimum(self._part(box, 0, domains, tiles))
        rows = self._spread(form.coefficients, program.graph.nodes[self.cut].shape, tiles)
        before = found.upto(self.cut).select(domains)
        rest = backward(program, {self.cut: rows}, form.bias, before)
        own_box = box if len(box.lower) == 1 else box.select(domains)
        return LinearForm(rest.coefficients, rest.bias, rest.debt + form.debt).minimum(own_box)

    def _spread(self, rows: Tensor, shape: Shape, tiles: Tensor) -> Tensor:
        """Rows `[n, k, *box]` over boxes of node `cut` as rows over the whole of it."""
        whole = rows.new_zeros(*rows.shape[:2], math.prod(shape))
        index = self.starts[tiles, 0].unsqueeze(1) + _offsets(shape, rows.shape[2:]).to(rows.device)
        whole.scatter_(2, index.unsqueeze(1).expand(-1, rows.shape[1], -1), rows.flatten(2))
        return whole.reshape(*rows.shape[:2], *shape)


def _offsets(shape: Shape, box: Sequence[int]) -> Tensor:
    """Flat positions of a box's elements in a tensor of `shape`, counted from that of its first."""
    return torch.arange(math.prod(shape)).reshape(shape)[tuple(slice(size) for size in box)].flatten()


def patchwork(program: Program, source: int, undecided: Tensor, most: float = math.inf) -> list[tuple[Patch, Tensor]]:
    """The tiles in which to bound the elements `undecided` `[domains, n]` of a node, as patches with their share
    `[domains * tiles, elements]` of these elements; none where whole passes are not much dearer. `most`: operations
    for which there is time, if tiles have to be looked for."""
    whole = 2 * int(undecided.sum()) * row_price(program.graph, source, program.inside)
    if whole < FEW or not _worth_looking(program, source, whole, most):
        return []
    shares = [(patch, undecided[:, patch.positions].flatten(0, 1)) for patch in patches_of(program, source)]
    work = [(patch, mask) for patch, mask in shares if bool(mask.any())]
    price = sum(patch.price(int(mask.sum()), int(mask.any(1).sum())) for patch, mask in work)
    return work if price <= WORTH * whole else []


def _worth_looking(program: Program, source: int, whole: float, most: float) -> bool:
    """Whether the tiles of this node are known, or finding them takes at most `most` operations and as much as whole
    passes for it have taken so far, with this one of `whole`: then it costs at most twice of what it would if one knew
    what is still to come."""
    if (source, False) in program.patches:
        return True
    program.untiled[source] = program.untiled.get(source, 0.0) + whole
    return looking_price(program.graph, source) <= min(program.untiled[source], most)


def patches_of(program: Program, source: int) -> tuple[Patch, ...]:
    """The cheapest tiles of a node for batches of domains, by structure; none where none are cheaper than the whole."""
    if (source, False) not in program.patches:
        program.patches[source, False] = OPEN_SHARE, _cheapest(program, source, OPEN_SHARE, False)
    return program.patches[source, False][1]


def lone_patches(
    program: Program, precise: Program, source: int, share: float
) -> tuple[tuple[Patch, ...], tuple[Patch, ...]]:
    """The cheapest ones if each is bounded by itself and this `share` of the elements is undecided, as parts of either
    program; they serve for similar shares, too, so that most boxes of a search have the same."""
    key = source, True
    chosen = program.patches[key][0] if key in program.patches else 0.0
    if not chosen / SIMILAR <= share <= chosen * SIMILAR:
        chosen = share
    for own in (program, precise):
        if key not in own.patches or own.patches[key][0] != chosen:
            own.patches[key] = chosen, _cheapest(own, source, chosen, True)
    return program.patches[key][1], precise.patches[key][1]


def _cheapest(program: Program, source: int, share: float, alone: bool) -> tuple[Patch, ...]:
    fields = best_tiles(program.graph, source, node_price(program.device), share, alone)
    return () if fields is None else _patches(program, fields)


def _patches(program: Program, fields: Fields) -> tuple[Patch, ...]:
    first, kind = fields.structures
    return tuple(_patch(program, fields, np.flatnonzero(kind == number)) for number in range(len(first)))


def _patch(program: Program, fields: Fields, tiles: np.ndarray) -> Patch:
    """From all tiles of one structure."""
    graph, boxes = program.graph, boxed(fields, tiles)
    nodes, origins = boxes.graph.nodes, boxes.origins
    restricted: list[Affine | None] = []
    for node, origin, places in zip(nodes, origins, boxes.places, strict=True):
        absolute: Affine | None = node.op if isinstance(node.op, Crop) else None
        if places is not None:
            whole = program.absolute[origin]
            assert isinstance(whole, Local)
            absolute = whole.restricted(*places).to(program.dtype, program.device)
        restricted.append(absolute)
    steps = [_strides(graph.nodes[origin].shape) for origin in origins]
    flat = np.stack([start @ step for start, step in zip(boxes.starts, steps, strict=True)], 1)
    shape = graph.nodes[fields.source].shape
    return Patch(
        Part(boxes.graph.to(program.dtype, program.device), program.dtype, program.device, tuple(restricted)),
        fields.cut,
        origins,
        torch.from_numpy(flat).to(program.device),
        torch.from_numpy(flat[:, -1:]).to(program.device) + _offsets(shape, nodes[-1].shape).to(program.device),
        float(fields.row[tiles[0]]),
        node_price(program.device) * len(nodes),
    )


def _strides(shape: Shape) -> np.ndarray:
    return np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], dtype=np.int64)
