"""How far points are from a violation."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.interval import Interval


def violation_margin(margins: Tensor, owner: Tensor, count: int) -> Tensor:
    """`[n, count]`: for each disjunct the largest margin of its rows, at most zero where all of them hold.

    `margins` `[n, R]` of rows, `owner` `[n, R]` the disjunct of each, -1 for padding. A disjunct without rows gives
    minus infinity: any point violates. NaN never violates.
    """
    place = torch.where(owner < 0, count, owner)
    worst = margins.new_full((len(margins), count + 1), -torch.inf)
    return worst.scatter_reduce(1, place, torch.nan_to_num(margins, nan=torch.inf), "amax")[:, :count]


def random_points(box: Interval, count: int, generator: torch.Generator) -> Tensor:
    """`[boxes, count, *shape]`: the centre first, then corners and uniform points in turn."""
    lower, upper = box.lower.unsqueeze(1), box.upper.unsqueeze(1)
    shape = (lower.shape[0], count, *lower.shape[2:])
    place = torch.rand(shape, generator=generator, dtype=lower.dtype).to(lower.device)
    place[:, 1::2] = place[:, 1::2].round()
    place[:, :1] = 0.5
    return torch.minimum(torch.maximum(lower + place * (upper - lower), lower), upper)


def evaluate_in_chunks(graph: Graph, x: Tensor, floats: int) -> Tensor:
    """The network's flat outputs `[n, outputs]` at `x` `[n, *input]`, at most about `floats` numbers alive at once."""
    chunk = max(1, floats // sum(node.size for node in graph.nodes))
    return torch.cat([flat(graph.evaluate(part)) for part in x.split(chunk)])
