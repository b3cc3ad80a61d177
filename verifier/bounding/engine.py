"""Bounds of every node a proof needs, by the cheapest means that serve.

Nodes are visited in order. Each gets the intersection of: what it inherits, its interval, its forward form (few inputs
only), and, where it feeds a nonlinear operator and is not yet decided, backward bounds of the undecided elements alone.
Asking the dear method only for these, gathered by index, is what makes a batch cheap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.contraction import contracted
from verifier.bounding.crop import Patch, patchwork
from verifier.bounding.elements import picked
from verifier.bounding.forward import input_form, node_form
from verifier.bounding.interval import node_interval
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Elementwise

METHODS = ("interval", "forward", "crown")
FORWARD_SHARE = 0.5  # forward forms are used where they cost at most this share of full backward bounds
CACHE = 4 << 20  # bytes of rows in one backward pass on a CPU: elementwise passes then run in cache, not in memory
PATCH_CACHE = 4 * CACHE  # the same for tiles, of which a pass has more other work
SMALLEST_BLOCK = 256  # rows, however wide: fewer make poor matrix products
PADDING = 1.5  # most rows of a block's fullest domain, over those of its emptiest
FLOATS_PER_ROW = 6  # copies of a row alive at once during a backward pass
FLOATS_PER_ELEMENT = 6  # bounds and planes of an element of a node that a tile brings along
PASS_OPERATIONS = 1e7  # floating-point operations that take as long as a pass does besides those of its rows
ROW_OPERATIONS = 2e10  # floating-point operations a second that backward passes reach, until more is known
BLOCK_OPERATIONS = 4e10  # most of them in one pass on a CPU, unless a single row takes more: the clock is read between


@dataclass(frozen=True, eq=False)
class Effort:
    """`memory`: bytes a pass may take. `deadline`: `time.monotonic()` after which no more backward passes start;
    one that is estimated to last beyond it is skipped (its neurons keep cheaper bounds). `only`: by node, a mask
    `[batch, n]` of the elements worth a backward pass; None for all."""

    memory: int = 1 << 30
    deadline: float = float("inf")
    only: dict[int, Tensor] | None = None


def bound_nodes(
    program: Program,
    box: Interval,
    method: str = "crown",
    inherited: dict[int, Interval] | None = None,
    effort: Effort | None = None,
) -> NodeBounds:
    """Bounds over each box of the batch; `box` `[batch, *input_shape]`, `inherited` bounds hold over it already."""
    found = NodeBounds()
    effort = effort or Effort()
    box = box.reshape(-1, *program.graph.input_shape)
    use_forms = method == "forward" or (method == "crown" and forward_pays(program, effort))
    for position, node in enumerate(program.graph.nodes[: program.graph.output + 1]):
        if isinstance(node.op, Elementwise):
            if method == "crown":
                for origin in dict.fromkeys(program.origins[source] for source in node.inputs):
                    _refine(program, found, position, origin, box, effort)
            arguments = tuple(found.intervals[source] for source in node.inputs)
            found.planes[position] = node.op.relax(*arguments)
        bounds = node_interval(program, position, found.intervals, box)
        if use_forms:
            found.forms[position] = (
                node_form(program, position, found.forms, found.intervals) if position else input_form(box)
            )
            if program.mixings[position] > 1:
                bounds = bounds.intersect(found.forms[position].interval())
        if inherited is not None and position in inherited:
            bounds = bounds.intersect(inherited[position])
        found.intervals[position] = bounds
        if method == "crown" and position in program.contractions:
            found.contracted[position] = contracted(program.contractions[position], found.intervals, node.shape)
    return found


def forward_pays(program: Program, effort: Effort) -> bool:
    """Whether forward forms are cheap beside backward bounds: they carry a row for each input, not for each neuron.

    All forms of a domain are alive at once, so one domain may take an eighth of the memory for them at most."""
    inputs = program.graph.nodes[0].size
    floats = (inputs + 1) * program.graph.size
    if floats * program.number_size > effort.memory // 8:
        return False
    widest = sum(program.graph.nodes[s].size for s in program.splittable) / max(1, len(program.splittable))
    return inputs <= FORWARD_SHARE * widest


def _refine(program: Program, found: NodeBounds, position: int, origin: int, box: Interval, effort: Effort) -> None:
    """Backward bounds, into `found`, of the elements of node `origin` that come as undecided arguments to `position`.

    Where many arguments are copies of one number, as in products of matrices, that is bounded once."""
    if not (program.bent[origin] or (program.mixings[origin] > 1 and not found.forms)):
        return
    undecided = undecided_by(program, found, position, origin, effort)
    if not bool(undecided.any()):
        return
    old = found.intervals[origin]
    lower, upper = flat(old.lower).clone(), flat(old.upper).clone()
    for domains, index, low, high in _passes(program, found, origin, undecided, box, effort):
        rows = domains.unsqueeze(1)
        lower[rows, index] = torch.fmax(low, lower[rows, index])  # an end that is not a number says nothing
        upper[rows, index] = torch.fmin(high, upper[rows, index])
    shape = program.graph.nodes[origin].shape
    found.intervals[origin] = Interval(lower.reshape(-1, *shape), upper.reshape(-1, *shape))
    carry(program, found, origin, box)


def carry(program: Program, found: NodeBounds, origin: int, box: Interval) -> None:
    """The bounds of node `origin` to the nodes, of those that have bounds, to which its numbers are moved."""
    for moved in program.copies[origin]:
        if moved in found.intervals:
            bounds = node_interval(program, moved, found.intervals, box)
            found.intervals[moved] = bounds.intersect(found.intervals[moved])


def undecided_by(program: Program, found: NodeBounds, position: int, origin: int, effort: Effort) -> Tensor:
    """Mask of the elements `[batch, n]` of node `origin` that node `position` cannot decide yet, as far as the effort
    allows for them."""
    node, mask = program.graph.nodes[position], program.unstable(position, found.intervals)
    total = torch.zeros_like(flat(found.intervals[origin].lower))
    for source in dict.fromkeys(node.inputs):
        if program.origins[source] == origin:
            allowed = mask if effort.only is None else mask & effort.only[source].reshape(mask.shape)
            total = total + flat(at_origin(program, source, allowed.to(total.dtype)))
    return total > 0


def at_origin(program: Program, source: int, values: Tensor) -> Tensor:
    """`values` `[n, *shape]` of the elements of a node, for the elements of its origin: those of copies add up."""
    for moved in reversed(program.moves_to(source)):
        op = program.graph.nodes[moved].op
        assert isinstance(op, Affine)
        (values,) = op.adjoint(values)
    return values


def _passes(
    program: Program, found: NodeBounds, source: int, undecided: Tensor, box: Interval, effort: Effort
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Backward passes until all elements `undecided` `[batch, n]` of a node are bounded or the deadline comes: domains
    `[b]`, flat positions `[b, k]` of elements in each of them, and their lower and upper bounds."""
    work = patchwork(program, source, undecided, ROW_OPERATIONS * (effort.deadline - time.monotonic()))
    if not work:
        operations = program.operations_to(source)
        blocks = _blocks(undecided, most_rows(program, source, effort), int(PASS_OPERATIONS / operations))
        for domains, index in _timely(blocks, operations, effort.deadline):
            part = found if len(domains) == len(undecided) else found.select(domains)
            own = box if len(domains) == len(undecided) else box.select(domains)
            low, high = _backward_elements(program, part, source, index, own)
            yield domains, index, low, high
    for patch, mask in work:
        rows, spare = _patch_rows(program, patch, effort), int(patch.crossing / (2 * patch.row))
        for chosen, index in _timely(_blocks(mask, rows, spare), patch.row, effort.deadline):
            count = len(patch.positions)
            domains, tile = chosen // count, chosen % count
            low, high = _patch_elements(program, patch, found, domains, tile, index, box)
            yield domains, patch.positions[tile].gather(1, index), low, high


def _timely(
    blocks: Iterator[tuple[Tensor, Tensor]], operations: float, deadline: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """The blocks for which there is time, where a row takes that many operations, by what the block before took."""
    pace = ROW_OPERATIONS
    for domains, index in blocks:
        work, began = 2 * index.numel() * operations, time.monotonic()
        if began + work / pace > deadline:
            return
        yield domains, index
        took = time.monotonic() - began
        pace = work / took if took > 0 else pace


def _blocks(undecided: Tensor, rows: int, spare: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Work for backward passes, as `domains` `[b]` and the flat positions `[b, k]` to bound in each of them.

    Domains with similar numbers of undecided elements go together, so that filling up to the largest wastes little,
    or at most `spare` rows. At most `rows` go together. All domains together are in their own order."""
    counts = undecided.sum(1)
    order = counts.argsort()
    sizes = counts[order].tolist()
    start = next((place for place, size in enumerate(sizes) if size), len(sizes))
    while start < len(sizes):
        end, limit, filled = start, max(PADDING * sizes[start], sizes[start] + 2), 0
        while end < len(sizes) and (end - start + 1) * sizes[end] <= max(rows, sizes[start]):
            filled += sizes[end]
            if sizes[end] > limit and (end - start + 1) * sizes[end] - filled > spare:
                break
            end += 1
        domains = order[start:end] if end - start < len(sizes) else torch.arange(end, device=order.device)
        index = _positions(undecided[domains], sizes[end - 1])
        for first in range(0, index.shape[1], rows):
            yield domains, index[:, first : first + rows]
        start = end


def _positions(mask: Tensor, most: int) -> Tensor:
    """`[batch, most]`: for each domain the positions where `mask` `[batch, n]` holds, then others to fill up."""
    if mask.shape[0] == 1:
        return mask[0].nonzero().T
    return mask.to(torch.uint8).argsort(1, descending=True)[:, :most]


def most_rows(program: Program, source: int, effort: Effort) -> int:
    """Rows of one backward pass: few enough to stay in cache and to be done soon on a CPU, and in the memory budget
    everywhere."""
    widest = max(node.size for node in program.graph.nodes[: source + 1])
    row = widest * program.number_size
    block = effort.memory // FLOATS_PER_ROW
    if program.device.type == "cpu":
        block = min(block, max(CACHE, SMALLEST_BLOCK * row))
        block = min(block, row * int(BLOCK_OPERATIONS / max(1.0, program.operations_to(source))))
    return max(2, block // row) // 2


def _patch_rows(program: Program, patch: Patch, effort: Effort) -> int:
    """The same for tiles, each of which may come with bounds of its own for a single row."""
    before = program.graph.nodes[: patch.cut]
    widest = max(node.size for node in (*patch.program.graph.nodes, *before)) * program.number_size
    bounds = patch.program.graph.size * FLOATS_PER_ELEMENT * program.number_size
    rows = effort.memory // (2 * FLOATS_PER_ROW * widest + bounds)
    if program.device.type == "cpu":
        rows = min(rows, max(PATCH_CACHE // widest, SMALLEST_BLOCK) // 2, int(BLOCK_OPERATIONS / (2 * patch.row)))
    return max(1, rows)


def seconds_of(operations: float, rows: int) -> float:
    """For taking rows back to the input, where each takes that many operations."""
    return rows * operations / ROW_OPERATIONS


def _backward_elements(
    program: Program, found: NodeBounds, source: int, index: Tensor, box: Interval
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds `[batch, k]` of the elements `index` `[batch, k]` of node `source`."""
    bounds = picked(program, source, index).both_sides.bounded(program, found).minimum(box)
    return bounds[:, : index.shape[1]], -bounds[:, index.shape[1] :]


def _patch_elements(
    program: Program, patch: Patch, found: NodeBounds, domains: Tensor, tiles: Tensor, index: Tensor, box: Interval
) -> tuple[Tensor, Tensor]:
    """The same, `[n, k]`, of the elements `index` `[n, k]` of tiles `tiles` `[n]` over domains `domains` `[n]`."""
    rows = picked(patch.program, patch.program.graph.output, index).both_sides
    bounds = patch.minimum(program, found, box, domains, tiles, rows)
    return bounds[:, : index.shape[1]], -bounds[:, index.shape[1] :]


def output_interval(program: Program, box: Interval, method: str, effort: Effort) -> Interval:
    """Bounds of the network's output over each box, by one method; `[batch, *output_shape]`."""
    found = bound_nodes(program, box, method, None, effort)
    output = program.graph.output
    result = found.intervals[output]
    if method != "crown" or not program.bent[output]:
        return result
    size = program.graph.nodes[output].size
    index = torch.arange(size, device=program.device).expand(box.shape[0], size)
    lower, upper = [], []
    step = max(1, most_rows(program, output, effort) // box.shape[0])
    for first in range(0, size, step):
        low, high = _backward_elements(program, found, output, index[:, first : first + step], box)
        lower.append(low)
        upper.append(high)
    tight = Interval(torch.cat(lower, 1).reshape(result.shape), torch.cat(upper, 1).reshape(result.shape))
    return result.intersect(tight)
