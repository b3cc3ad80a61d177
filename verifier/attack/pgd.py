"""Projected gradient descent on the property's own margin (Madry 2018), many points as one batch.

Each point is after one disjunct of its box: it lowers the largest margin of that disjunct's rows. Steps follow the sign
of the gradient's running mean (momentum, Dong 2018), scaled by the width of each input. Step sizes are the points' own:
a point that has not come lower for some steps goes back to its best place and halves its step (as in Auto-PGD, Croce
2020); one whose step has become tiny starts anew. Where the gradient is zero, the direction is random.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.attack.sampling import Samples, clamp
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.problem import Problem

FIRST_STEP, LAST_STEP = 0.5, 0.002  # of the width of each input
PATIENCE = 2  # steps without coming lower before a point goes back and halves its step
MOMENTUM = 0.75


class Descent:
    """Points on their way: `x`, `best_x` `[n, inputs]` of boxes `which` `[n]`, each after the disjunct `goal` `[n]`.
    `blind`: the network has no slopes at all."""

    def __init__(self, graph: Graph, problem: Problem, generator: torch.Generator) -> None:
        self.graph, self.problem, self.generator = graph, problem, generator
        self.blind = False

    def start(self, x: Tensor, which: Tensor, goal: Tensor, first: float = FIRST_STEP) -> None:
        """Points to go on from. `first`: their step."""
        self.x, self.which, self.goal = x, which, goal
        self.best_x, self.best = x, torch.full_like(x[:, 0], torch.inf)
        self.momentum = self.best_direction = torch.zeros_like(x)
        self.size = torch.full_like(self.best, first)
        self.stale = torch.zeros_like(which)

    def restart(self, old: Tensor, x: Tensor, which: Tensor, goal: Tensor) -> None:
        """Other points in the places `old` `[k]`."""
        self.x, self.which, self.goal = (
            ours.index_copy(0, old, new) for ours, new in ((self.x, x), (self.which, which), (self.goal, goal))
        )
        self.best = self.best.index_fill(0, old, torch.inf)
        self.size = self.size.index_fill(0, old, FIRST_STEP)
        self.momentum = self.momentum.index_fill(0, old, 0.0)
        self.stale = self.stale.index_fill(0, old, 0)

    @property
    def done(self) -> Tensor:
        """Places `[k]` of points that have come to rest."""
        return (self.size < LAST_STEP).nonzero().flatten()

    def step(self) -> Samples:
        """One step of each point; returns where they were, and the margins there."""
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            margins = self.problem.disjunct_margins(x, flat(self.graph.evaluate(x)), self.which)
            chosen = margins.gather(1, self.goal.unsqueeze(1)).squeeze(1)
            slope = torch.zeros_like(x)
            self.blind = not chosen.requires_grad
            if not self.blind:
                (slope,) = torch.autograd.grad(chosen.clamp(max=1e30).sum(), x)
        found = Samples(x.detach(), self.which, margins.detach())
        self._move(found.x, chosen.detach(), torch.nan_to_num(slope))
        return found

    def _move(self, x: Tensor, margin: Tensor, slope: Tensor) -> None:
        box = self.problem.box.select(self.which)
        width = box.upper - box.lower
        direction = self._direction(slope * width)
        better = margin < self.best
        self.best = torch.where(better, margin, self.best)
        self.best_x = torch.where(better.unsqueeze(1), x, self.best_x)
        self.best_direction = torch.where(better.unsqueeze(1), direction, self.best_direction)
        self.stale = torch.where(better, 0, self.stale + 1)
        back = self.stale >= PATIENCE
        self.stale = torch.where(back, 0, self.stale)
        self.size = torch.where(back, self.size / 2, self.size)
        returns = back.unsqueeze(1)
        self.momentum = torch.where(returns, self.best_direction, MOMENTUM * self.momentum + direction)
        place = torch.where(returns, self.best_x, x)
        self.x = clamp(box, place - self.size.unsqueeze(1) * width * self.momentum.sign())

    def _direction(self, slope: Tensor) -> Tensor:
        """The slope `[n, inputs]` as a direction of mean size one, random where it is zero."""
        size = slope.abs().mean(1, keepdim=True)
        if bool((size > 0).all()):
            return slope / size
        chance = torch.randn(slope.shape, generator=self.generator).to(slope.device)
        return torch.where(size > 0, slope / size, chance)
