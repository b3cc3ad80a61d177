"""Cuts: the concave envelope of a convex neuron over the box of the columns that its argument is made of.

The chord bounds f(z) by z alone. But z = a . v + c, where v lies in a box, and the envelope over that box is lower:
with v scaled to [0, 1] and a >= 0, f(a . v + c) is supermodular on the corners, and for the columns taken in any order

    f(a . v + c) <= f(c) + sum_k (f(c + a_1 + ... + a_k) - f(c + a_1 + ... + a_k-1)) v_k,

with the least right-hand side where they are taken from the largest v to the smallest (Lovasz 1983; for Relu this is
the ideal relaxation of Anderson 2020 and Tjandraatmadja 2020). A concave f is mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verifier.backends.dual_bound import TINY, gamma
from verifier.backends.encoding import Encoding


@dataclass(frozen=True, eq=False)
class Cuts:
    """Rows  matrix v <= high;  `violation` `[n]` at the point they were made for, in units of the value of `neuron`
    `[n]`."""

    matrix: np.ndarray
    high: np.ndarray
    neuron: np.ndarray
    violation: np.ndarray


class Envelope:
    """Of the neurons `neuron` `[n]` of one node whose segments all bend one way; `columns` `[c]` are those that their
    arguments are made of."""

    def __init__(self, encoding: Encoding, neuron: np.ndarray) -> None:
        neurons, program = encoding.neurons, encoding.program
        slopes, bends = segments(encoding, neuron)
        concave = (bends < 0).any(1)
        self.neuron, self.sign = neuron, np.where(concave, -1.0, 1.0)
        self.slopes, self.bends = slopes * self.sign[:, None], bends * self.sign[:, None]
        self.own, self.real = neurons.columns[neuron], neurons.real[neuron]
        self.gains = neurons.gains[neuron] * self.sign[:, None]
        self.places = neurons.sizes[neuron].cumsum(1)
        self.steepest = np.abs(slopes).max(1)
        row = neurons.row[neuron]
        matrix = program.matrix[row].copy()
        place = np.arange(len(row))[:, None].repeat(self.real.shape[1], 1)
        matrix[place[self.real], self.own[self.real]] = 0.0
        # z - l = coefficients . v + (between low and high)
        self.columns = matrix.any(0).nonzero()[0]
        self.coefficients = -matrix[:, self.columns]
        self.width = (program.upper - program.lower)[self.columns]
        ends = self.coefficients * program.lower[self.columns], self.coefficients * program.upper[self.columns]
        self.bottom = program.low[row] + np.minimum(*ends).sum(1)
        self.reach = np.abs(self.coefficients) * self.width
        self.anchor = np.where(self.coefficients < 0, program.upper[self.columns], program.lower[self.columns])
        self.step_slack = self._step_slack(program.high[row] - program.low[row], np.abs(ends).max(0).sum(1))

    def _step_slack(self, apart: np.ndarray, largest: np.ndarray) -> np.ndarray:
        """What the uncertainty of the argument and the rounding of the steps may make a cut wrong by: each of n steps
        by the rounding of a sum of n terms, at the steepest slope."""
        count = len(self.columns) + 40
        size = np.abs(self.bottom) + self.reach.sum(1) + self.places[:, -1] + largest
        return self.steepest * (1.01 * apart + gamma(count) * count * 4 * size) + TINY * count

    def at(self, point: np.ndarray, wanted: np.ndarray, width: int) -> Cuts:
        """The deepest cut of each neuron of the mask `wanted` `[N]` at a point outside its envelope, as rows of `width`
        columns, as the point has."""
        mine = wanted[self.neuron].nonzero()[0]
        apart = np.abs(point[self.columns] - self.anchor[mine])
        scaled = np.divide(apart, self.width, out=np.zeros_like(apart), where=self.width > 0)
        order = np.argsort(-scaled, axis=1)
        bottom = self.bottom[mine][:, None]
        argument = np.concatenate([bottom, bottom + np.take_along_axis(self.reach[mine], order, 1).cumsum(1)], 1)
        values = self._value(mine, argument)
        steps = np.zeros_like(apart)
        np.put_along_axis(steps, order, np.diff(values, axis=1), 1)
        slopes = np.divide(steps, self.width, out=np.zeros_like(steps), where=self.width > 0)
        slopes = slopes * np.sign(self.coefficients[mine])
        terms = slopes * self.anchor[mine]
        rounding = gamma(len(self.columns) + 8) * (np.abs(terms).sum(1) + np.abs(values[:, 0]))
        high = values[:, 0] - terms.sum(1) + self.step_slack[mine] + rounding
        matrix = np.zeros((len(mine), width))
        matrix[:, self.columns] = -slopes
        real = self.real[mine]
        place = np.arange(len(mine))[:, None].repeat(real.shape[1], 1)
        matrix[place[real], self.own[mine][real]] = self.gains[mine][real]
        violation = matrix @ point - high
        deep = violation > 0
        return Cuts(matrix[deep], high[deep], self.neuron[mine][deep], violation[deep])

    def _value(self, mine: np.ndarray, argument: np.ndarray) -> np.ndarray:
        """The convex f - f(l) at z - l = `argument` `[n, k]`, its first and last segment prolonged."""
        value = self.slopes[mine, :1] * argument
        for place in range(self.bends.shape[1]):
            value += self.bends[mine, place : place + 1] * np.maximum(argument - self.places[mine, place, None], 0.0)
        return value


def segments(encoding: Encoding, neuron: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the segments of bends `[n, K]`, and by how much each exceeds the one before it `[n, K - 1]`."""
    neurons = encoding.neurons
    sizes, gains, real = neurons.sizes[neuron], neurons.gains[neuron], neurons.real[neuron]
    slopes = np.divide(gains, sizes, out=np.zeros_like(gains), where=sizes > 0)
    return slopes, np.where(real[:, 1:], np.diff(slopes, axis=1), 0.0)


class Envelopes:
    """Of all neurons that have one."""

    def __init__(self, encoding: Encoding) -> None:
        neurons = encoding.neurons
        every = np.arange(len(neurons))
        _, bends = segments(encoding, every)
        one_way = neurons.bend & ~neurons.jumps.any(1)
        one_way &= np.all(bends >= 0, axis=1) | np.all(bends <= 0, axis=1)
        self.width = len(encoding.program.cost)
        self.parts = [
            Envelope(encoding, every[(neurons.node == node) & one_way]) for node in np.unique(neurons.node[one_way])
        ]

    def at(self, point: np.ndarray, wanted: np.ndarray) -> Cuts:
        """The deepest cut of each neuron of the mask `wanted` `[N]` at a point `[columns]` outside its envelope."""
        found = [part.at(point, wanted, self.width) for part in self.parts]
        if not found:
            return Cuts(np.zeros((0, self.width)), np.zeros(0), np.zeros(0, dtype=int), np.zeros(0))
        names = ("matrix", "high", "neuron", "violation")
        return Cuts(*(np.concatenate([getattr(cuts, name) for cuts in found]) for name in names))
