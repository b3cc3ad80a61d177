"""The answer to "how small, or how large, can this become?", as a value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Extremum:
    """The minimum (or maximum) over some boxes of inputs lies from `lower` to `upper`, in real arithmetic.

    Of a minimum, `lower` is proved for every input and `upper` bounds the value at `x`; of a maximum it is the other
    way round. `x`: an input in the network's own type and shape, inside the boxes, `y`: what onnxruntime computes there
    on the original file, `value`: the form of `y`, which differs from the real value by the file's own rounding.
    `reached`: the gap asked for is reached. `reason`: one sentence. `statistics`: counts, and stage times in seconds.
    """

    sense: str
    lower: float
    upper: float
    x: np.ndarray
    y: np.ndarray
    value: float
    reached: bool
    reason: str
    statistics: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return {"min": "minimum", "max": "maximum"}[self.sense]

    @property
    def gap(self) -> float:
        """At least the distance of the ends."""
        gap = self.upper - self.lower
        return float(np.nextafter(gap, np.inf)) if gap else 0.0

    def of_negated(self) -> Extremum:
        """The maximum of a form, from the minimum of its negation (or the other way round)."""
        sense = "max" if self.sense == "min" else "min"
        return replace(self, sense=sense, lower=-self.upper, upper=-self.lower, value=-self.value)

    def __str__(self) -> str:
        return f"{self.name} between {self.lower!r} and {self.upper!r} (gap {self.gap:.3g})"
