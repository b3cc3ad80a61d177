"""Where violations are sought: points all over the boxes first, then descent from the nearest and from new ones.

Whatever seems to violate is handed over at once, the clearest first; everything ends when one is confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from verifier.attack.pgd import Descent
from verifier.attack.sampling import Samples, evaluate, free_inputs, random_points, scan
from verifier.attack.surrogate import with_slopes
from verifier.core.graph import Graph
from verifier.core.problem import Problem
from verifier.core.stacked import join

STEP_FLOATS, LEAST_POINTS, MOST_FLOATS = 1 << 18, 16, 1 << 26  # of the points that are stepped as one batch
IMPROVED, SMALL_STEPS, SMALL_STEP = 32, 6, 1 / 16  # points that are improved a little

Confirm = Callable[[Tensor, Tensor], bool]
"""Takes points `[n, inputs]` and the box each belongs to `[n]`; True if one was confirmed as a violation."""


class Hunt:
    """`size`: numbers that one point takes in the network, `free`: how many inputs vary."""

    def __init__(self, graph: Graph, problem: Problem, generator: torch.Generator, confirm: Confirm) -> None:
        self.graph, self.problem, self.generator, self.confirm = graph, problem, generator, confirm
        self.sloped = with_slopes(graph)
        self.size = graph.size
        self.free = int(free_inputs(problem.box).sum())
        self.closeness = torch.full(problem.real.shape, torch.inf, device=problem.real.device)
        self._descent: Descent | None = None

    def scan(self, each: int, keep: int, deadline: float) -> bool:
        """Try about `each` points of each box; whether a violation was confirmed. Of the `keep` points that the next
        descent starts at, half are the nearest of these."""
        keep = self._batch(keep)
        best: list[Samples] = []
        for found in scan(self.graph, self.problem, each, self.generator):
            if self._seem(found):
                return True
            best = [join([*best, found]).nearest(keep)]
            if time.monotonic() > deadline:
                break
        near, goal = best[0].nearest_pairs(keep // 2)
        x, which, goals = self._fresh(keep - len(goal))
        self._descent = Descent(self.sloped, self.problem, self.generator)
        self._descent.start(torch.cat([near.x, x]), torch.cat([near.which, which]), torch.cat([goal, goals]))
        return False

    def descend(self, steps: int, deadline: float) -> bool:
        """Go on with the descent that the last scan began; points that come to rest make room for new ones.
        Whether a violation was confirmed."""
        assert self._descent is not None
        for found in _stepped(self._descent, steps, deadline):
            if self._seem(found):
                return True
            done = self._descent.done
            if len(done):
                self._descent.restart(done, *self._fresh(len(done)))
        return False

    def attempt(self, x: Tensor, which: Tensor) -> Samples | None:
        """Try points `[n, inputs]`: how near they came, or None if a violation was confirmed."""
        found = join(list(evaluate(self.graph, self.problem, x, which)))
        return None if self._seem(found) else found

    def improve(self, found: Samples, deadline: float) -> bool:
        """A few small steps from the nearest points; whether a violation was confirmed."""
        near, goal = found.nearest_pairs(self._batch(IMPROVED))
        descent = Descent(self.sloped, self.problem, self.generator)
        descent.start(near.x, near.which, goal, SMALL_STEP)
        return any(self._seem(stepped) for stepped in _stepped(descent, SMALL_STEPS, deadline))

    def _batch(self, most: int) -> int:
        """Points stepped together: `most`, but few where they are dear."""
        least = max(1, min(LEAST_POINTS, MOST_FLOATS // self.size))
        return max(least, min(most, STEP_FLOATS // self.size))

    def _fresh(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random points, their boxes and their disjuncts: the closest quarter of the pairs gets half of the points."""
        order = self.closeness.flatten().argsort()[: int(self.problem.real.sum())]
        share = (torch.arange(count) + torch.rand(count, generator=self.generator)) / count
        pair = order[(len(order) * share**2).long().clamp(max=len(order) - 1).to(order.device)]
        which, goal = pair // self.closeness.shape[1], pair % self.closeness.shape[1]
        return random_points(self.problem.box.select(which), self.generator), which, goal

    def _seem(self, found: Samples) -> bool:
        """Note how close the points came, and hand over those that seem to violate."""
        where = found.which.unsqueeze(1).expand_as(found.margins)
        self.closeness = self.closeness.scatter_reduce(0, where, found.margins, "amin")
        seem = found.nearest(int((found.margins.amin(1) <= 0).sum()))
        return len(seem.which) > 0 and self.confirm(seem.x, seem.which)


def _stepped(descent: Descent, steps: int, deadline: float) -> Iterator[Samples]:
    """The points after each step, as long as there are slopes and time for one more step like the last."""
    took = 0.0
    for _ in range(steps):
        began = time.monotonic()
        if descent.blind or began + took > deadline:
            return
        yield descent.step()
        took = time.monotonic() - began
