"""Projected gradient descent on the property's own margin (Madry 2018), many starting points as one batch.

Each point is after one disjunct: it lowers the largest margin of that disjunct's rows. Steps follow the sign of the
gradient, scaled by the box width of each input, and shrink geometrically.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.attack.margin import evaluate_in_chunks, random_points, violation_margin
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.settings import AttackSettings

CHUNK_FLOATS = 1 << 26
FINAL_STEP = 0.01  # of the first step

Confirm = Callable[[Tensor, Tensor], bool]


@dataclass(frozen=True, eq=False)
class Target:
    """What to violate: `box` `[boxes, *input]`, and `margins(x, y, which)` `[n, R]` of the rows of box `which` `[n]` at
    points `x`, outputs `y` `[n, outputs]`; `owner` `[boxes, R]` and `disjuncts` `[boxes]` as in the search."""

    box: Interval
    margins: Callable[[Tensor, Tensor, Tensor], Tensor]
    owner: Tensor
    disjuncts: Tensor

    @property
    def count(self) -> int:
        return max(1, int(self.disjuncts.max()))

    def closest(self, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
        """`[n]`: the margin of the disjunct that is nearest to a violation, at most zero where it seems to hold."""
        worst = violation_margin(self.margins(x, y, which), self.owner[which], self.count)
        real = torch.arange(self.count, device=x.device) < self.disjuncts[which].unsqueeze(1)
        return torch.where(real, worst, torch.inf).amin(1)


def sample(graph: Graph, target: Target, points: int, generator: torch.Generator, confirm: Confirm) -> Tensor | None:
    """Try the centre, corners and random points of each box. None if a violation was confirmed, else how close each box
    came `[boxes]`."""
    x = random_points(target.box, points, generator).flatten(0, 1)
    which = torch.arange(len(target.disjuncts), device=x.device).repeat_interleave(points)
    best = target.closest(x, evaluate_in_chunks(graph, x, CHUNK_FLOATS), which)
    if _try(x, which, best, confirm):
        return None
    return best.unflatten(0, (-1, points)).amin(1)


def descend(
    graph: Graph,
    target: Target,
    settings: AttackSettings,
    closeness: Tensor,
    generator: torch.Generator,
    confirm: Confirm,
) -> bool:
    """Gradient descent from the boxes that came closest; whether a violation was confirmed."""
    deadline = time.monotonic() + settings.seconds
    nearest = closeness.argsort()[: settings.restarts]
    which = nearest.repeat(-(-settings.restarts // len(nearest)))
    box = target.box.select(which)
    # half of the points start at random corners, half anywhere
    start = random_points(box, 3, generator)
    point = torch.arange(len(which), device=which.device)
    x = start[point, 1 + point % 2]
    goal = point % target.disjuncts[which]
    width = box.upper - box.lower
    for step in range(settings.steps):
        if time.monotonic() > deadline:
            break
        x = x.detach().requires_grad_()
        y = flat(graph.evaluate(x))
        worst = violation_margin(target.margins(x, y, which), target.owner[which], target.count)
        chosen = worst.gather(1, goal.unsqueeze(1)).squeeze(1)
        if _try(x.detach(), which, chosen.detach(), confirm):
            return True
        if not chosen.requires_grad:
            return False
        (slope,) = torch.autograd.grad(chosen.clamp(max=1e30).sum(), x)
        size = settings.step * FINAL_STEP ** (step / settings.steps)
        x = torch.minimum(torch.maximum(x - size * width * torch.nan_to_num(slope).sign(), box.lower), box.upper)
    return False


def _try(x: Tensor, which: Tensor, margin: Tensor, confirm: Confirm) -> bool:
    """Hand over the points that seem to violate."""
    seem = margin <= 0
    return bool(seem.any()) and confirm(x[seem], which[seem])
