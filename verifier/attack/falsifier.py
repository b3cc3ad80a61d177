"""Looks for violations of one query on one network, and replays whatever seems to be one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.attack.hunt import Hunt
from verifier.attack.sampling import GRID_INPUTS
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.problem import Problem
from verifier.core.query import Query
from verifier.core.verdict import Witness
from verifier.settings import AttackSettings

EACH_BOX = 8  # points tried in each box, at least
FEW_INPUTS = 16  # up to so many inputs, random points find what slopes do not lead to
QUICK_FLOATS, THOROUGH_FLOATS = 1 << 22, 1 << 25  # numbers of the points that are tried then
GRID_POINTS = 4096  # of the grid over very few inputs in the thorough attack
QUICK_STEPS, QUICK_SECONDS = 12, 1.0  # of gradient descent before the first bound
SUSPECTS_SHARE = 0.05  # of the search's time that goes into improving what it suspects
MOST_CONFIRMATIONS = 16  # candidates of one batch that are replayed


@dataclass(frozen=True, eq=False)
class Original:
    """The network as deployed: `run` takes `[points, *input_shape]` in `dtype`, exactly as the file computes it."""

    run: Callable[[np.ndarray], np.ndarray]
    dtype: type[np.floating]
    input_shape: tuple[int, ...]


class Falsifier:
    """`graph` in float32 serves to find candidates; only what `original` confirms becomes the `witness`. `deadline`:
    of `time.monotonic()`, for improving what the search suspects."""

    def __init__(
        self,
        graph: Graph,
        problem: Problem,
        query: Query,
        original: Original,
        seed: int,
        deadline: float = float("inf"),
    ) -> None:
        self.query, self.original, self.deadline = query, original, deadline
        self.witness: Witness | None = None
        self._hunt = Hunt(graph, problem, torch.Generator().manual_seed(seed), self.confirm)
        self._boxes = query.boxes
        self._inward: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._improving, self._searching_since = 0.0, float("inf")

    def quick(self, settings: AttackSettings) -> bool:
        """Samples, then a few gradient steps; whether a violation was confirmed."""
        deadline = time.monotonic() + min(settings.seconds, QUICK_SECONDS)
        if self._hunt.scan(self._each_box(QUICK_FLOATS), settings.restarts, deadline):
            return True
        return self._hunt.descend(QUICK_STEPS, deadline)

    def thorough(self, settings: AttackSettings) -> bool:
        """More samples, and descent that goes on; whether a violation was confirmed. Call `quick` first."""
        start = time.monotonic()
        if self._hunt.free <= FEW_INPUTS:
            each = self._each_box(THOROUGH_FLOATS)
            if self._hunt.free <= GRID_INPUTS:
                each = max(each, GRID_POINTS // len(self._boxes))
            if self._hunt.scan(each, settings.restarts, start + settings.seconds / 2):
                return True
        return self._hunt.descend(settings.steps, start + settings.seconds)

    def suspects(self, points: Tensor, which: Tensor) -> bool:
        """Points `[n, *input]` of boxes `which` `[n]` that the search suspects; whether a violation was confirmed."""
        now = time.monotonic()
        self._searching_since = min(self._searching_since, now)
        found = self._hunt.attempt(flat(points), which)
        if found is None or self._improving >= SUSPECTS_SHARE * (now - self._searching_since):
            return found is None
        start = time.monotonic()
        confirmed = self._hunt.improve(found, self.deadline)
        self._improving += time.monotonic() - start
        return confirmed

    def confirm(self, points: Tensor, which: Tensor) -> bool:
        """Replay candidates on the original; the first real violation becomes the witness."""
        for x, box in zip(points[:MOST_CONFIRMATIONS].cpu().numpy(), which.tolist(), strict=False):
            lower, upper = self._inside(box)
            inside = np.clip(x.reshape(-1).astype(self.original.dtype), lower, upper)
            shaped = inside.reshape(self.original.input_shape)
            y = self.original.run(shaped[None])[0]
            violated = self.query.violated(inside, y, self.original.dtype)
            if violated is not None:
                self.witness = Witness(shaped, y, *violated)
                return True
        return False

    def _each_box(self, floats: int) -> int:
        """Points tried in each box: more where few inputs vary, `floats` numbers of the network in all."""
        few = self._hunt.free <= FEW_INPUTS
        return max(EACH_BOX, floats // self._hunt.size // len(self._boxes) if few else 0)

    def _inside(self, box: int) -> tuple[np.ndarray, np.ndarray]:
        if box not in self._inward:
            self._inward[box] = self._boxes[box].inward(self.original.dtype)[:2]
        return self._inward[box]
