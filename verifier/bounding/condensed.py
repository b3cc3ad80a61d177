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
from verifier.bounding.lines import Lines, decided_lines
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.bounding.undecided import elements_of
from verifier.core.flat import flat
from verifier.core.graph import Constant, Graph, Node
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise, Op
from verifier.core.rounding import up
from verifier.core.stacked import cast
from verifier.ops import Concat, Linear, Near, Reshape, Select

WORTH = 0.7  # of the price of a row: a condensed network that saves less is not made
DOUBLE = 2.0  # times as long do passes in double precision take
BYTES = 32  # of one weight, in both precisions, with its absolute value, and while it is made


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


def condensed(
    program: Program, precise: Program, found: NodeBounds, outputs: Tensor, effort: Effort
) -> Condensed | None:
    """The network of `program`, and `precise`, which is the same in double precision, over boxes with these bounds. Of
    its outputs those at the flat positions `outputs` `[m]` are right, the others are 0. None where it is not worth the
    effort."""
    if not len(outputs):
        return None
    lines = decided_lines(program, found)
    plan = best_plan(program, found, lines, len(outputs), effort.memory)
    now = time.monotonic()
    if plan is None or now + DOUBLE * seconds_of(plan.work, 1) > effort.deadline:
        return None
    return Maker(precise, found, lines, plan, effort).made(outputs)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a condensed network consists of. `cut` and `live` `[k]`: a node, and those of its elements that are not 0
    everywhere. `readers`: the nonlinear nodes behind it that have undecided elements, in order. `numbers` `[k]`: by
    origin of their arguments, the flat positions of its elements that are undecided arguments; not of the cut and of
    constants, which are there whole. `price`: of a row, `work`: operations for making it, `weights`: numbers in its
    matrices."""

    cut: int
    live: Tensor
    readers: tuple[int, ...]
    numbers: dict[int, Tensor]
    price: float
    work: float
    weights: int


def best_plan(program: Program, found: NodeBounds, lines: Lines, outputs: int, memory: int) -> Plan | None:
    """The cheapest one that `memory` (bytes) has room for, None if the network itself is hardly dearer."""
    possible = [plan for plan in plans(program, found, lines, outputs) if plan.weights * BYTES <= memory]
    best = min(possible, key=lambda plan: plan.price, default=None)
    worth = best is not None and best.price <= WORTH * row_price(program.graph, program.graph.output)
    return best if worth else None


def plans(program: Program, found: NodeBounds, lines: Lines, outputs: int) -> Iterator[Plan]:
    """For so many elements of the output, one with each cut."""
    graph, every = program.graph, _numbers(program, lines)
    operations = [program.operations_to(position) for position in range(graph.output + 1)]
    for cut in cuts(graph):
        live = _some((flat(found.intervals[cut].magnitude()) != 0).any(0).nonzero().flatten())
        readers = tuple(k for k in sorted(lines.undecided) if k > cut and len(lines.undecided[k]))
        numbers = {origin: index for origin, index in every.items() if origin > cut}
        price, work, state, weights = row_price(graph, cut), 0.0, len(live), 0
        left = dict(numbers)
        for reader in readers:
            for origin in {program.origins[source] for source in graph.nodes[reader].inputs} & set(left):
                count = len(left.pop(origin))
                weights += count * state
                price += count * 3 * TOUCHED + state * TOUCHED
                work += count * (operations[origin] - operations[cut])
            state += len(lines.undecided[reader])
            price += len(lines.undecided[reader]) * TOUCHED
        weights += outputs * state
        price += 2 * weights + graph.nodes[graph.output].size * TOUCHED
        work += outputs * (operations[graph.output] - operations[cut])
        yield Plan(cut, live, readers, numbers, price, work, weights)


def cuts(graph: Graph) -> Iterator[int]:
    """The nodes, but for the output, through which everything passes that is not constant."""
    least = graph.output
    for position in range(graph.output, -1, -1):
        node = graph.nodes[position]
        if position <= least and position < graph.output and not isinstance(node.op, Constant):
            yield position
        variable = [source for source in node.inputs if not isinstance(graph.nodes[source].op, Constant)]
        least = min([least, *variable])


def _numbers(program: Program, lines: Lines) -> dict[int, Tensor]:
    """By origin of their arguments, the elements that are undecided arguments of any node."""
    found: dict[int, list[Tensor]] = {}
    for reader, undecided in lines.undecided.items():
        for source in dict.fromkeys(program.graph.nodes[reader].inputs) if len(undecided) else ():
            origin = program.origins[source]
            if not _constant(program, origin):
                places = program.places_at(source, origin)[undecided] - 1
                found.setdefault(origin, []).append(places[places >= 0])
    return {origin: _some(torch.cat(parts).unique()) for origin, parts in found.items()}


def _some(index: Tensor) -> Tensor:
    """At least one element: there are no operators on none."""
    return index if len(index) else index.new_zeros(1)


def _origin(program: Program, cut: int, source: int) -> int:
    """Where the numbers of a node behind the cut are from, or the cut where they pass it unchanged."""
    origin = program.origins[source]
    return cut if origin < cut and not _constant(program, origin) else origin


def _constant(program: Program, position: int) -> bool:
    return isinstance(program.graph.nodes[position].op, Constant)


class Maker:
    """Makes the condensed network of a plan, node by node. `precise`: the network in double precision."""

    def __init__(self, precise: Program, found: NodeBounds, lines: Lines, plan: Plan, effort: Effort) -> None:
        self.program, self.lines, self.plan, self.effort = precise, lines, plan, effort
        # The planes are lines, not `simple` ones: so a walk charges for its errors on both sides.
        self.known = NodeBounds(cast(found.intervals, torch.float64), lines.planes)
        self.nodes = list(precise.graph.nodes[: plan.cut + 1])
        self.parts: dict[int, tuple[int, Tensor | None]] = {k: (k, None) for k in range(1, plan.cut + 1)}
        self.arguments: dict[int, int] = {}  # by origin, where its undecided elements are, or all of a constant
        # what rows are brought back to: elements of a node of the whole network, and where they are in this one
        self.state = [(plan.cut, plan.live, self._add("", self._of_cut(plan.live), (plan.cut,), len(plan.live)))]

    def made(self, outputs: Tensor) -> Condensed | None:
        """With these elements of the output; None where there is no time for it."""
        graph = self.program.graph
        for reader in self.plan.readers:
            node, index = graph.nodes[reader], self.lines.undecided[reader]
            sources = tuple(self._argument(source, index) for source in node.inputs)
            assert isinstance(node.op, Elementwise)
            place = self._add(node.name, node.op.elements(index, node.shape), sources, len(index))
            self.parts[place] = reader, index
            self.state.append((reader, index, place))
            if time.monotonic() > self.effort.deadline:
                return None
        value, node = self._affine(graph.output, outputs), graph.nodes[graph.output]
        index = torch.full((node.size,), -1, device=outputs.device)
        index[outputs] = torch.arange(len(outputs), device=outputs.device)
        last = self._add(node.name, Select(index.reshape(node.shape), (len(outputs),)), (value,), *node.shape)
        return Condensed(Graph(tuple(self.nodes), last), self.parts)

    def _add(self, name: str, op: Op, sources: tuple[int, ...], *shape: int) -> int:
        self.nodes.append(Node(name, op, sources, shape))
        return len(self.nodes) - 1

    def _of_cut(self, index: Tensor) -> Op:
        """Moves elements `index` `[k]` of the cut, -1 for a 0."""
        node = self.program.graph.nodes[self.plan.cut]
        every = torch.arange(node.size, device=index.device)
        return Reshape(node.shape, (node.size,)) if torch.equal(index, every) else Select(index, node.shape)

    def _argument(self, source: int, index: Tensor) -> int:
        """Elements `index` `[k]` of a node, as a node."""
        origin = _origin(self.program, self.plan.cut, source)
        places = self.program.places_at(source, origin)[index] - 1
        if origin == self.plan.cut:
            return self._add("", self._of_cut(places), (origin,), len(places))
        if origin not in self.plan.numbers:
            node = self.program.graph.nodes[origin]
            if origin not in self.arguments:
                self.arguments[origin] = self._add(node.name, node.op, (), *node.shape)
            return self._add("", Select(places, node.shape), (self.arguments[origin],), len(places))
        numbers = self.plan.numbers[origin]
        if origin not in self.arguments:
            self.arguments[origin] = self._affine(origin, numbers)
            self.parts[self.arguments[origin]] = origin, numbers
        if torch.equal(places, numbers):
            return self.arguments[origin]
        found = torch.searchsorted(numbers, places.clamp(min=0))
        moved = Select(torch.where(places < 0, -1, found), (len(numbers),))
        return self._add("", moved, (self.arguments[origin],), len(places))

    def _affine(self, source: int, index: Tensor) -> int:
        """Elements `index` `[k]` of a node, as a node."""
        known = [(index, place) for position, index, place in self.state if position <= source]
        rows = [self._rows(source, part) for part in index.split(most_rows(self.program, source, self.effort))]
        weight, bias, radius = (torch.cat(parts) for parts in zip(*rows, strict=True))
        sizes, places = tuple(len(own) for own, _ in known), tuple(place for _, place in known)
        state = self._add("", Concat(0, sizes), places, sum(sizes)) if len(places) > 1 else places[0]
        node = self.program.graph.nodes[source]
        value = self._add("", Linear(weight, bias), (state,), len(weight))
        return self._add(node.name, Near(radius), (value,), len(weight))

    def _rows(self, source: int, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of elements `index` `[k]` of a node: coefficients `[k, n]` over the state, constant terms and errors."""
        start = picked(self.program, source, index.unsqueeze(0), self.plan.cut)
        roundings = 0 if start.exact else 1
        walk = Walk(self.program, {start.start: start.rows}, start.offset, self.known, roundings, start.terms)
        if start.radius is not None:
            walk.account.owe(start.radius)
        known = {position: own for position, own, _ in self.state if position <= source}
        read = {position: start.rows.new_zeros(len(index), len(own)) for position, own in known.items()}
        for position in range(start.start, -1, -1):
            if position not in walk.pending:
                continue
            if position in known:
                own = known[position]
                reach = self.known.reach.largest(position, self.program.dtype).flatten()[own]
                read[position] = walk.read(position, own, reach)[0]
            if position == self.plan.cut:
                walk.pending.pop(position)
            else:
                self._owe_apart(walk, position)
                walk.cross(position)
        bias, debt = walk.balance()
        return torch.cat(list(read.values()), 1), bias[0], up(debt[0])

    def _owe_apart(self, walk: Walk, position: int) -> None:
        """For what the line of a node's elements is not known better."""
        apart = self.lines.apart.get(position)
        if apart is not None:
            walk.account.owe(flat(walk.pending[position].abs(), 2) @ apart)
