"""Steps of an ascent over the multipliers of a bound."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from verifier.bounding.dual import Dual, Multipliers, parameter_ranges, project
from verifier.core.choose import negative
from verifier.core.interval import Interval
from verifier.core.operator import Adjustable, Adjusted
from verifier.core.rounding import tiny
from verifier.core.stacked import pick
from verifier.settings import AscentSettings

MOMENTUM = 0.9
SHORT_MOMENTUM = 0.5  # where the pace is chosen anew at each step
BEYOND = 0.05  # of a bound that is below 0: so far above 0 it shall come
FASTEST = 1000.0  # pace
BOUNDS = 2  # the place of the multipliers of bounds among the groups of all


class Move(NamedTuple):
    """A step of the multipliers `value` `[n, k]`, number `key` of group `place`: the `gradient` there, and where to."""

    place: int
    key: int
    value: Tensor
    gradient: Tensor
    direction: Tensor


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

    def step(self, free: Multipliers, gradient: Multipliers, dual: Dual, bound: Tensor) -> None:
        """From where the bounds are `bound` `[n]`."""
        decay = self.settings.decay**self.steps
        self.steps += 1
        moves = [*self._of_parameters(free, gradient, dual), *self._of_bounds(free, gradient, dual)]
        share, keep = self.settings.share, MOMENTUM
        pace = torch.full_like(bound, decay)
        if share is not None:
            keep, pace = SHORT_MOMENTUM, pace * (1 - SHORT_MOMENTUM) * self._pace(moves, bound, share)
        for move in moves:
            momentum = self.momentum[move.place][move.key].mul_(keep).add_(move.direction * pace.unsqueeze(1))
            moved = move.value + momentum
            if (
                move.place == BOUNDS
            ):  # a multiplier that would change sides stops at 0, where the other bound takes over
                moved = moved * (1 - negative(moved * move.value))
            move.value.copy_(moved)
        if free.weights.shape[1] > 1:
            slope = gradient.weights
            largest = slope.abs().amax(1, keepdim=True).clamp(min=tiny(slope.dtype))
            free.weights.mul_(torch.exp(slope / largest * (self.settings.weight_rate * decay)))
            free.weights.div_(free.weights.sum(1, keepdim=True))
        project(free, *self.ranges)

    def _pace(self, moves: list[Move], bound: Tensor, share: float) -> Tensor:
        """Of each row, so that by the gradient a step gains this share of what the bound lacks (Polyak 1969)."""
        gain = torch.zeros_like(bound)
        for move in moves:
            gain = gain + (move.gradient * move.direction).sum(1)
        lacking = (BEYOND * bound.abs() - bound).clamp(min=0)
        return (share * lacking / gain.clamp(min=tiny(bound.dtype))).clamp(max=FASTEST)

    def _of_parameters(self, free: Multipliers, gradient: Multipliers, dual: Dual) -> Iterator[Move]:
        for place, ranges in enumerate(self.ranges):
            for key, value in free.groups()[place].items():
                if key not in dual.lines:
                    continue
                reader, range_ = dual.undecided.readers[key], ranges[key]
                assert isinstance(reader.op, Adjustable)
                span = self._span(reader.sources, dual.planes[key][place])
                size = torch.addcmul(torch.full_like(span, tiny(value.dtype)), span, dual.lines[key].rows.abs())
                reach = (range_.upper - range_.lower) * (reader.op.pace * self.settings.slope_rate)
                slope = torch.nan_to_num(gradient.groups()[place][key], nan=0.0)
                direction = slope * reach / size
                blocked = ((value <= range_.lower) & (slope < 0)) | ((value >= range_.upper) & (slope > 0))
                yield Move(place, key, value, slope, direction * ~blocked)

    def _of_bounds(self, free: Multipliers, gradient: Multipliers, dual: Dual) -> Iterator[Move]:
        for key, value in free.bounds.items():
            coefficient = self._coefficient(key, dual)
            if coefficient is not None:
                slope = torch.nan_to_num(gradient.bounds[key], nan=0.0)
                direction = slope * coefficient / self.widths[key] * self.settings.bound_rate
                yield Move(BOUNDS, key, value, slope, direction)

    def _span(self, sources: tuple[int, ...], plane: Adjusted | None) -> Tensor:
        """How much a parameter can move its plane, at most, or nearly."""
        if plane is None or plane.turns is None:
            return self.widths[sources[0]]
        spans = [turn.abs() * self.widths[source] for turn, source in zip(plane.turns, sources, strict=True)]
        return torch.stack(spans).sum(0) / 2

    def _coefficient(self, source: int, dual: Dual) -> Tensor | None:
        """How much the neuron's readers weigh."""
        readers = dual.graph.consumers[source]
        sizes = [dual.lines[reader].rows.abs() for reader in readers if reader in dual.lines]
        return sum(sizes[1:], sizes[0]) if sizes else None


def _width(box: Interval) -> Tensor:
    return (box.upper - box.lower).clamp(min=tiny(box.lower.dtype))
