"""How far a function is from the planes of its relaxation, where it would be split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from verifier.bounding.dual import Dual
from verifier.core.operator import Elementwise, Planes

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes the coefficients in the row that is bounded, and the distances from the plane below and the one above."""


def gaps(dual: Dual, weigh: Weigh) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each argument of each nonlinear node that the rows came through: the node that computes it, what the gaps of
    each undecided element weigh (0 where it cannot be split), and where it would be split, `[n, k]` each."""
    for position, lines in dual.lines.items():
        reader, boxes = dual.undecided.readers[position], dual.boxes(position)
        branches = reader.op.branches(*boxes)
        points = [
            torch.minimum(torch.maximum(branch.point, box.lower), box.upper)
            for branch, box in zip(branches, boxes, strict=True)
        ]
        below, above = _distances(reader.op, dual.relaxed(position), points)
        weight = torch.nan_to_num(weigh(lines.rows, below, above), nan=0.0) * reader.op.unstable(*boxes)
        for source, box, branch in zip(reader.sources, boxes, branches, strict=True):
            possible = (box.lower < branch.point) & (branch.point < box.upper)
            yield source, weight * branch.share * possible, branch.point


def _distances(op: Elementwise, planes: Planes, points: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of the function from the plane below it and from the one above, at the branch points."""
    low, high = planes.lower_intercept, planes.upper_intercept
    low = torch.zeros_like(high) if low is None else low
    for point, below, above in zip(points, planes.lower_slopes, planes.upper_slopes, strict=True):
        low, high = low + below * point, high + above * point
    value = torch.nan_to_num(op.evaluate(*points), nan=0.0)  # outside of its domain
    value = torch.minimum(torch.maximum(value, low), high)
    return value - low, high - value
