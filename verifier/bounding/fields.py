"""What parts of a network a tile of a node depends on, found by walking back from it, and what bounds over it cost."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from verifier.core.graph import Constant, Graph, Node
from verifier.core.operator import Elementwise
from verifier.core.regions import Local, Regions, Shape, distinct, part_numbers
from verifier.ops import LeakyRelu, Near, Reshape, Select

OPEN_SHARE = 0.25  # of a node's elements, supposed to be undecided when the size of tiles is chosen for all domains
LOCAL = 0.9  # an axis is divided where single positions along it take at most this share of the operations
MOST_TILES = 4096
MOST_MOVED = 5e4  # elements of all moves of data before a node: to follow these takes time for each
MOST_ELEMENTS = 3e7  # of the boxes of all tiles together, when tiles are compared
# What other work is worth, in floating-point operations of convolutions (measured on one core):
TOUCHED = 60  # taking a row through one element of a node, whatever its operator
GATHERED = 200  # picking the bounds of one element for a tile
CROSSED = 5e6  # taking a pass through a node, however few its rows
CROSSED_ON_GPU = 1e9  # the same where operations are far faster, and starting them is not
FOLLOWED = 2e5  # looking for tiles, for each element of the moves of data before the node


@dataclass(frozen=True, eq=False)
class Fields:
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
            elif isinstance(node.op, LeakyRelu):
                parts.append(part_numbers(node.op.slope, box))
            for source, read in zip(node.inputs, reads, strict=True):
                parts += [read.size, read.start - self.boxes[source].start]
        return distinct(*parts)

    @cached_property
    def elements(self) -> np.ndarray:
        """Of all boxes of each tile together, `[tiles]`."""
        return sum((box.elements for box in self.boxes.values()), np.zeros(1))

    @cached_property
    def row(self) -> np.ndarray:
        """The price of taking a row back to the input, `[tiles]`."""
        inner = sum((self.boxes[k].elements * element_price(self.graph.nodes[k]) for k in self.inner), np.zeros(1))
        return inner + row_price(self.graph, self.cut)

    def price(self, crossed: float, share: float, alone: bool) -> float:
        """Of bounding a node of which this `share` is undecided, tile by tile, where taking a pass through a node costs
        `crossed`. `alone`: each tile has passes of its own, which it does not share with those of its structure."""
        rows = 2 * share * self.boxes[self.source].elements
        passes = len(rows) if alone else len(self.structures[0])
        return float((rows * self.row + GATHERED * self.elements).sum() + crossed * passes * len(self.boxes))

    def cuts(self) -> Iterator[Fields]:
        """These, and what is left of them where a node through which everything passes is made the cut: behind moves of
        data, which may differ from tile to tile."""
        yield self
        for cut in self.inner[:-1]:
            behind = [position for position in self.inner if position > cut]
            passed = all(s >= cut for position in behind for s in self.graph.nodes[position].inputs)
            if passed and isinstance(self.graph.nodes[cut].op, Reshape | Select):
                boxes = {position: box for position, box in self.boxes.items() if position >= cut}
                yield Fields(self.graph, self.source, cut, boxes, {k: self.reads[k] for k in behind})


def node_price(device: torch.device) -> float:
    """Of taking a pass through a node."""
    return CROSSED if device.type == "cpu" else CROSSED_ON_GPU


def element_price(node: Node) -> float:
    """Of taking a row through one element."""
    return 2 * max(1, getattr(node.op, "fan_in", 1)) + TOUCHED


def row_price(graph: Graph, position: int, unseen: Collection[int] = ()) -> float:
    """Of taking a row from a node back to the input, but for nodes that the pass does not see."""
    nodes = enumerate(graph.nodes[1 : position + 1], 1)
    return float(sum(node.size * element_price(node) for k, node in nodes if k not in unseen))


def looking_price(graph: Graph, source: int) -> float:
    """Of finding out which tiles of a node are best."""
    return FOLLOWED * _moved(graph, source)


def _moved(graph: Graph, source: int) -> int:
    return sum(node.size for node in graph.nodes[: source + 1] if isinstance(node.op, Reshape | Select))


def follow(graph: Graph, source: int, tiles: Regions) -> Fields | None:
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
        elif isinstance(node.op, Elementwise | Constant) and not isinstance(node.op, Near):  # a matrix is behind that
            read = (boxes[position],) * len(node.inputs)
        if read is None:
            ends.append(position)
            continue
        reads[position] = read
        for origin, box in zip(node.inputs, read, strict=True):
            boxes[origin] = boxes[origin].hull(box) if origin in boxes else box
    if len(ends) != 1 or ends[0] == source:
        return None
    return Fields(graph, source, ends[0], boxes, reads)


def best_tiles(graph: Graph, source: int, crossed: float, share: float, alone: bool) -> Fields | None:
    """Of tiles of all sizes, the cheapest by `Fields.price`; None where none is better than the whole node."""
    shape = graph.nodes[source].shape
    whole = follow(graph, source, Regions.whole(shape, 1)) if _moved(graph, source) <= MOST_MOVED else None
    if whole is None:
        return None
    best, axes = whole, _local_axes(whole)
    longest = max((shape[axis] for axis in axes), default=0)
    for exponent in range(longest.bit_length()):
        tiles = _tiles(shape, axes, 1 << exponent)
        fields = follow(graph, source, tiles) if _few(graph, source, tiles) else None
        if fields is not None:
            best = min((best, *fields.cuts()), key=lambda found: found.price(crossed, share, alone))
    return None if best is whole else best


def _few(graph: Graph, source: int, tiles: Regions) -> bool:
    """Whether what all these tiles depend on is little enough to be looked at."""
    count = len(tiles.start)
    example = follow(graph, source, tiles.select(slice(count // 2, count // 2 + 1)))
    return example is not None and count <= MOST_TILES and count * float(example.elements[0]) <= MOST_ELEMENTS


def _local_axes(whole: Fields) -> list[int]:
    """Axes along which single positions depend on less, most local ones first."""
    graph, source = whole.graph, whole.source
    shape = graph.nodes[source].shape
    axes: list[int] = []
    least = float(whole.row[0])
    while True:
        shares = {}
        for axis in (k for k in range(len(shape)) if shape[k] > 1 and k not in axes):
            fields = follow(graph, source, _middle(shape, [*axes, axis]))
            if fields is not None:
                shares[axis] = float(fields.row[0])
        if not shares or min(shares.values()) > LOCAL * least:
            return axes
        axes.append(min(shares, key=shares.__getitem__))
        least = shares[axes[-1]]


def _middle(shape: Shape, axes: Sequence[int]) -> Regions:
    """A single position in the middle of some axes, and everything along the others."""
    middle = np.array([shape[axis] // 2 for axis in axes])
    return Regions.whole(shape, 1).along(axes, middle, middle + 1)


def _tiles(shape: Shape, axes: Sequence[int], size: int) -> Regions:
    """All tiles of at most `size` positions along each of `axes`."""
    starts = [range(0, length, size) if axis in axes else range(1) for axis, length in enumerate(shape)]
    start = np.array(list(itertools.product(*starts)), dtype=np.int64).reshape(-1, len(shape))
    reach = [size if axis in axes else length for axis, length in enumerate(shape)]
    return Regions(start, np.minimum(start + reach, shape))
