"""Which neuron to branch on: pseudo-costs (Benichou 1971), which are measured by solving the children of candidates
while too little is known about them (Achterberg 2005, reliability branching).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verifier.backends.columns import Neurons

RELIABLE = 2  # solved children of a neuron's phase after which its pseudo-cost is believed
SMALL = 1e-6  # share of the open bound that counts as no gain


class PseudoCosts:
    """What the bound gained in each phase of each neuron, by what the neuron's error at the point cost the margin.
    `cutoff`: a bound above it is closed."""

    def __init__(self, neurons: Neurons, cutoff: float) -> None:
        self.real, self.cutoff = neurons.real, cutoff
        self.gains, self.counts = np.zeros(self.real.shape), np.zeros(self.real.shape)

    def known(self, neuron: int) -> bool:
        return bool((self.counts[neuron][self.real[neuron]] >= RELIABLE).all())

    def note(self, neuron: int, phase: int, gained: float, size: float) -> None:
        """A child's bound is above its parent's by `gained`, where the neuron's error cost `size`."""
        if size > 0:
            self.gains[neuron, phase] += max(gained, 0.0) / size
            self.counts[neuron, phase] += 1

    def ranked(self, value: float, gap: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Open neurons (`gap` `[N]` not negative), the most promising first, and their expected scores `[N]`. `value`:
        the bound; `weight` `[N]`: how much it changes with each neuron's value."""
        lacking = max(-value, self.cutoff)
        size = gap * np.where(gap > 0, weight, 0.0)
        total = self.counts.sum()
        average = self.gains.sum() / total if total else 1.0
        rate = np.where(self.counts > 0, self.gains / np.maximum(self.counts, 1), average)
        expected = np.minimum(np.maximum(size, 0.0)[:, None] * rate, lacking)
        expected = np.where(self.real, np.maximum(expected, SMALL * lacking), np.inf)
        least = np.sort(expected, axis=1)[:, :2]
        score = np.where(gap >= 0, least.prod(1), -1.0)
        # neurons that the point contradicts come first; where it contradicts none, any will do
        order = np.lexsort((-gap, -score))
        return order[gap[order] >= 0], score

    def score(self, value: float, children: Sequence[float], neuron: int) -> float:
        """What the two least improved children of a bound gain, multiplied; closed ones gain all there is."""
        lacking = max(-value, self.cutoff)
        gains = [min(max(child - value, SMALL * lacking), lacking) for child in children]
        closed = int(self.real[neuron].sum()) - len(children)
        gains = sorted(gains + [lacking] * closed)
        return gains[0] * gains[1]
