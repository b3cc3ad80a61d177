"""Better bounds of the neurons themselves, node by node, at the root of a search.

`tighten_nodes` visits the nodes in order, so that each profits from those before it, and leaves the bounds of each to a
`Tightener`. The one here optimises every undecided end as a row with multipliers of its own (alpha-CROWN with separate
slopes for every start row, Xu 2021).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from verifier.bounding.dual import Dual, Objective
from verifier.bounding.elements import picked
from verifier.bounding.engine import Effort, carry, undecided_by
from verifier.bounding.interval import node_interval
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import initial_multipliers, optimise, precise_bound
from verifier.bounding.program import Program
from verifier.bounding.starts import Starts
from verifier.bounding.undecided import undecided_elements
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.settings import AscentSettings

MOST_SHARE = 0.5  # of the time left, which any node may have
FLOATS_PER_ELEMENT = 24  # alive for each element of each node and row during an ascent

Part = TypeVar("Part")
Result = TypeVar("Result")

Tightener = Callable[[NodeBounds, int, Tensor, float], tuple[Tensor, Tensor]]
"""Takes what is known of the nodes up to one, its position, the flat positions `[m]` of undecided elements of it, and
when (`time.monotonic()`) to stop; gives lower and upper bounds of these elements, `[m]` each, better or not."""


def tighten_nodes(
    program: Program, box: Interval, found: NodeBounds, tightener: Tightener, deadline: float
) -> NodeBounds:
    """Better bounds of the nodes over one domain, `box` `[1, *input]`, by about `deadline`.

    Copies of a number are bounded once. Of the time left a node gets its share of the operations that backward passes
    of undecided elements take, and half of it if that is more: the first ones are cheap, and all others profit."""
    origins = dict.fromkeys(program.origins[source] for source in program.splittable)
    left = {k: float(_undecided(program, k, found).sum()) * program.operations_to(k) for k in origins}
    better = NodeBounds()
    for position, node in enumerate(program.graph.nodes[: program.graph.output + 1]):
        if isinstance(node.op, Elementwise):
            for origin in dict.fromkeys(program.origins[source] for source in node.inputs):
                now, rest = time.monotonic(), sum(left.values())
                cost = left.pop(origin, 0.0)  # by its first reader
                index = _undecided(program, origin, NodeBounds({**found.intervals, **better.intervals})).nonzero()
                if cost and program.bent[origin] and len(index) and now < deadline:
                    end = now + (deadline - now) * max(cost / rest, MOST_SHARE)
                    _improve(better, origin, index.flatten(), tightener, end)
                    carry(program, better, origin, box)
            better.planes[position] = node.op.relax(*(better.intervals[source] for source in node.inputs))
        own = node_interval(program, position, better.intervals, box)
        better.intervals[position] = own.intersect(found.intervals[position])
    return better


def _improve(found: NodeBounds, source: int, index: Tensor, tightener: Tightener, deadline: float) -> None:
    old = found.intervals[source]
    low, high = tightener(found, source, index, deadline)
    lower, upper = flat(old.lower)[0].clone(), flat(old.upper)[0].clone()
    lower[index], upper[index] = torch.fmax(low, lower[index]), torch.fmin(high, upper[index])
    found.intervals[source] = Interval(lower.reshape(old.shape), upper.reshape(old.shape))


def _undecided(program: Program, origin: int, found: NodeBounds) -> Tensor:
    """Elements `[n]` of a node of which some reader, of it or of a copy, cannot decide what it makes of them."""
    mask = torch.zeros(program.graph.nodes[origin].size, dtype=torch.bool, device=program.device)
    sources = (origin, *program.copies[origin])
    for reader in dict.fromkeys(reader for source in sources for reader in program.graph.consumers[source]):
        if isinstance(program.graph.nodes[reader].op, Elementwise) and reader <= program.graph.output:
            mask = mask | undecided_by(program, found, reader, origin, Effort())[0]
    return mask


def optimised_ends(
    program: Program, precise: Program, box: Interval, settings: AscentSettings, memory: int, starts: Starts
) -> Tightener:
    """Both ends of each element, as rows whose slopes are optimised, in at most `memory` bytes. What they prove is
    found in double precision, by `precise`: one backward pass more, and rounding costs nothing. `starts`: slopes
    that served over the last box, which are where an ascent goes on, and is soon done."""

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        objective = both_ends(program, source, index)
        undecided = undecided_elements(program, found)
        neurons = undecided.neurons(found)
        dual = Dual(undecided, box, neurons, objective)
        start = initial_multipliers(undecided, neurons, objective)
        known = starts.fill(source, index, undecided, start)
        steps = replace(settings, iterations=min(settings.again, settings.iterations)) if known else settings
        optimum = optimise(dual, start, steps, deadline)
        starts.keep(source, index, undecided, optimum.multipliers)
        exact = both_ends(precise, source, index)
        bound = precise_bound(precise, box, found, undecided.index, exact, optimum.multipliers)
        lower, upper = bound.reshape(2, -1)
        return lower, -upper

    elements = FLOATS_PER_ELEMENT * program.number_size
    return in_chunks(lambda source: memory // (program.up_to(source).graph.size * elements) // 2, tighten)


def in_chunks(most: Callable[[int], int], tightener: Tightener) -> Tightener:
    """At most `most(source)` elements of a node at once, each lot with its share of the time."""

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        chunks = index.split(max(1, most(source)))
        ends, first = Interval.unbounded(index.shape, found.intervals[source].lower), 0
        one = lambda chunk, until: tightener(found, source, chunk, until)  # noqa: E731
        for chunk, (lower, upper) in shared_out(chunks, [len(chunk) for chunk in chunks], one, deadline):
            here = slice(first, first + len(chunk))
            ends.lower[here], ends.upper[here] = lower, upper
            first += len(chunk)
        return ends.lower, ends.upper

    return tighten


def shared_out(
    parts: Sequence[Part], sizes: Sequence[int], work: Callable[[Part, float], Result], deadline: float
) -> Iterator[tuple[Part, Result]]:
    """Each of the parts, and what `work` makes of it by a deadline of its own: of the time that is left its share by
    `sizes`. Ends with the time."""
    left = sum(sizes)
    for part, size in zip(parts, sizes, strict=True):
        now = time.monotonic()
        if now > deadline:
            return
        yield part, work(part, now + (deadline - now) * size / left)
        left -= size


def in_order(weights: dict[int, Tensor], tightener: Tightener) -> Tightener:
    """The same, given the elements with the largest weights `[size]`, by node, first."""

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        order = weights[source][index].argsort(descending=True)
        low, high = tightener(found, source, index[order], deadline)
        back = order.argsort()
        return low[back], high[back]

    return tighten


def only(chosen: dict[int, Tensor], tightener: Tightener) -> Tightener:
    """The same for the elements in `chosen` alone, by node a mask `[size]`."""

    def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
        ends = Interval.unbounded(index.shape, found.intervals[source].lower)
        some = chosen[source][index].nonzero().flatten()
        if len(some):
            ends.lower[some], ends.upper[some] = tightener(found, source, index[some], deadline)
        return ends.lower, ends.upper

    return tighten


def both_ends(program: Program, source: int, index: Tensor) -> Objective:
    """`2 m` rows for the lower ends of the elements `index` `[m]` of a node, then for their upper ends."""
    ends = picked(program, source, index.unsqueeze(0)).both_sides
    return Objective({ends.start: ends.rows[0].unsqueeze(1)}, ends.offset[0].unsqueeze(1), ends.exact)
