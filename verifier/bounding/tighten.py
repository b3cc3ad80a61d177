"""Optimised bounds of the neurons themselves, at the root of a search: each undecided end is a row with multipliers of
its own (alpha-CROWN with separate slopes for every start row, Xu 2021)."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from verifier.bounding.interval import node_interval
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import Objective, certain_bound, initial_multipliers, optimise
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.settings import AscentSettings

FLOATS_PER_ELEMENT = 12  # alive for each element of each node and row during an ascent


def tighten_nodes(
    program: Program, box: Interval, found: NodeBounds, settings: AscentSettings, seconds: float, memory: int
) -> NodeBounds:
    """Better bounds of the nodes over one domain, `box` `[1, *input]`, in about `seconds`, and `memory` bytes.

    Nodes are visited in order, so that each profits from those before it; the time left is dealt out by the operations
    that the undecided elements of each node will take."""
    work = {source: _undecided(program, source, found) for source in program.splittable}
    costs = {source: float(mask.sum()) * program.operations_to(source) for source, mask in work.items()}
    end = time.monotonic() + seconds
    better = NodeBounds()
    for position, node in enumerate(program.graph.nodes[: program.graph.output + 1]):
        if isinstance(node.op, Elementwise):
            for source in dict.fromkeys(node.inputs):
                now = time.monotonic()
                share = costs.pop(source, 0.0) / max(1.0, sum(costs.values()) + costs.get(source, 0.0))
                share = min(1.0, share) if costs else 1.0
                mask = _undecided(program, source, NodeBounds({**found.intervals, **better.intervals}))
                if program.bent[source] and bool(mask.any()) and now < end:
                    deadline = now + (end - now) * share
                    _tighten(program, box, better, source, mask, settings, deadline, memory)
            better.planes[position] = node.op.relax(*(better.intervals[source] for source in node.inputs))
        own = node_interval(program, position, better.intervals, box)
        better.intervals[position] = own.intersect(found.intervals[position])
    return better


def _undecided(program: Program, source: int, found: NodeBounds) -> Tensor:
    """Elements `[n]` of a node that some reader cannot decide yet."""
    undecided = torch.zeros(program.graph.nodes[source].size, dtype=torch.bool, device=program.device)
    for reader in program.graph.consumers[source]:
        node = program.graph.nodes[reader]
        if isinstance(node.op, Elementwise):
            undecided |= flat(node.op.unstable(*(found.intervals[s] for s in node.inputs)))[0]
    return undecided


def _tighten(
    program: Program,
    box: Interval,
    found: NodeBounds,
    source: int,
    undecided: Tensor,
    settings: AscentSettings,
    deadline: float,
    memory: int,
) -> None:
    """Optimised bounds of the `undecided` elements `[n]` of a node, into `found`."""
    node, old = program.graph.nodes[source], found.intervals[source]
    lower, upper = flat(old.lower)[0].clone(), flat(old.upper)[0].clone()
    elements = sum(each.size for each in program.graph.nodes[: source + 1])
    step = max(1, memory // (elements * FLOATS_PER_ELEMENT * program.number_size) // 2)
    chunks = undecided.nonzero().flatten().split(step)
    for number, index in enumerate(chunks):
        now = time.monotonic()
        if now > deadline:
            break
        rows = torch.zeros((2, len(index), node.size), dtype=program.dtype, device=program.device)
        rows[0].scatter_(1, index.unsqueeze(1), 1.0)
        rows[1].scatter_(1, index.unsqueeze(1), -1.0)
        objective = Objective({source: rows.reshape(-1, 1, *node.shape)}, rows.new_zeros(2 * len(index), 1))
        start = initial_multipliers(program, found, objective)
        share = now + (deadline - now) / (len(chunks) - number)
        optimum = optimise(program, box, found, objective, start, settings, share)
        bound = certain_bound(program, box, found, objective, optimum.multipliers).minimum(box)
        low, high = bound.reshape(2, -1)
        lower[index], upper[index] = torch.fmax(low, lower[index]), torch.fmin(-high, upper[index])
    found.intervals[source] = Interval(lower.reshape(old.shape), upper.reshape(old.shape))
