"""A network over a set of boxes, condensed to the neurons that its bounds leave undecided.

Where bounds decide a neuron it is a straight line, and what lies between undecided neurons is affine: with u the
undecided ones of a node and z_1, ..., z_k all before them,

    u  =  f(W (x, z_1, ..., z_k) + c ± r).

Backward passes, as those that prove bounds, find the rows of W and c in double precision, and r from their errors: so
what holds for the condensed network holds for the real one over these boxes, roundings included. A pass through it is
one product of matrices for each node, over far fewer elements.

Where the input is large, W is larger than the first convolutions, which each see little of it. So the nodes up to a
`cut`, through which everything passes, stay as they are, and its elements take the place of x.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.backward import Walk
from verifier.bounding.elements import picked
from verifier.bounding.engine import Effort, bound_nodes, most_rows, seconds_of
from verifier.bounding.fields import TOUCHED, row_price
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.bounding.undecided import elements_of, grouped
from verifier.core.flat import flat
from verifier.core.graph import Constant, Graph, Node
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise, Op, Planes
from verifier.core.rounding import unit, up
from verifier.core.stacked import cast
from verifier.ops import Concat, Linear, Near, Reshape, Select

WORTH = 0.7  # of the price of a row: a condensed network that saves less is not made
STRAIGHT = 64  # roundings by which the planes of a decided element may differ
DOUBLE = 2.0  # times as long do passes in double precision take


@dataclass(frozen=True, eq=False)
class Condensed:
    """`graph`, in double precision. `parts`: by its nodes, a node of the real network and the flat positions in it of
    the elements `[k]` that it holds; None for all."""

    graph: Graph
    parts: dict[int, tuple[int, Tensor | None]]

    def bounds(self, program: Program, box: Interval, found: NodeBounds) -> NodeBounds:
        """Of the nodes of `program`, which is this network in some precision, over boxes `[n, *input]`, from those of
        the real one."""
        return bound_nodes(program, box, "interval", self.inherited(found.intervals))

    def inherited(self, known: dict[int, Interval]) -> dict[int, Interval]:
        """Bounds of nodes from bounds of real ones."""
        found = {}
        for position, (origin, index) in self.parts.items():
            if origin in known:
                own = known[origin] if index is None else elements_of(known[origin], index)
                found[position] = own.reshape(-1, *self.graph.nodes[position].shape)
        return found


@dataclass(frozen=True, eq=False)
class Lines:
    """What bounds decide, the same over all boxes: by nonlinear node, `planes` `[1, *shape]` that are one line where an
    element is decided, and 0 where it is not, and how far the element may be from that line, `apart` `[*shape]` (None
    for nowhere). `undecided` `[k]` by node, ascending; the nodes that share arguments have the same."""

    planes: dict[int, Planes]
    apart: dict[int, Tensor | None]
    undecided: dict[int, Tensor]


def decided_lines(program: Program, found: NodeBounds) -> Lines:
    """From bounds over some boxes. What the question does not read may be anything, so that it is taken to be 0."""
    masks, lines = {}, {}
    for position in found.planes:
        slopes, low, high, straight = _line(found.planes[position])
        unread = torch.zeros_like(straight)
        if position in program.read:
            unread = ~program.read[position].flatten()
        masks[position] = (flat(program.unstable(position, found.intervals)).any(0) | ~straight) & ~unread
        lines[position] = slopes, low, high, unread
    result = Lines({}, {}, {})
    for positions, mask in grouped(program.graph, masks):
        for position in positions:
            shape, (slopes, low, high, unread) = program.graph.nodes[position].shape, lines[position]
            clear = lambda value: torch.where(mask | unread, 0.0, value)  # noqa: B023, E731
            middle = clear(torch.where(low == high, low, low / 2 + high / 2)).reshape(1, *shape)
            apart = up(clear((high - low) * 0.5 + (low.abs() + high.abs()) * unit(low.dtype)), 4)
            own = tuple(clear(slope).reshape(1, *shape) for slope in slopes)
            level = bool((middle == 0).all())
            result.planes[position] = Planes(own, None if level else middle, own, middle)
            result.apart[position] = apart.reshape(shape) if bool((clear(high - low) != 0).any()) else None
            result.undecided[position] = mask.nonzero().flatten()
    return result


def _line(planes: Planes) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Over all domains: the slopes, lowest and highest intercept, and where this is a line, `[size]` each."""
    high = flat(planes.upper_intercept)
    low = torch.zeros_like(high) if planes.lower_intercept is None else flat(planes.lower_intercept)
    least, most = low.amin(0), high.amax(0)
    straight = most - least <= STRAIGHT * unit(torch.float32) * (least.abs() + most.abs())
    slopes = []
    for below, above in zip(planes.lower_slopes, planes.upper_slopes, strict=True):
        first = flat(below)[0]
        straight = straight & ((flat(below) == first) & (flat(above) == first)).all(0) & first.isfinite()
        slopes.append(first)
    return slopes, least, most, straight


def condensed(
    program: Program, precise: Program, box: Interval, found: NodeBounds, outputs: Tensor, effort: Effort
) -> Condensed | None:
    """The network of `program`, and `precise`, which is the same in double precision, over boxes `[n, *input]` with
    these bounds. Of its outputs those at the flat positions `outputs` `[m]` are right, the others are 0. None where it
    is not worth the effort."""
    lines = decided_lines(program, found)
    plan = best_plan(program, found, lines, len(outputs))
    now = time.monotonic()
    if plan is None or now + DOUBLE * seconds_of(plan.work, 1) > effort.deadline:
        return None
    wide = cast(lines.planes, torch.float64)
    known = NodeBounds(cast(found.intervals, torch.float64), wide)
    maker = _Maker(precise, known, lines, plan, effort)
    return maker.made(outputs)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a condensed network consists of. `cut` and `live` `[k]`: a node, and those of its elements that are not 0
    everywhere. `readers`: the nonlinear nodes behind it that have undecided elements, in order. `numbers` `[k]`: by
    origin of their arguments, the flat positions of its elements that are undecided arguments. `price`: of a row,
    `work`: operations for making it."""

    cut: int
    live: Tensor
    readers: tuple[int, ...]
    numbers: dict[int, Tensor]
    price: float
    work: float


def best_plan(program: Program, found: NodeBounds, lines: Lines, outputs: int) -> Plan | None:
    """The cheapest one, None if the network itself is hardly dearer."""
    plans = [_plan(program, found, lines, cut, outputs) for cut in _cuts(program.graph)]
    best = min(plans, key=lambda plan: plan.price)
    return best if best.price <= WORTH * row_price(program.graph, program.graph.output) else None


def _cuts(graph: Graph) -> Iterator[int]:
    """The nodes, but for the output, through which everything passes."""
    least = graph.output
    for position in range(graph.output, -1, -1):
        node = graph.nodes[position]
        if position <= least and position < graph.output and not isinstance(node.op, Constant):
            yield position
        variable = [source for source in node.inputs if not isinstance(graph.nodes[source].op, Constant)]
        least = min([least, *variable])


def _plan(program: Program, found: NodeBounds, lines: Lines, cut: int, outputs: int) -> Plan:
    graph = program.graph
    live = (flat(found.intervals[cut].magnitude()) != 0).any(0).nonzero().flatten()
    readers = tuple(k for k in sorted(lines.undecided) if k > cut and len(lines.undecided[k]))
    numbers = _numbers(program, lines, readers)
    price, work, state = row_price(graph, cut), 0.0, len(live)
    origins: set[int] = set()
    for reader in readers:
        for origin in {program.origins[source] for source in graph.nodes[reader].inputs} - origins:
            price += len(numbers[origin]) * (2 * state + 3 * TOUCHED) + state * TOUCHED
            work += len(numbers[origin]) * (program.operations_to(origin) - program.operations_to(cut))
            origins.add(origin)
        state += len(lines.undecided[reader])
        price += len(lines.undecided[reader]) * TOUCHED
    price += outputs * 2 * state
    return Plan(cut, live, readers, numbers, price, work)


def _numbers(program: Program, lines: Lines, readers: tuple[int, ...]) -> dict[int, Tensor]:
    """By origin of their arguments, the elements that are undecided arguments of any of the readers."""
    found: dict[int, list[Tensor]] = {}
    for reader in readers:
        for source in dict.fromkeys(program.graph.nodes[reader].inputs):
            places = program.places_at_origin(source)[lines.undecided[reader]] - 1
            found.setdefault(program.origins[source], []).append(places[places >= 0])
    return {origin: torch.cat(parts).unique() for origin, parts in found.items()}


class _Maker:
    """Makes the condensed network, node by node."""

    def __init__(self, precise: Program, known: NodeBounds, lines: Lines, plan: Plan, effort: Effort) -> None:
        self.program, self.known, self.lines, self.plan, self.effort = precise, known, lines, plan, effort
        self.nodes = list(precise.graph.nodes[: plan.cut + 1])
        self.parts: dict[int, tuple[int, Tensor | None]] = {k: (k, None) for k in range(1, plan.cut + 1)}
        self.read = [(plan.cut, plan.live)]  # the parts of real nodes that rows are brought back to, and where they are
        shape = precise.graph.nodes[plan.cut].shape
        every = len(plan.live) == precise.graph.nodes[plan.cut].size
        first: Op = Reshape(shape, (len(plan.live),)) if every else Select(plan.live, shape)
        self.places = [self._add("", first, (plan.cut,), len(plan.live))]
        self.arguments: dict[int, int] = {}  # by origin, where its undecided elements are

    def made(self, outputs: Tensor) -> Condensed | None:
        graph = self.program.graph
        for reader in self.plan.readers:
            node, index = graph.nodes[reader], self.lines.undecided[reader]
            sources = tuple(self._argument(source, index) for source in node.inputs)
            if time.monotonic() > self.effort.deadline:
                return None
            assert isinstance(node.op, Elementwise)
            place = self._add(node.name, node.op.elements(index, node.shape), sources, len(index))
            self.parts[place] = reader, index
            self.read.append((reader, index))
            self.places.append(place)
        value = self._affine(graph.output, outputs, graph.nodes[graph.output].size)
        shape = graph.output_shape
        last = self._add(graph.nodes[graph.output].name, Reshape(self.nodes[value].shape, shape), (value,), *shape)
        if time.monotonic() > self.effort.deadline:
            return None
        return Condensed(Graph(tuple(self.nodes), last), self.parts)

    def _add(self, name: str, op: Op, sources: tuple[int, ...], *shape: int) -> int:
        self.nodes.append(Node(name, op, sources, shape))
        return len(self.nodes) - 1

    def _argument(self, source: int, index: Tensor) -> int:
        """Elements `index` `[k]` of a node, as a node."""
        origin = self.program.origins[source]
        numbers = self.plan.numbers[origin]
        if origin not in self.arguments:
            self.arguments[origin] = self._affine(origin, numbers)
            self.parts[self.arguments[origin]] = origin, numbers
        places = self.program.places_at_origin(source)[index] - 1
        if torch.equal(places, numbers):
            return self.arguments[origin]
        found = torch.searchsorted(numbers, places.clamp(min=0))
        moved = Select(torch.where(places < 0, -1, found), (len(numbers),))
        return self._add("", moved, (self.arguments[origin],), len(places))

    def _affine(self, source: int, index: Tensor, size: int | None = None) -> int:
        """Elements `index` `[k]` of a node, as a node; of `size` elements in all if given, the others 0."""
        known = [number for number, (position, _) in enumerate(self.read) if position <= source]
        sizes = tuple(len(self.read[number][1]) for number in known)
        rows = [self._rows(source, part) for part in index.split(most_rows(self.program, source, self.effort))]
        weight, bias, radius = (torch.cat(parts) for parts in zip(*rows, strict=True))
        if size is not None:
            whole = lambda part: part.new_zeros(size, *part.shape[1:]).index_copy(0, index, part)  # noqa: E731
            weight, bias, radius = whole(weight), whole(bias), whole(radius)
        inputs = tuple(self.places[number] for number in known)
        state = self._add("", Concat(0, sizes), inputs, sum(sizes)) if len(inputs) > 1 else inputs[0]
        node = self.program.graph.nodes[source]
        value = self._add("", Linear(weight, bias), (state,), len(weight))
        return self._add(node.name, Near(radius), (value,), len(weight))

    def _rows(self, source: int, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of elements `index` `[k]` of a node: coefficients `[k, n]` over what is read, constant terms and errors."""
        reach, cut = self.known.reach, self.plan.cut
        start = picked(self.program, source, index.unsqueeze(0))
        walk = Walk(
            self.program, {start.start: start.rows}, start.offset, self.known, int(not start.exact), start.terms
        )
        if start.radius is not None:
            walk.account.owe(start.radius)
        found: dict[int, Tensor] = {}
        for position in range(start.start, -1, -1):
            if position not in walk.pending or (position < cut and position > 0 and not self._constant(position)):
                continue
            own = self.lines.undecided.get(position) if position > cut else None
            if position == cut:
                own = self.plan.live
            if own is not None and len(own):
                largest = reach.largest(position, self.program.dtype).flatten()[own]
                found[position] = walk.read(position, own, largest)[0]
            if position == cut:
                walk.pending.pop(cut)
            else:
                self._owe_apart(walk, position)
                walk.cross(position)
        bias, debt = walk.balance()
        none = bias.new_zeros(len(index), 0)
        parts = [
            found.get(position, none.new_zeros(len(index), len(own)))
            for position, own in self.read
            if position <= source
        ]
        return torch.cat(parts, 1), bias[0], up(debt[0])

    def _constant(self, position: int) -> bool:
        return isinstance(self.program.graph.nodes[position].op, Constant)

    def _owe_apart(self, walk: Walk, position: int) -> None:
        apart = self.lines.apart.get(position)
        if apart is not None:
            walk.account.owe(flat(walk.pending[position].abs(), 2) @ apart.double().flatten())
