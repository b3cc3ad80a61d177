"""What the bounds of a network over some boxes decide: where its nonlinear nodes are straight lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.operator import Planes
from verifier.core.rounding import unit, up

STRAIGHT = 64  # roundings in single precision, of its value, by which the planes of a decided element may differ


@dataclass(frozen=True, eq=False)
class Lines:
    """The same over all boxes, in double precision. By nonlinear node `planes` `[1, *shape]`, which are one line where
    an element is decided and 0 where it is not, and how far the element may be from that line, `apart` `[size]` (None
    for nowhere). `undecided` `[k]` by node, ascending."""

    planes: dict[int, Planes]
    apart: dict[int, Tensor | None]
    undecided: dict[int, Tensor]


class _Line(NamedTuple):
    """Of each element of a node: the `slopes`, the least and the largest intercept, and whether that is a line;
    `[size]`."""

    slopes: list[Tensor]
    low: Tensor
    high: Tensor
    straight: Tensor


def decided_lines(program: Program, found: NodeBounds) -> Lines:
    """From bounds over some boxes. What the question does not read is decided, too: it is as far from 0 as it can be,
    which costs nothing where it is multiplied by 0."""
    lines = Lines({}, {}, {})
    for position, planes in found.planes.items():
        size = flat(found.intervals[position].magnitude()).amax(0).double()
        line = _line(planes, size)
        unread = torch.zeros_like(line.straight)
        if position in program.read:
            unread = ~program.read[position].flatten() & size.isfinite()
        straight = line.straight & ~flat(program.unstable(position, found.intervals)).any(0) & ~unread
        shape = program.graph.nodes[position].shape
        lines.planes[position], apart = _straightened(line, straight, shape)
        apart = torch.where(unread, size, apart)
        lines.apart[position] = apart if bool((apart != 0).any()) else None
        lines.undecided[position] = (~straight & ~unread).nonzero().flatten()
    return lines


def _line(planes: Planes, size: Tensor) -> _Line:
    """Over all domains. `size` `[size]`: what the values are at most."""
    high = flat(planes.upper_intercept)
    low = torch.zeros_like(high) if planes.lower_intercept is None else flat(planes.lower_intercept)
    least, most = low.amin(0).double(), high.amax(0).double()
    straight = most - least <= STRAIGHT * unit(torch.float32) * (least.abs() + most.abs() + size)
    slopes = []
    for below, above in zip(planes.lower_slopes, planes.upper_slopes, strict=True):
        first = flat(below)[0]
        straight = straight & ((flat(below) == first) & (flat(above) == first)).all(0) & first.isfinite()
        slopes.append(first.double())
    return _Line(slopes, least, most, straight & least.isfinite() & most.isfinite())


def _straightened(line: _Line, straight: Tensor, shape: tuple[int, ...]) -> tuple[Planes, Tensor]:
    """The line in the middle where it is `straight` `[size]`, else 0, and how far its ends are from it `[size]`."""
    clear = lambda value: torch.where(straight, value, 0.0)  # noqa: E731
    slopes = tuple(clear(slope).reshape(1, *shape) for slope in line.slopes)
    middle = clear(torch.where(line.low == line.high, line.low, line.low / 2 + line.high / 2))
    apart = torch.maximum(up(line.high - middle), up(middle - line.low))
    apart = clear(torch.where(line.low == line.high, 0.0, apart))
    intercept = middle.reshape(1, *shape)
    return Planes(slopes, intercept if bool((middle != 0).any()) else None, slopes, intercept), apart
