"""Inputs that a network reads only rounded to integers, and what it computes exactly from them alone.

Where f(x) = f(trunc x), an input stands for finitely many integers; positions and masks made of such inputs, too, take
finitely many values. A graph is cut there: `parts` compute these values, `rest` takes them as further inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.operator import Affine, Op
from verifier.frontend.simplify import simplify
from verifier.frontend.simplify.dead import drop_dead
from verifier.ops import Add, Ceil, Floor, Gather, Range, Round, Scale, ScatterND, Select, Slice, Truncate

ROUNDINGS = (Truncate, Floor, Ceil, Round)  # monotone, and done twice they are what they are done once
CHOICES = (*ROUNDINGS, Gather, Slice, Range, ScatterND)  # exact on all numbers
LARGEST = 2.0**24  # integers up to here are numbers of every type, and so are sums of two in double precision
SUMS = (Add, Scale)  # exact on such integers


@dataclass(frozen=True, eq=False)
class Separated:
    """`rounded`: by element of the flattened input, the operator that rounds it. `rest` takes the flattened input, and
    behind it the flattened outputs of `parts`, which depend on rounded inputs only."""

    rounded: dict[int, Op]
    parts: tuple[Graph, ...]
    rest: Graph

    def values(self, x: Tensor) -> Tensor | None:
        """The outputs of the parts at integers, `[n, *input]` in double precision, to `[n, values]`; None where any is
        not exact or not finite."""
        found = []
        for part in self.parts:
            values = part.evaluate_all(x)
            sums = (values[k] for k, node in enumerate(part.nodes) if isinstance(node.op, SUMS))
            if any(bool((value.abs() > LARGEST).any()) for value in sums):
                return None
            found.append(values[part.output].reshape(len(x), -1))
        every = torch.cat(found, 1)
        return every if bool(every.isfinite().all()) else None


def separate(graph: Graph, linear: Sequence[int] = ()) -> Separated | None:
    """The parts are as large as can be; None where there are none. `linear`: inputs that are needed as they are."""
    moved = _moved(graph)
    rounded = {i: op for i, op in _rounded(graph, moved).items() if i not in set(linear)}
    while True:
        exact = _exact(graph, moved, rounded)
        needed = _read(graph, moved, [k for k in range(len(graph.nodes)) if not exact[k]])
        if not rounded.keys() & needed:
            break
        rounded = {i: op for i, op in rounded.items() if i not in needed}
    read = {source for node, own in zip(graph.nodes, exact, strict=True) if not own for source in node.inputs}
    borders = sorted(source for source in read if exact[source] and graph.nodes[source].inputs)
    if exact[graph.output] or not borders:
        return None
    parts = tuple(drop_dead(Graph(graph.nodes, border)) for border in borders)
    return Separated(rounded, parts, _rest(graph, exact, borders))


def _moves(op: Op) -> bool:
    return isinstance(op, Affine) and op.fan_in == 0 and op.offset() is None


def _moved(graph: Graph) -> dict[int, Tensor]:
    """By node that only moves inputs, which ones: counted from 1, 0 for none; `[*shape]`."""
    count = torch.arange(1, graph.nodes[0].size + 1, dtype=torch.float64)
    found = {0: count.reshape(1, *graph.input_shape)}
    for position, node in enumerate(graph.nodes):
        if len(node.inputs) == 1 and node.inputs[0] in found and _moves(node.op):
            found[position] = node.op.evaluate(found[node.inputs[0]])
    return found


def _read(graph: Graph, moved: dict[int, Tensor], readers: Sequence[int]) -> set[int]:
    """The inputs that some nodes read, where they are more than moves; and those that are outputs."""
    sources = {s for k in readers if k not in moved for s in graph.nodes[k].inputs if s in moved}
    sources |= {graph.output} & moved.keys()
    return {int(i) - 1 for s in sources for i in moved[s].unique().tolist() if i}


def _rounded(graph: Graph, moved: dict[int, Tensor]) -> dict[int, Op]:
    """The inputs that are read by equal roundings only."""
    roundings = [k for k, node in enumerate(graph.nodes) if isinstance(node.op, ROUNDINGS)]
    found: dict[int, Op] = {}
    others = _read(graph, moved, [k for k in range(len(graph.nodes)) if k not in set(roundings)])
    for position in roundings:
        for i in _read(graph, moved, [position]):
            if found.setdefault(i, graph.nodes[position].op) != graph.nodes[position].op:
                others.add(i)
    return {i: op for i, op in found.items() if i not in others}


def _exact(graph: Graph, moved: dict[int, Tensor], rounded: dict[int, Op]) -> list[bool]:
    """Which nodes are constants, or depend on rounded inputs only, by exact operations."""
    exact: list[bool] = []
    integer: list[bool] = []
    for position, node in enumerate(graph.nodes):
        op, sources = node.op, node.inputs
        whole = all(integer[source] for source in sources)
        if position in moved:
            own = whole = False
        elif isinstance(op, Constant):
            own, whole = True, _whole(op)
        elif isinstance(op, ROUNDINGS) and sources[0] in moved:
            own = whole = _read(graph, moved, [position]) <= rounded.keys()
        else:
            exactly = isinstance(op, CHOICES) or _moves(op) or (isinstance(op, SUMS) and whole and _whole(op))
            own = exactly and all(exact[source] for source in sources)
        exact.append(own)
        integer.append(own and (whole or isinstance(op, ROUNDINGS)))
    return exact


def _whole(op: Op) -> bool:
    """Whether all its constants are integers, none of them large."""
    constants = [getattr(op, field.name) for field in fields(op)]  # type: ignore[arg-type]
    tensors = [value for value in constants if isinstance(value, Tensor)]
    return all(bool(((value == value.round()) & (value.abs() <= LARGEST)).all()) for value in tensors)


def _rest(graph: Graph, exact: list[bool], borders: list[int]) -> Graph:
    """The nodes that are not exact, from one vector of the inputs and the values at the borders."""
    total = sum(graph.nodes[position].size for position in (0, *borders))
    nodes, place, first = [Node(graph.nodes[0].name, Input(), (), (total,))], {}, 0
    for position in (0, *borders):
        node = graph.nodes[position]
        index = torch.arange(first, first + node.size).reshape(node.shape)
        place[position], first = len(nodes), first + node.size
        nodes.append(Node(node.name, Select(index, (total,)), (0,), node.shape, node.origin))
    for position, node in enumerate(graph.nodes):
        if position not in place and not (exact[position] and node.inputs):
            place[position] = len(nodes)
            nodes.append(replace(node, inputs=tuple(place[source] for source in node.inputs)))
    return simplify(Graph(tuple(nodes), place[graph.output]))
