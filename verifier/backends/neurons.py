"""The elements of nonlinear nodes that their bounds do not decide, as columns of a linear program.

Every column d runs from 0 to 1. A phase of a neuron fixes some of its columns, and then the neuron is straight.

    bend    f is straight between the places l = p_0 < p_1 < ... < p_k = u:
            z = l + sum_i (p_i+1 - p_i) d_i,  f(z) = f(l) + sum_i (f(p_i+1) - f(p_i)) d_i,  d_0 >= d_1 >= ...
            In phase i the columns before i are 1 and those behind it are 0 (Dantzig 1960, incremental form).
    choice  y is the largest of z_1 ... z_k: y = z_i + U_i d_i, with U_i the most by which another can exceed z_i.
            In phase i d_i is 0. (Of a minimum all signs are reversed.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Band, Elementwise, Planes
from verifier.core.rounding import up


@dataclass(frozen=True, eq=False)
class NodeNeurons:
    """The undecided elements of one node, `n` of them with up to K columns each (shorter ones are padded).

    `elements` `[n]` flat positions; `sizes` `[n, K]`: of a bend the widths of its segments, of a choice U; `gains`
    `[n, K]` what a column adds to the value; `real` `[n, K]` no padding; `start` `[n]` l of a bend;
    `slack` `[n]` bounds the rounding of z as written above; `source` `[n, K]` the arguments of a choice, by number.
    `planes`: the node's value without the columns' part, parallel planes that hold everywhere."""

    bend: bool
    elements: Tensor
    sizes: np.ndarray
    gains: np.ndarray
    real: np.ndarray
    start: np.ndarray
    slack: np.ndarray
    source: np.ndarray
    planes: Planes

    @property
    def reach(self) -> Tensor:
        """The most that the columns' part can be, `[n]`."""
        return torch.from_numpy(np.abs(self.gains).sum(1) if self.bend else np.abs(self.gains[:, 0]))


def node_neurons(program: Program, found: NodeBounds, position: int) -> NodeNeurons:
    """Of one nonlinear node over one domain."""
    node = program.graph.nodes[position]
    assert isinstance(node.op, Elementwise)
    boxes = [found.intervals[source] for source in node.inputs]
    mask = flat(node.op.unstable(*boxes))[0]
    if node.op.extreme():
        return _choices(node.op, boxes, mask)
    return _bends(node.op, boxes[0], mask)


def _bends(op: Elementwise, box: Interval, mask: Tensor) -> NodeNeurons:
    kinks = op.kinks()
    assert kinks is not None
    places = [box.lower, *(box.lower.clamp(min=kink).minimum(box.upper) for kink in kinks), box.upper]
    values = [op.interval(Interval(place, place)) for place in places]
    elements = mask.nonzero().flatten()
    take = lambda parts: np.stack([flat(part)[0, elements].numpy() for part in parts], 1)  # noqa: E731
    at, low, high = take(places), take([v.lower for v in values]), take([v.upper for v in values])
    sizes, middle = np.diff(at, axis=1), low / 2 + high / 2
    gains, real = np.diff(middle, axis=1), sizes > 0
    # a column's part of z and of f is off by the rounding of a difference, and by how far f is known at its places
    slack = _rounded(np.abs(at)) * 4
    doubt = (high - low).sum(1) * 2 + _rounded(np.abs(middle)) * 8
    planes = _without(op.band(box), mask, True, middle[:, 0] - doubt, middle[:, 0] + doubt)
    order = np.argsort(~real, axis=1, kind="stable")
    sizes, gains, real = (np.take_along_axis(part, order, 1) for part in (sizes, gains, real))
    source = np.zeros_like(order)
    return NodeNeurons(True, elements, sizes * real, gains * real, real, at[:, 0], slack, source, planes)


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
    return NodeNeurons(False, elements, sizes, sign * sizes, real.numpy(), zero, zero, order.numpy(), planes)


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
