"""The elements of nonlinear nodes that their bounds do not decide, as columns of a linear program.

Every column d runs from 0 to 1. A phase of a neuron fixes some of its columns, and then the neuron is straight.

    bend    f is straight between the places l = p_0 <= p_1 <= ... <= p_k = u; where two are the same, it jumps:
            z = l + sum_i (p_i+1 - p_i) d_i,  f(z) = f(l) + sum_i (f(p_i+1) - f(p_i)) d_i,  d_0 >= d_1 >= ...
            In phase i the columns before i are 1 and those behind it are 0 (Dantzig 1960, incremental form). At a jump
            all values between the two limits are allowed.
    choice  y is the largest of z_1 ... z_k: y = z_i + U_i d_i, with U_i the most by which another can exceed z_i.
            In phase i d_i is 0. (Of a minimum all signs are reversed.)
    pieces  f is only known to lie between planes, over each of several boxes: y = l + U e, with e a column of its own.
            In phase i d_i is 0 and all others are 1: the arguments are in box i. (No phases where there is one box.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.backends.pieces import Cuts, Pieces, pieces_of
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Band, Corner, Elementwise, Planes
from verifier.core.rounding import up


@dataclass(frozen=True, eq=False)
class NodeNeurons:
    """The undecided elements of one node, `n` of them with up to K columns each (shorter ones are padded).

    `elements` `[n]` flat positions; `sizes` `[n, K]`: of a bend the widths of its segments, else U; `gains` `[n, K]`
    what a column adds to the value; `real` `[n, K]` no padding; `start` `[n]` l of a bend; `slack` `[n]` bounds the
    rounding of z as written above; `source` `[n, K]` the arguments of a choice, by number; `spread` `[n]` what the own
    column of one with `pieces` adds to the value. `planes`: the node's value without the columns' part, parallel planes
    that hold everywhere."""

    bend: bool
    elements: Tensor
    sizes: np.ndarray
    gains: np.ndarray
    real: np.ndarray
    start: np.ndarray
    slack: np.ndarray
    source: np.ndarray
    spread: np.ndarray
    planes: Planes
    pieces: Pieces | None = None

    @property
    def reach(self) -> Tensor:
        """The most that the columns' part can be, `[n]`."""
        if self.pieces is not None:
            return torch.from_numpy(self.spread)
        return torch.from_numpy(np.abs(self.gains).sum(1) if self.bend else np.abs(self.gains[:, 0]))


def node_neurons(program: Program, found: NodeBounds, position: int, cuts: Cuts) -> NodeNeurons:
    """Of one nonlinear node over one domain."""
    node = program.graph.nodes[position]
    assert isinstance(node.op, Elementwise)
    boxes = [found.intervals[source] for source in node.inputs]
    mask = flat(node.op.unstable(*boxes))[0]
    if node.op.extreme():
        return _choices(node.op, boxes, mask)
    corners = node.op.corners(boxes[0])
    if corners is not None:
        return _bends(node.op, boxes[0], corners, mask)
    elements = mask.nonzero().flatten()
    pieces = pieces_of(node.op, boxes, elements, cuts.get(position, {}))
    return _enclosed(node.op.band(*boxes), pieces, mask, found.intervals[position])


def _enclosed(band: Band, pieces: Pieces, mask: Tensor, value: Interval) -> NodeNeurons:
    low, spread = flat(value.lower)[0, mask].numpy(), flat(up(value.upper - value.lower))[0, mask].numpy()
    real = pieces.real & (pieces.real.sum(1, keepdims=True) > 1)
    sizes, zero = np.where(real, spread[:, None], 0.0), np.zeros(len(low))
    planes = _without(band, mask, True, low, low)
    source, elements = np.zeros(real.shape, dtype=int), mask.nonzero().flatten()
    return NodeNeurons(False, elements, sizes, 0 * sizes, real, low, zero, source, spread, planes, pieces)


def _bends(op: Elementwise, box: Interval, corners: Sequence[Corner], mask: Tensor) -> NodeNeurons:
    ends = [(place, op.interval(Interval(place, place))) for place in (box.lower, box.upper)]
    inner = [(corner.place, value) for corner in corners for value in (corner.before, corner.behind)]
    places, values = zip(ends[0], *inner, ends[1], strict=True)
    elements = mask.nonzero().flatten()
    take = lambda parts: np.stack([flat(part)[0, elements].numpy() for part in parts], 1)  # noqa: E731
    at, low, high = take(places), take([v.lower for v in values]), take([v.upper for v in values])
    sizes, middle = np.diff(at, axis=1), low / 2 + high / 2
    gains, width = np.diff(middle, axis=1), high - low
    real = (sizes > 0) | (np.abs(gains) > width[:, 1:] + width[:, :-1])
    # a column's part of z and of f is off by the rounding of a difference, and by how far f is known at its places
    slack = _rounded(np.abs(at)) * 4
    doubt = width.sum(1) * 3 + _rounded(np.abs(middle)) * 8
    planes = _without(op.band(box), mask, True, middle[:, 0] - doubt, middle[:, 0] + doubt)
    order = np.argsort(~real, axis=1, kind="stable")[:, : max(1, int(real.sum(1).max(initial=0)))]
    sizes, gains, real = (np.take_along_axis(part, order, 1) for part in (sizes, gains, real))
    source, zero = np.zeros_like(order), np.zeros(len(at))
    return NodeNeurons(True, elements, sizes * real, gains * real, real, at[:, 0], slack, source, zero, planes)


def _choices(op: Elementwise, boxes: list[Interval], mask: Tensor) -> NodeNeurons:
    sign = op.extreme()
    elements = mask.nonzero().flatten()
    ends = [(box.lower, box.upper) if sign > 0 else (-box.upper, -box.lower) for box in boxes]
    lower = torch.stack([flat(low)[0, elements] for low, _ in ends], 1)
    upper = torch.stack([flat(high)[0, elements] for _, high in ends], 1)
    band = op.band(*boxes)
    chosen = torch.stack([flat(slope.expand_as(band.low))[0, elements] for slope in band.slopes], 1) == 1
    real = upper >= lower.amax(1, keepdim=True)
    # the argument along which the band runs comes first: its slope is what the planes keep
    order = torch.where(chosen, torch.inf, torch.where(real, lower, -torch.inf)).argsort(1, descending=True)
    lower, upper, real = (part.gather(1, order) for part in (lower, upper, real))
    rivals = torch.where(real, upper, -torch.inf)
    first, second = rivals.topk(2, 1).values.unsqueeze(2).unbind(1)
    rival = torch.where(rivals == first, second, first)
    sizes = torch.where(real, up(rival - lower).clamp(min=0.0), 0.0).numpy()
    zero = np.zeros(len(elements))
    planes = _without(band, mask, False, zero, zero)
    return NodeNeurons(False, elements, sizes, sign * sizes, real.numpy(), zero, zero, order.numpy(), zero, planes)


def _without(band: Band, mask: Tensor, flat_there: bool, low: np.ndarray, high: np.ndarray) -> Planes:
    """The planes of the band, but for the undecided elements `mask`: other ends, and slope 0 if `flat_there`."""
    lower, upper = (flat(end).clone() for end in (band.low, band.high))
    lower[0, mask], upper[0, mask] = torch.from_numpy(low), torch.from_numpy(high)
    shape = band.low.shape
    kept = band.slopes
    if flat_there:
        kept = tuple(torch.where(mask.reshape(shape), 0.0, slope) for slope in band.slopes)
    return Planes(kept, lower.reshape(shape), kept, upper.reshape(shape))


def _rounded(sizes: np.ndarray) -> np.ndarray:
    """The rounding of sums of these numbers `[n, k]`; `[n]`."""
    return sizes.sum(1) * float(np.finfo(np.float64).eps) + float(np.finfo(np.float64).tiny)
