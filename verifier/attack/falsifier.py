"""Looks for violations of one query on one network, and replays whatever seems to be one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from verifier.attack.pgd import Target, descend, sample
from verifier.core.flat import flat
from verifier.core.graph import Graph
from verifier.core.query import Query
from verifier.core.verdict import Witness
from verifier.settings import AttackSettings

SAMPLES = 8  # points tried in each box before anything dear is done
QUICK_STEPS, QUICK_SECONDS = 10, 1.0  # of gradient descent before the first bound
MOST_CONFIRMATIONS = 16  # candidates of one batch that are replayed


@dataclass(frozen=True, eq=False)
class Original:
    """The network as deployed: `run` takes `[points, *input_shape]` in `dtype`, exactly as the file computes it."""

    run: Callable[[np.ndarray], np.ndarray]
    dtype: type[np.floating]
    input_shape: tuple[int, ...]


class Falsifier:
    """`graph` in float32 serves to find candidates; only what `original` confirms becomes the `witness`."""

    def __init__(self, graph: Graph, target: Target, query: Query, original: Original, seed: int) -> None:
        self.graph, self.target, self.query, self.original = graph, target, query, original
        self.generator = torch.Generator().manual_seed(seed)
        self.witness: Witness | None = None
        self._boxes = query.boxes
        self._inward: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._closeness: Tensor | None = None

    def quick(self, settings: AttackSettings) -> bool:
        """Samples, then a few gradient steps; whether a violation was confirmed."""
        self._closeness = sample(self.graph, self.target, SAMPLES, self.generator, self.confirm)
        if self._closeness is None:
            return True
        return self.thorough(replace(settings, steps=QUICK_STEPS, seconds=min(settings.seconds, QUICK_SECONDS)))

    def thorough(self, settings: AttackSettings) -> bool:
        """Gradient descent from many points; whether a violation was confirmed. Call `quick` first."""
        assert self._closeness is not None
        with torch.enable_grad():
            return descend(self.graph, self.target, settings, self._closeness, self.generator, self.confirm)

    def suspects(self, points: Tensor, which: Tensor) -> bool:
        """Points `[n, *input]` of boxes `which` `[n]` from elsewhere: evaluated together, replayed if they seem to
        violate; whether one was confirmed."""
        y = flat(self.graph.evaluate(points))
        worst = self.target.closest(points, y, which)
        seem = (worst <= 0).nonzero().flatten()
        return bool(len(seem)) and self.confirm(points[seem], which[seem])

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

    def _inside(self, box: int) -> tuple[np.ndarray, np.ndarray]:
        if box not in self._inward:
            self._inward[box] = self._boxes[box].inward(self.original.dtype)[:2]
        return self._inward[box]
