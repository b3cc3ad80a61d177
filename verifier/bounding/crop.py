"""Backward bounds of a convolutional neuron need only its receptive field: the network cut down to it, as a graph.

A node's positions are divided into tiles. Walking back from a tile gives the box of every earlier node that it depends
on (the hull, where several nodes read one), and the operators restricted to these boxes are a small network whose
bounds are those of the large one. Tiles whose small networks are equal (all that touch no border) are a batch of
domains of one program, so that the backward pass runs on them as on any other.

The walk ends at the input, or at the one node before the tile of which no box can be followed further (behind a dense
layer, say): the `cut`. From there rows go on in the whole network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Elementwise
from verifier.core.regions import Local, Regions, Shape, distinct, part, part_numbers
from verifier.core.stacked import map_tensors
from verifier.ops import Crop

WORTH = 0.5  # tiles are used where they take at most this share of the operations of whole passes
LOCAL = 0.9  # an axis is divided where single positions along it take at most this share of the operations
OPEN_SHARE = 0.25  # of a node's elements, supposed to be undecided
GATHERED = 30.0  # operations that picking one element of a tile's bounds is worth
PASS = 2e7  # operations that a pass is worth, however few its rows
MOST_TILES = 4096
FLOATS_PER_ELEMENT = 6  # bounds and planes of an element of a node


@dataclass(frozen=True, eq=False)
class Part(Program):
    """A program whose |L| are those of a larger one, restricted."""

    restricted: tuple[Affine | None, ...]

    @cached_property
    def absolute(self) -> tuple[Affine | None, ...]:
        return self.restricted


@dataclass(frozen=True, eq=False)
class Patch:
    """Tiles of one structure, of node `source` of a program.

    `program`: from the box of node `cut` that a tile depends on to the tile. By its nodes, `origins`: the node of the
    large program, of `shapes`, of which it is a box, and `starts` `[tiles, nodes]` where the box begins (a flat
    position). `positions` `[tiles, elements]` of the tile's elements in the source."""

    program: Part
    cut: int
    origins: tuple[int, ...]
    starts: Tensor
    positions: Tensor

    def bounds(self, found: NodeBounds, domains: Tensor, tiles: Tensor) -> NodeBounds:
        """What a backward pass over tiles `tiles` `[n]` of domains `domains` `[n]` needs."""
        graph = self.program.graph
        crossed = {s for node in graph.nodes if isinstance(node.op, Affine) for s in node.inputs} | {0}
        take = lambda value, place: self._boxes(value, place, domains, tiles)  # noqa: E731
        first = lambda place, tensors: take(tensors[0], place)  # noqa: E731
        bounds = NodeBounds()
        for place in sorted(crossed):
            old = found.intervals[self.origins[place]]
            bounds.intervals[place] = Interval(take(old.lower, place), take(old.upper, place))
        for place, node in enumerate(graph.nodes):
            if isinstance(node.op, Elementwise):
                planes = found.planes[self.origins[place]]
                bounds.planes[place] = map_tensors(partial(first, place), [planes])
        return bounds

    def _boxes(self, value: Tensor, place: int, domains: Tensor, tiles: Tensor) -> Tensor:
        """`[n, *box]` from `value` `[batch, *shape]` of the origin; `[1, *box]` where it is the same for all."""
        box, shape = self.program.graph.nodes[place].shape, tuple(value.shape[1:])
        if box == shape and len(value) == 1:
            return value
        if len(value) == 1:
            domains = torch.zeros_like(domains)
        if box == shape:
            return value[domains]
        value = value.contiguous()
        places = value[0].numel() - sum((n - 1) * step for n, step in zip(box, value.stride()[1:], strict=True))
        boxes = value.as_strided((len(value), places, *box), (value.stride(0), 1, *value.stride()[1:]))
        return boxes[domains, self.starts[tiles, place]]

    def operations(self, program: Program) -> float:
        """To take one row back to the input."""
        return self.program.operations_to(self.program.graph.output) + program.operations_to(self.cut)

    def floats(self, program: Program) -> tuple[int, int]:
        """Numbers at the widest node that a row crosses, and of all bounds that a tile takes."""
        widest = max(node.size for node in (*self.program.graph.nodes, *program.graph.nodes[: self.cut]))
        return widest, self.program.graph.size * FLOATS_PER_ELEMENT

    def minimum(
        self, program: Program, found: NodeBounds, box: Interval, domains: Tensor, tiles: Tensor, rows: Tensor
    ) -> Tensor:
        """Lower bounds `[n, k]` of `rows` `[n, k, *tile]` over tiles `tiles` `[n]` of domains `domains` `[n]`; `found`
        and `box` are those of the whole `program`."""
        own = self.bounds(found, domains, tiles)
        bias = torch.zeros(rows.shape[:2], dtype=rows.dtype, device=rows.device)
        form = backward(self.program, {self.program.graph.output: rows}, bias, own.intervals, own.planes)
        if self.cut == 0:
            take = lambda value: self._boxes(value, 0, domains, tiles)  # noqa: E731
            return form.minimum(Interval(take(box.lower), take(box.upper)))
        before = NodeBounds(
            {k: v for k, v in found.intervals.items() if k <= self.cut},
            {k: v for k, v in found.planes.items() if k <= self.cut},
        ).select(domains)
        start = self._spread(form.coefficients, program.graph.nodes[self.cut].shape, tiles)
        rest = backward(program, {self.cut: start}, form.bias, before.intervals, before.planes)
        return LinearForm(rest.coefficients, rest.bias, rest.debt + form.debt).minimum(
            box if len(box.lower) == 1 else box.select(domains)
        )

    def _spread(self, rows: Tensor, shape: Shape, tiles: Tensor) -> Tensor:
        """Rows `[n, k, *box]` over boxes of node `cut` as rows over the whole of it."""
        whole = rows.new_zeros(*rows.shape[:2], math.prod(shape))
        index = self.starts[tiles, 0].unsqueeze(1) + _offsets(shape, rows.shape[2:]).to(rows.device)
        whole.scatter_(2, index.unsqueeze(1).expand(-1, rows.shape[1], -1), rows.flatten(2))
        return whole.reshape(*rows.shape[:2], *shape)


def _offsets(shape: Shape, box: Sequence[int]) -> Tensor:
    """Flat positions of a box's elements in a tensor of `shape`, counted from that of its first."""
    return torch.arange(math.prod(shape)).reshape(shape)[tuple(slice(size) for size in box)].flatten()


def patches(program: Program, source: int) -> tuple[Patch, ...]:
    """The tiles in which to bound node `source`; none where whole passes are not much dearer."""
    if source not in program.patches:
        program.patches[source] = _best_patches(program, source)
    return program.patches[source]


def _best_patches(program: Program, source: int) -> tuple[Patch, ...]:
    """Of tiles of several sizes those that take the fewest operations."""
    graph = program.graph
    shape = graph.nodes[source].shape
    whole = _follow(graph, source, Regions.whole(shape, 1))
    if whole is None or math.prod(shape) < 2:
        return ()
    axes = [axis for axis in range(len(shape)) if _is_local(program, source, axis, whole)]
    if not axes:
        return ()
    best, least = None, WORTH * _price(program, whole)
    for exponent in range(max(shape[axis] for axis in axes).bit_length()):
        tiles = _tiles(shape, axes, 1 << exponent)
        if len(tiles.start) > MOST_TILES:
            continue
        fields = _follow(graph, source, tiles)
        if fields is None:
            continue
        price = _price(program, fields)
        if price < least:
            best, least = fields, price
    return () if best is None else _patches(program, best)


@dataclass(frozen=True, eq=False)
class _Fields:
    """What tiles of node `source` depend on: by node `boxes`, and `reads`, those that it reads of each input."""

    graph: Graph
    source: int
    cut: int
    boxes: dict[int, Regions]
    reads: dict[int, tuple[Regions, ...]]

    @cached_property
    def inner(self) -> list[int]:
        """The nodes behind the cut."""
        return sorted(position for position in self.boxes if position != self.cut)

    @cached_property
    def structures(self) -> tuple[np.ndarray, np.ndarray]:
        """A tile of each structure, and the structure of each tile."""
        parts = [box.size for box in self.boxes.values()]
        for position in self.inner:
            node, box, reads = self.graph.nodes[position], self.boxes[position], self.reads[position]
            if isinstance(node.op, Local):
                parts.append(node.op.phase(box, reads))
            elif isinstance(node.op, Constant):
                parts.append(part_numbers(node.op.value, box))
            for source, read in zip(node.inputs, reads, strict=True):
                parts += [read.size, read.start - self.boxes[source].start]
        return distinct(*parts)

    @cached_property
    def elements(self) -> np.ndarray:
        """Of all boxes of each tile together, `[tiles]`."""
        return sum((box.elements for box in self.boxes.values()), np.zeros(1))

    @cached_property
    def operations(self) -> np.ndarray:
        """To take one row back to the cut, `[tiles]`."""
        counts = [box * max(1, getattr(self.graph.nodes[k].op, "fan_in", 1)) for k, box in self._inner_elements()]
        return 2.0 * sum(counts, np.zeros(1))

    def _inner_elements(self) -> list[tuple[int, np.ndarray]]:
        return [(position, self.boxes[position].elements) for position in self.inner]


def _follow(graph: Graph, source: int, tiles: Regions) -> _Fields | None:
    """None where what the tiles depend on cannot be followed back to one node."""
    boxes: dict[int, Regions] = {source: tiles}
    reads: dict[int, tuple[Regions, ...]] = {}
    ends = []
    for position in range(source, -1, -1):
        if position not in boxes:
            continue
        node, read = graph.nodes[position], None
        if isinstance(node.op, Local):
            axes = list(node.op.kept_whole())
            boxes[position] = boxes[position].along(axes, 0, [node.shape[axis] for axis in axes])
            read = node.op.reads(boxes[position], [graph.nodes[s].shape for s in node.inputs])
        elif isinstance(node.op, Elementwise | Constant):
            read = (boxes[position],) * len(node.inputs)
        if read is None:
            ends.append(position)
            continue
        reads[position] = read
        for origin, box in zip(node.inputs, read, strict=True):
            boxes[origin] = boxes[origin].hull(box) if origin in boxes else box
    if len(ends) != 1 or ends[0] == source:
        return None
    return _Fields(graph, source, ends[0], boxes, reads)


def _price(program: Program, fields: _Fields) -> float:
    """Operations to bound a node tile by tile."""
    rows = 2 * OPEN_SHARE * fields.boxes[fields.source].elements
    each = fields.operations + program.operations_to(fields.cut)
    kinds = len(fields.structures[0])
    return float((rows * each).sum() + GATHERED * fields.elements.sum() + PASS * kinds)


def _is_local(program: Program, source: int, axis: int, whole: _Fields) -> bool:
    shape = program.graph.nodes[source].shape
    if shape[axis] == 1:
        return False
    fields = _follow(program.graph, source, _tiles(shape, [axis], 1))
    return fields is not None and float(fields.operations.mean()) <= LOCAL * float(whole.operations[0])


def _tiles(shape: Shape, axes: Sequence[int], size: int) -> Regions:
    """All tiles of at most `size` positions along each of `axes`."""
    starts = [range(0, length, size) if axis in axes else range(1) for axis, length in enumerate(shape)]
    start = np.array(list(itertools.product(*starts)), dtype=np.int64).reshape(-1, len(shape))
    reach = [size if axis in axes else length for axis, length in enumerate(shape)]
    return Regions(start, np.minimum(start + reach, shape))


def _patches(program: Program, fields: _Fields) -> tuple[Patch, ...]:
    first, kind = fields.structures
    return tuple(_patch(program, fields, np.flatnonzero(kind == number)) for number in range(len(first)))


def _patch(program: Program, fields: _Fields, tiles: np.ndarray) -> Patch:
    """From all tiles of one structure."""
    graph = program.graph
    boxes = {position: box.select(tiles) for position, box in fields.boxes.items()}
    nodes = [Node("x", Input(), (), boxes[fields.cut].shape())]
    restricted: list[Affine | None] = [None]
    origins, starts = [fields.cut], [boxes[fields.cut].start]
    place = {fields.cut: 0}

    def add(node: Node, absolute: Affine | None, origin: int, start: np.ndarray) -> int:
        nodes.append(node)
        restricted.append(absolute)
        origins.append(origin)
        starts.append(start)
        return len(nodes) - 1

    for position in fields.inner:
        node, box = graph.nodes[position], boxes[position]
        reads = tuple(read.select(tiles) for read in fields.reads[position])
        inputs = []
        for source, read in zip(node.inputs, reads, strict=True):
            held = boxes[source]
            if (read.size == held.size).all():
                inputs.append(place[source])
                continue
            crop = Crop(tuple((read.start - held.start)[0].tolist()), read.shape(), held.shape())
            inputs.append(add(Node("", crop, (place[source],), crop.shape), crop, source, read.start))
        op, absolute = node.op, program.absolute[position]
        if isinstance(op, Local):
            assert isinstance(absolute, Local)
            op, absolute = op.restricted(box, reads), absolute.restricted(box, reads)
        elif isinstance(op, Constant):
            op = Constant(part(op.value, box))
        cropped = replace(node, op=op, inputs=tuple(inputs), shape=box.shape())
        place[position] = add(cropped, absolute, position, box.start)
    steps = [_strides(graph.nodes[origin].shape) for origin in origins]
    flat = np.stack([start @ step for start, step in zip(starts, steps, strict=True)], 1)
    shape = graph.nodes[fields.source].shape
    return Patch(
        Part(Graph(tuple(nodes), len(nodes) - 1), program.dtype, program.device, tuple(restricted)),
        fields.cut,
        tuple(origins),
        torch.from_numpy(flat).to(program.device),
        torch.from_numpy(flat[:, -1:]).to(program.device) + _offsets(shape, nodes[-1].shape).to(program.device),
    )


def _strides(shape: Shape) -> np.ndarray:
    return np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], dtype=np.int64)
