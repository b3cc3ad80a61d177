"""The elements of a network's nodes that bounds leave undecided, and the lines that all others are on.

Only undecided elements have slopes and multipliers worth optimising, and at most a few in ten are. So what an ascent
keeps, computes and steps is of these alone, gathered side by side as `[n, k]`; of the settled ones it needs a product
with a known slope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise, Planes


@dataclass(frozen=True, eq=False)
class Reader:
    """A nonlinear node. `index` `[k]`: the flat positions of its undecided elements, ascending, and `op`: the function
    of these alone. Of the others `slopes`, by argument, and `offset` (None for zero), `[n or 1, size]` each: the line
    that they are on."""

    op: Elementwise
    sources: tuple[int, ...]
    index: Tensor
    size: int
    slopes: tuple[Tensor, ...]
    offset: Tensor | None

    @property
    def whole(self) -> bool:
        """No element is settled."""
        return len(self.index) == self.size

    def gather(self, values: Tensor) -> Tensor:
        """The undecided ones `[n, k]` of values `[n, *shape]`."""
        return flat(values) if self.whole else flat(values).index_select(1, self.index)

    def scatter(self, whole: Tensor, values: Tensor) -> Tensor:
        """`whole` `[n, size]` (overwritten) with `values` `[n, k]` for the undecided ones."""
        if self.whole:
            return values
        return whole.scatter_(1, self.index.expand(len(values), -1), values) if len(self.index) else whole

    def select(self, domains: Tensor | slice) -> Reader:
        own = lambda value: value if len(value) == 1 else value[domains]  # noqa: E731
        offset = None if self.offset is None else own(self.offset)
        return replace(self, slopes=tuple(own(slope) for slope in self.slopes), offset=offset)


@dataclass(frozen=True, eq=False)
class Undecided:
    """`readers` by position. A node and its arguments, and all that share an argument, have the same undecided
    elements: those that some of them could not decide over some domain. `index` `[k]` by argument."""

    program: Program
    readers: dict[int, Reader]
    index: dict[int, Tensor]

    @property
    def count(self) -> int:
        """Undecided elements of arguments."""
        return sum(len(index) for index in self.index.values())

    def select(self, domains: Tensor | slice) -> Undecided:
        return replace(self, readers={k: reader.select(domains) for k, reader in self.readers.items()})

    def neurons(self, found: NodeBounds) -> dict[int, Interval]:
        """Of bounds of whole nodes those of the undecided arguments `[n or 1, k]`, by argument."""
        return {source: elements_of(found.intervals[source], index) for source, index in self.index.items()}


def undecided_elements(program: Program, found: NodeBounds) -> Undecided:
    """Of all nodes with planes in `found`."""
    readers, index = {}, {}
    for positions, mask in _groups(program, found):
        chosen = mask.nonzero().flatten()
        for position in positions:
            node = program.graph.nodes[position]
            assert isinstance(node.op, Elementwise)
            slopes, offset = _settled(found.planes[position], chosen)
            op = node.op.elements(chosen, node.shape)
            readers[position] = Reader(op, node.inputs, chosen, node.size, slopes, offset)
            index.update(dict.fromkeys(node.inputs, chosen))
    return Undecided(program, dict(sorted(readers.items())), dict(sorted(index.items())))


def _groups(program: Program, found: NodeBounds) -> list[tuple[list[int], Tensor]]:
    """Nonlinear nodes that share arguments, each group with a mask `[size]` of the elements that any cannot decide."""
    groups: list[tuple[set[int], list[int], Tensor]] = []
    for position in found.planes:
        sources, positions = set(program.graph.nodes[position].inputs), [position]
        mask = flat(program.unstable(position, found.intervals)).any(0)
        for group in [group for group in groups if group[0] & sources]:
            groups.remove(group)
            sources, positions, mask = sources | group[0], positions + group[1], mask | group[2]
        groups.append((sources, positions, mask))
    return [(positions, mask) for _, positions, mask in groups]


def _settled(planes: Planes, index: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Slopes and offset of a settled element: its planes are one, but for rounding. 0 for those at `index`."""
    clear = lambda value: flat(value).clone().index_fill_(1, index, 0.0)  # noqa: E731
    offset = None if planes.lower_intercept is None else clear(planes.lower_intercept)
    return tuple(clear(slope) for slope in planes.lower_slopes), offset


def elements_of(box: Interval, index: Tensor) -> Interval:
    """Bounds `[n, k]` of the elements at flat positions `index` `[k]`."""
    return Interval(flat(box.lower).index_select(1, index), flat(box.upper).index_select(1, index))


def finite(neurons: dict[int, Interval]) -> dict[int, Interval]:
    """Bounds between which all arithmetic stays finite, for where nothing is proved."""
    most = {k: torch.finfo(box.lower.dtype).max ** 0.5 for k, box in neurons.items()}
    return {k: Interval(box.lower.clamp(min=-most[k]), box.upper.clamp(max=most[k])) for k, box in neurons.items()}
