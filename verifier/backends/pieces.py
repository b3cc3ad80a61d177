"""What linear programs know of a function that is not straight: planes over pieces of the box of its arguments.

Each piece is a box with planes below and above f that hold over it, the operator's own, rounded outward; of these boxes
at least one has the neuron's arguments. So what lies between the planes is more than the function's graph, and nothing
that is read off it is exact: a point has to be looked at, and only its absence is a proof. The more pieces, the less
lies between; they are cut where a solver's point leaves the graph (`refine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.core.adjustable import Adjustable
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise

Box = tuple[tuple[float, float], ...]
"""Ends of each argument, which may be infinite."""

LINE = (-np.inf, np.inf)

Cuts = Mapping[int, Mapping[int, tuple[Box, ...]]]
"""By node and flat position of an element the boxes that its arguments' space is cut into; not cut where missing."""


@dataclass(frozen=True, eq=False)
class Side:
    """Planes over each piece: `slopes` `[n, M, k]`, `intercept` `[n, M]`."""

    slopes: np.ndarray
    intercept: np.ndarray


@dataclass(frozen=True, eq=False)
class Pieces:
    """Of `n` elements with `k` arguments, up to M each: boxes `lower`, `upper` `[n, M, k]`, `real` `[n, M]` no padding;
    planes `below` and `above`, each of them over all pieces; `cut` `[n, M]` which box of the cuts each is a part of."""

    lower: np.ndarray
    upper: np.ndarray
    real: np.ndarray
    below: tuple[Side, ...]
    above: tuple[Side, ...]
    cut: np.ndarray


def pieces_of(op: Elementwise, boxes: list[Interval], elements: Tensor, cuts: Mapping[int, tuple[Box, ...]]) -> Pieces:
    """Over boxes `[1, *shape]` of the arguments, cut further where `cuts` says so."""
    lower, upper, real, cut = _boxes(op, boxes, elements, cuts)
    own = op.elements(elements, tuple(boxes[0].shape[1:]))
    below, above = sides(own, lower, upper)
    return Pieces(lower, upper, real, below, above, cut)


def sides(op: Elementwise, lower: np.ndarray, upper: np.ndarray) -> tuple[tuple[Side, ...], tuple[Side, ...]]:
    """Planes below and above over boxes `[n, M, k]`: those of `relax`, and those of parameters that differ most."""
    boxes = [
        Interval(torch.from_numpy(lower[:, :, i].T.copy()), torch.from_numpy(upper[:, :, i].T.copy()))
        for i in range(lower.shape[2])
    ]
    values, planes = op.interval(*boxes), op.relax(*boxes)
    low = torch.zeros_like(values.lower) if planes.lower_intercept is None else planes.lower_intercept
    below = [(planes.lower_slopes, low)]
    above = [(planes.upper_slopes, planes.upper_intercept)]
    if isinstance(op, Adjustable):
        wide = [box.reshape(len(box.lower), 1, -1) for box in boxes]
        for found, ranges, plane in zip(
            (below, above), op.ranges(*boxes), (op.lower_plane, op.upper_plane), strict=True
        ):
            for end in () if ranges is None else (ranges.lower, ranges.upper):
                one = plane(end.unsqueeze(1), *wide)
                found.append((tuple(s[:, 0] for s in one.slopes), one.intercept.expand(end.unsqueeze(1).shape)[:, 0]))
    return (
        tuple(_side(slopes, intercept, values.lower) for slopes, intercept in below),
        tuple(_side(slopes, intercept, values.upper) for slopes, intercept in above),
    )


def _side(slopes: tuple[Tensor, ...], intercept: Tensor, end: Tensor) -> Side:
    """The plane, or the constant `end` where it is not finite."""
    finite = intercept.isfinite()
    for slope in slopes:
        finite = finite & slope.isfinite()
    kept = [torch.where(finite, slope, 0.0).T.numpy() for slope in slopes]
    return Side(np.stack(kept, 2), torch.where(finite, intercept, end).T.numpy())


def _boxes(
    op: Elementwise, boxes: list[Interval], elements: Tensor, cuts: Mapping[int, tuple[Box, ...]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each of the operator's own parts, cut; those that are not empty come first, the first one is also the padding.
    With the number of the cut."""
    count, width = len(elements), len(boxes)
    take = lambda end: flat(end)[0, elements].numpy()  # noqa: E731
    parts = op.parts(*boxes)
    low = np.stack([np.stack([take(box.lower) for box in part], 1) for part in parts], 1)
    high = np.stack([np.stack([take(box.upper) for box in part], 1) for part in parts], 1)
    most = max((len(found) for found in cuts.values()), default=1)
    inner = np.full((2, count, most, width), np.nan)
    inner[0, :, 0], inner[1, :, 0] = -np.inf, np.inf
    for place, element in enumerate(elements.tolist()):
        for number, box in enumerate(cuts.get(element, ())):
            inner[:, place, number] = np.array(box).T
    lower = np.maximum(low[:, :, None], inner[0][:, None]).reshape(count, len(parts) * most, width)
    upper = np.minimum(high[:, :, None], inner[1][:, None]).reshape(count, len(parts) * most, width)
    real = (lower <= upper).all(2)
    order = np.argsort(~real, axis=1, kind="stable")[:, : max(1, int(real.sum(1).max(initial=0)))]
    real = np.take_along_axis(real, order, 1)
    order = np.where(real, order, order[:, :1])
    pick = lambda part: np.take_along_axis(part, order[:, :, None], 1)  # noqa: E731
    return pick(lower), pick(upper), real, order % most
