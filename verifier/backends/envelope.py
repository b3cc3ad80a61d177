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


class Envelopes:
    """Makes cuts for the neurons whose segments all bend one way."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding, program, neurons = encoding, encoding.program, encoding.neurons
        slopes = np.divide(neurons.gains, neurons.sizes, out=np.zeros_like(neurons.gains), where=neurons.sizes > 0)
        bends = np.where(neurons.real[:, 1:], np.diff(slopes, axis=1), 0.0)
        convex: np.ndarray = np.all(bends >= 0, axis=1)
        concave: np.ndarray = np.all(bends <= 0, axis=1)
        usable = neurons.bend & (convex | concave) & (neurons.row >= 0)
        self.neuron = usable.nonzero()[0]
        self.sign = np.where(convex[self.neuron], 1.0, -1.0)
        self.slopes, self.bends = slopes[self.neuron], bends[self.neuron] * self.sign[:, None]
        self.places = neurons.sizes[self.neuron].cumsum(1)[:, :-1]
        self.steepest = np.abs(self.slopes).max(1, initial=0.0)
        self._arguments()
        lower, upper = program.lower, program.upper
        self.width = upper - lower
        self.bottom = self.low + np.minimum(self.coefficients * lower, self.coefficients * upper).sum(1)
        self.reach = np.abs(self.coefficients) * self.width
        self.anchor = np.where(self.coefficients < 0, upper, lower)

    def _arguments(self) -> None:
        """z - l = coefficients . v + (between low and high)."""
        program, neurons = self.encoding.program, self.encoding.neurons
        row = neurons.row[self.neuron]
        matrix = program.matrix[row].copy()
        real = neurons.real[self.neuron]
        place = np.arange(len(row))[:, None].repeat(real.shape[1], 1)
        matrix[place[real], neurons.columns[self.neuron][real]] = 0.0
        self.coefficients, self.low, self.high = -matrix, program.low[row], program.high[row]

    def at(self, point: np.ndarray, wanted: np.ndarray) -> Cuts:
        """The deepest cut of each neuron of the mask `wanted` `[N]` at a point `[columns]` outside its envelope."""
        mine = wanted[self.neuron].nonzero()[0]
        scaled = np.divide(
            np.abs(point - self.anchor[mine]), self.width, out=np.zeros((len(mine), len(point))), where=self.width > 0
        )
        order = np.argsort(-scaled, axis=1)
        after = self.bottom[mine][:, None] + np.take_along_axis(self.reach[mine], order, 1).cumsum(1)
        before = np.concatenate([self.bottom[mine][:, None], after[:, :-1]], 1)
        first, values = self._value(mine, before[:, :1]), self._value(mine, after)
        steps = np.diff(np.concatenate([first, values], 1), axis=1)
        slopes = np.zeros_like(steps)
        np.put_along_axis(slopes, order, steps, 1)
        slopes = np.divide(slopes, self.width, out=np.zeros_like(slopes), where=self.width > 0)
        slopes = slopes * np.sign(self.coefficients[mine])
        terms = slopes * self.anchor[mine]
        high = first[:, 0] - terms.sum(1) + self._slack(mine, np.abs(terms).sum(1))
        matrix = -slopes
        neurons = self.encoding.neurons
        number = self.neuron[mine]
        real = neurons.real[number]
        place = np.arange(len(mine))[:, None].repeat(real.shape[1], 1)
        gains = neurons.gains[number] * self.sign[mine][:, None]
        matrix[place[real], neurons.columns[number][real]] = gains[real]
        violation = matrix @ point - high
        deep = violation > 0
        return Cuts(matrix[deep], high[deep], number[deep], violation[deep])

    def _value(self, mine: np.ndarray, argument: np.ndarray) -> np.ndarray:
        """The convex f - f(l) at z - l = `argument` `[n, k]`, its first and last segment prolonged."""
        value = (self.slopes[mine, 0] * self.sign[mine])[:, None] * argument
        for place, bend in zip(self.places[mine].T, self.bends[mine].T, strict=True):
            value = value + bend[:, None] * np.maximum(argument - place[:, None], 0.0)
        return value

    def _slack(self, mine: np.ndarray, terms: np.ndarray) -> np.ndarray:
        """What the rounding of the argument and of the cut itself may make the cut wrong by: each of n steps by the
        rounding of a sum of n terms, at the steepest slope."""
        count = self.coefficients.shape[1]
        size = np.abs(self.bottom[mine]) + self.reach[mine].sum(1)
        size = size + self.encoding.neurons.sizes[self.neuron[mine]].sum(1)
        size = size + np.abs(self.coefficients[mine]) @ np.maximum(
            np.abs(self.encoding.program.lower), np.abs(self.encoding.program.upper)
        )
        steps = (self.coefficients[mine] != 0).sum(1) + 8
        rounding = gamma(count + 40) * steps * (4 * self.steepest[mine] * size) + gamma(count + 40) * terms
        return self.steepest[mine] * (self.high[mine] - self.low[mine]) * 1.01 + rounding + TINY * count
