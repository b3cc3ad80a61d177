"""Steps of an ascent over the multipliers of a bound."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from verifier.bounding.dual import Dual, Multipliers, parameter_ranges, project
from verifier.core.adjustable import Adjustable, Adjusted
from verifier.core.choose import negative
from verifier.core.interval import Interval
from verifier.core.rounding import tiny
from verifier.core.stacked import pick
from verifier.settings import AscentSettings

MOMENTUM = 0.9


class Ascent:
    """Gradient ascent with momentum in natural units, projected to the ranges; multiplicative updates of the weights.

    A slope's derivative, divided by its coefficient and by the width of the neuron, is a place between the ends of the
    neuron (-1 to 1): times the range of slopes it is a step; likewise of other parameters, with what the plane gains
    between the ends. A bound's derivative, divided by the width, says how far outside the minimiser is: times the
    coefficient of the neuron it is a step. Adam, which forgets these sizes, needs two to four times as many iterations
    for the same bound."""

    def __init__(self, dual: Dual, free: Multipliers, settings: AscentSettings) -> None:
        self.settings, self.steps = settings, 0
        self.ranges = parameter_ranges(dual, free)
        self.widths = {source: _width(box) for source, box in dual.neurons.items()}
        self.momentum = tuple({k: torch.zeros_like(v) for k, v in group.items()} for group in free.groups()[:3])

    def select(self, index: Tensor) -> Ascent:
        chosen = copy.copy(self)
        own = lambda box: box if len(box.lower) == 1 else box.select(index)  # noqa: E731
        below, above = ({k: own(v) for k, v in group.items()} for group in self.ranges)
        chosen.ranges = below, above
        chosen.widths = {k: v if len(v) == 1 else v[index] for k, v in self.widths.items()}
        chosen.momentum = pick(self.momentum, index)
        return chosen

    def step(self, free: Multipliers, gradient: Multipliers, dual: Dual) -> None:
        decay = self.settings.decay**self.steps
        self.steps += 1
        for key in free.lower:
            if key not in dual.lines:
                continue
            reader, lines = dual.undecided.readers[key], dual.lines[key]
            assert isinstance(reader.op, Adjustable)
            span = self._span(reader.sources, lines.adjusted)
            size = torch.addcmul(torch.full_like(span, tiny(span.dtype)), span, lines.rows.abs())
            for place, ranges in enumerate(self.ranges):
                if key in ranges:
                    reach = (ranges[key].upper - ranges[key].lower) * reader.op.pace
                    move = self._move(place, key, gradient.groups()[place][key] * reach / size)
                    free.groups()[place][key].add_(move, alpha=self.settings.slope_rate * decay)
        for key, value in free.bounds.items():
            coefficient = self._coefficient(key, dual)
            if coefficient is None:
                continue
            move = self._move(2, key, gradient.bounds[key] * coefficient / self.widths[key])
            moved = torch.add(value, move, alpha=self.settings.bound_rate * decay)
            # a multiplier that would change sides stops at 0, where the other bound takes over
            value.copy_(moved * (1 - negative(moved * value)))
        if free.weights.shape[1] > 1:
            slope = gradient.weights
            largest = slope.abs().amax(1, keepdim=True).clamp(min=tiny(slope.dtype))
            free.weights.mul_(torch.exp(slope / largest * (self.settings.weight_rate * decay)))
            free.weights.div_(free.weights.sum(1, keepdim=True))
        project(free, *self.ranges)

    def _span(self, sources: tuple[int, ...], plane: Adjusted | None) -> Tensor:
        """How much a parameter can move its plane, at most, or nearly."""
        if plane is None or plane.turns is None:
            return self.widths[sources[0]]
        spans = [turn.abs() * self.widths[source] for turn, source in zip(plane.turns, sources, strict=True)]
        return sum(spans[1:], spans[0]) / 2

    def _coefficient(self, source: int, dual: Dual) -> Tensor | None:
        """How much the neuron's readers weigh."""
        readers = dual.graph.consumers[source]
        sizes = [dual.lines[reader].rows.abs() for reader in readers if reader in dual.lines]
        return sum(sizes[1:], sizes[0]) if sizes else None

    def _move(self, place: int, key: int, direction: Tensor) -> Tensor:
        return self.momentum[place][key].mul_(MOMENTUM).add_(torch.nan_to_num(direction, nan=0.0))


def _width(box: Interval) -> Tensor:
    return (box.upper - box.lower).clamp(min=tiny(box.lower.dtype))
