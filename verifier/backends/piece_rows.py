"""Rows of the neurons with pieces of one node.

With s_j = 1 - d_j, 1 for the box of the arguments and 0 for the others, and places 0 <= e_ij <= s_j in the boxes:

    sum_j s_j = 1,  z_i = sum_j (l_ij s_j + w_ij e_ij),  y >= sum_j (a_j . l_j + c_j) s_j + sum_ij a_ij w_ij e_ij

for planes  a_j . z + c_j  below f over box j, and the same above. Of one plane on either side there are no tighter
linear rows: without integers it is the convex hull of what lies between the planes (Balas 1979, Disjunctive
programming). All differences are to the first box, so that a neuron with one box has no s.
"""

from __future__ import annotations

import numpy as np

from verifier.backends.columns import EPS
from verifier.backends.pieces import Pieces, Side
from verifier.backends.rows import Matrix, Substitution
from verifier.backends.ties import phase_sums

TINY = float(np.finfo(float).tiny)


class PieceRows:
    """`within` `[n, M, k]`: the columns e, 0 where there is none; `chosen` `[n, M]`: the columns d, 0 of one box."""

    def __init__(self, substitution: Substitution, matrix: Matrix, position: int, pieces: Pieces) -> None:
        self.substitution, self.matrix, self.position, self.pieces = substitution, matrix, position, pieces
        self.neurons, self.mine = substitution.neurons, substitution.neurons.of(position)
        self.within = self.neurons.within[position]
        self.count, self.most, self.arguments = self.within.shape
        columns, real = (part[self.mine][:, : self.most] for part in (self.neurons.columns, self.neurons.real))
        self.chosen = np.where(real, columns, 0)
        # rounded up, so that every place in a box is at some e from 0 to 1
        self.wide = np.where(self.within > 0, np.nextafter(pieces.upper - pieces.lower, np.inf), 0.0)

    def add(self) -> None:
        for argument, source in enumerate(self.substitution.program.graph.nodes[self.position].inputs):
            self._tie(argument, source)
        for side in self.pieces.below:
            self._bound(side, +1)
        for side in self.pieces.above:
            self._bound(side, -1)
        self._select()

    def _tie(self, argument: int, source: int) -> None:
        """z_i, an element of node `source`, as above."""
        rows = self.substitution.arguments(source, self.substitution.groups[self.position].elements)
        lower, wide = self.pieces.lower[:, :, argument], self.wide[:, :, argument]
        own = self._empty()
        first = lower[:, 0] + self._put_steps(own, lower)
        _put(own, self.within[:, :, argument], wide)
        size = np.abs(lower).sum(1) * 2 + wide.sum(1) + np.abs(rows.low) + np.abs(rows.high)
        slack = 4 * EPS * self.most * size + TINY
        self.matrix.add(rows, own, rows.low - first - slack, rows.high - first + slack)

    def _bound(self, side: Side, sign: int) -> None:
        """The row of y and one plane of each box: y is above it (`sign` 1) or below it (-1)."""
        neurons, mine = self.neurons, self.mine
        at_lower = (side.slopes * self.pieces.lower).sum(2) + side.intercept
        own = self._empty()
        first = at_lower[:, 0] + self._put_steps(own, at_lower)
        for argument in range(self.arguments):
            _put(own, self.within[:, :, argument], (side.slopes * self.wide)[:, :, argument])
        own = -own
        own[np.arange(self.count), neurons.own[mine]] = neurons.spread[mine]
        size = (np.abs(side.slopes) * (np.abs(self.pieces.lower) + self.wide)).sum(2) + np.abs(side.intercept)
        size = 3 * size.sum(1) + np.abs(neurons.start[mine]) + neurons.spread[mine]
        slack = 4 * EPS * (self.arguments + self.most) * size + TINY
        end = first - neurons.start[mine] - sign * slack
        none = np.full(self.count, sign * np.inf)
        self.matrix.add_plain(own, *((end, none) if sign > 0 else (none, end)))

    def _select(self) -> None:
        """One box is chosen, and places are in it."""
        several = self.mine[(self.chosen > 0).any(1)]
        ends = self.neurons.real[several].sum(1) - 1.0
        self.matrix.add_plain(phase_sums(self.neurons, several, self.matrix.width), ends, ends)
        neuron, piece, argument = ((self.within > 0) & (self.chosen > 0)[:, :, None]).nonzero()
        own, number = np.zeros((len(neuron), self.matrix.width)), np.arange(len(neuron))
        own[number, self.within[neuron, piece, argument]] = 1.0
        own[number, self.chosen[neuron, piece]] = 1.0
        self.matrix.add_plain(own, np.full(len(own), -np.inf), np.ones(len(own)))

    def _put_steps(self, own: np.ndarray, values: np.ndarray) -> np.ndarray:
        """sum_j (values_j - values_0) s_j  into the rows, but for the constant `[n]` that is returned; `[n, M]`."""
        steps = np.where(self.chosen > 0, values - values[:, :1], 0.0)
        _put(own, self.chosen, -steps)
        return steps.sum(1)

    def _empty(self) -> np.ndarray:
        return np.zeros((self.count, self.matrix.width))


def _put(own: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Coefficients `[n, M]` of `columns` `[n, M]` (none where 0) of rows `own`."""
    row, place = (columns > 0).nonzero()
    own[row, columns[row, place]] = values[row, place]
