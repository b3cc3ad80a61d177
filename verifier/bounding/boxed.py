"""Boxes of a network's nodes as a network of their own: what a part of one node depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verifier.bounding.fields import Fields
from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.regions import Local, Regions, part
from verifier.ops import Crop, LeakyRelu


@dataclass(frozen=True, eq=False)
class Boxed:
    """`graph`: from the box of a cut to the box of another node. By its nodes, `origins`: the node of the large graph
    of which it is a box, `starts` `[tiles, axes]` where the boxes begin, and `places`: where an operator was
    restricted, the box of one tile, and what it reads."""

    graph: Graph
    origins: tuple[int, ...]
    starts: tuple[np.ndarray, ...]
    places: tuple[tuple[Regions, tuple[Regions, ...]] | None, ...]


def boxed(fields: Fields, tiles: np.ndarray) -> Boxed:
    """From tiles `[count]` of one structure."""
    graph = fields.graph
    boxes = {position: box.select(tiles) for position, box in fields.boxes.items()}
    nodes = [Node("x", Input(), (), boxes[fields.cut].shape())]
    origins, starts = [fields.cut], [boxes[fields.cut].start]
    places: list[tuple[Regions, tuple[Regions, ...]] | None] = [None]
    place = {fields.cut: 0}

    def add(
        node: Node, origin: int, start: np.ndarray, restricted: tuple[Regions, tuple[Regions, ...]] | None = None
    ) -> int:
        nodes.append(node)
        origins.append(origin)
        starts.append(start)
        places.append(restricted)
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
            inputs.append(add(Node("", crop, (place[source],), crop.shape), source, read.start))
        if isinstance(node.op, Crop):  # what it reads is what it gives
            place[position] = inputs[0]
            continue
        op, restricted = node.op, None
        if isinstance(op, Local):
            restricted = box.select(slice(1)), tuple(read.select(slice(1)) for read in reads)
            op = op.restricted(*restricted)
        elif isinstance(op, Constant):
            op = Constant(part(op.value, box))
        elif isinstance(op, LeakyRelu):
            op = LeakyRelu(part(op.slope, box))
        cropped = replace(node, op=op, inputs=tuple(inputs), shape=box.shape())
        place[position] = add(cropped, position, box.start, restricted)
    return Boxed(Graph(tuple(nodes), len(nodes) - 1), tuple(origins), tuple(starts), tuple(places))


def joined(before: tuple[Node, ...], start: tuple[int, ...], inner: Graph) -> tuple[Node, ...]:
    """The nodes `before`, and behind the last of them those of `inner`, which reads the box of it that begins at
    `start`."""
    cut, shape = len(before) - 1, before[-1].shape
    crop = Crop(start, inner.input_shape, shape)
    moved = [replace(node, inputs=tuple(k + cut + 1 for k in node.inputs)) for node in inner.nodes[1:]]
    return (*before, Node("", crop, (cut,), crop.shape), *moved)
