"""Rows that tie the columns of undecided neurons to their arguments and values, one function for each kind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from verifier.backends.columns import EPS
from verifier.backends.pieces import Pieces, Side
from verifier.backends.rows import Matrix, Substitution


def tie_bends(substitution: Substitution, matrix: Matrix, position: int) -> None:
    """sum_i sizes_i d_i = z - l  for each neuron of a node."""
    group, neurons = substitution.groups[position], substitution.neurons
    (source,) = substitution.program.graph.nodes[position].inputs
    count, mine = len(group.elements), neurons.of(position)
    rows = substitution.arguments(source, group.elements)
    own = np.zeros((count, matrix.width))
    places = np.arange(count)[:, None].repeat(neurons.real.shape[1], 1)
    real = neurons.real[mine]
    own[places[real], neurons.columns[mine][real]] = neurons.sizes[mine][real]
    slack = group.slack + 2 * EPS * (np.abs(rows.low) + np.abs(rows.high) + np.abs(group.start))
    low, high = rows.low - group.start - slack, rows.high - group.start + slack
    neurons.row[mine] = matrix.add(rows, own, low, high) + np.arange(count)


def tie_choices(substitution: Substitution, matrix: Matrix, position: int) -> None:
    """z_i + U_i d_i = z_0 + U_0 d_0  for each argument i of each neuron, and one d is 0."""
    group, neurons = substitution.groups[position], substitution.neurons
    sources, mine = substitution.program.graph.nodes[position].inputs, neurons.of(position)
    neuron, slot = group.real.nonzero()
    neuron, slot = neuron[slot > 0], slot[slot > 0]
    start: dict[int, Tensor] = {}
    for places, sign in ((slot, 1.0), (np.zeros_like(slot), -1.0)):
        argument = group.source[neuron, places]
        for place, source in enumerate(sources):
            rows = substitution.one_hot(source, group.elements[torch.from_numpy(neuron)])
            rows = rows * torch.from_numpy(sign * (argument == place)).reshape(-1, *[1] * (rows.ndim - 1))
            start[source] = start[source] + rows if source in start else rows
    value = substitution.rows(start, torch.zeros(len(neuron), dtype=torch.float64))
    own = np.zeros((len(neuron), matrix.width))
    number = np.arange(len(neuron))
    columns, gains = neurons.columns[mine], neurons.gains[mine]
    own[number, columns[neuron, 0]] = gains[neuron, 0]
    own[number, columns[neuron, slot]] = -gains[neuron, slot]
    slack = EPS * (np.abs(value.low) + np.abs(value.high))
    matrix.add(value, own, value.low - slack, value.high + slack)
    sums, real = _sums(substitution, matrix, mine), neurons.real[mine]
    matrix.add_plain(sums, np.full(len(mine), -np.inf), real.sum(1) - 1.0, implied=True)


def tie_pieces(substitution: Substitution, matrix: Matrix, position: int, pieces: Pieces, within: np.ndarray) -> None:
    """With s_j = 1 - d_j, 1 for the box of the arguments and 0 for the others, and places 0 <= e_ij <= s_j in them:

        sum_j s_j = 1,  z_i = sum_j (l_ij s_j + w_ij e_ij),  y >= sum_j (a_j . l_j + c_j) s_j + sum_ij a_ij w_ij e_ij

    for planes  a_j . z + c_j  below f over box j, and the same above. Of all linear rows these are the tightest: the
    program without integers is the convex hull of what is between the planes (Balas 1979, disjunctive programming).
    """
    group, neurons = substitution.groups[position], substitution.neurons
    mine = neurons.of(position)
    wide = np.where(within > 0, np.nextafter(pieces.upper - pieces.lower, np.inf), 0.0)
    for place, source in enumerate(substitution.program.graph.nodes[position].inputs):
        rows = substitution.arguments(source, group.elements)
        lower = np.where(pieces.real, pieces.lower[:, :, place], pieces.lower[:, :1, place])
        steps = lower - lower[:, :1]
        own, first = np.zeros((len(mine), matrix.width)), lower[:, 0]
        constant = _put_selection(own, substitution, mine, steps)
        _put(own, within[:, :, place], wide[:, :, place])
        size = np.abs(lower).sum(1) + np.abs(wide[:, :, place]).sum(1) + np.abs(rows.low) + np.abs(rows.high)
        slack = 4 * EPS * lower.shape[1] * size + float(np.finfo(float).tiny)
        matrix.add(rows, own, rows.low - first - constant - slack, rows.high - first - constant + slack)
    for sides, sign in ((pieces.below, 1.0), (pieces.above, -1.0)):
        for side in sides:
            _bound_value(substitution, matrix, mine, pieces, within, wide, side, sign)
    _select(substitution, matrix, mine, within)


def _bound_value(
    substitution: Substitution,
    matrix: Matrix,
    mine: np.ndarray,
    pieces: Pieces,
    within: np.ndarray,
    wide: np.ndarray,
    side: Side,
    sign: float,
) -> None:
    """The row of y and one plane of each box: y is above it (`sign` 1) or below it (-1)."""
    neurons = substitution.neurons
    at_lower = (side.slopes * pieces.lower).sum(2) + side.intercept
    own = np.zeros((len(mine), matrix.width))
    constant = at_lower[:, 0] + _put_selection(own, substitution, mine, at_lower - at_lower[:, :1])
    for place in range(within.shape[2]):
        _put(own, within[:, :, place], (side.slopes * wide)[:, :, place])
    own = -own
    own[np.arange(len(mine)), neurons.own[mine]] = neurons.spread[mine]
    largest = np.abs(pieces.lower) + wide
    size = (np.abs(side.slopes) * largest).sum(2) + np.abs(side.intercept) + np.abs(at_lower) + np.abs(at_lower[:, :1])
    size = size.sum(1) + np.abs(neurons.start[mine]) + neurons.spread[mine]
    slack = 4 * EPS * (within.shape[2] + within.shape[1]) * size + float(np.finfo(float).tiny)
    # start + spread e  against  constant + own part
    end = constant - neurons.start[mine] - sign * slack
    none = np.full(len(mine), sign * np.inf)
    matrix.add_plain(own, *((end, none) if sign > 0 else (none, end)))


def _select(substitution: Substitution, matrix: Matrix, mine: np.ndarray, within: np.ndarray) -> None:
    """One box is chosen, and places are in it; of neurons with several boxes."""
    neurons = substitution.neurons
    several = mine[neurons.real[mine].any(1)]
    sums, ends = _sums(substitution, matrix, several), neurons.real[several].sum(1) - 1.0
    matrix.add_plain(sums, ends, ends)
    columns, real = neurons.columns[mine][:, : within.shape[1]], neurons.real[mine][:, : within.shape[1]]
    neuron, piece, argument = ((within > 0) & real[:, :, None]).nonzero()
    own, number = np.zeros((len(neuron), matrix.width)), np.arange(len(neuron))
    own[number, within[neuron, piece, argument]] = 1.0
    own[number, columns[neuron, piece]] = 1.0
    matrix.add_plain(own, np.full(len(own), -np.inf), np.ones(len(own)))


def _put_selection(own: np.ndarray, substitution: Substitution, mine: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_j values_j s_j  into rows `own`, but for the constant `[n]` that is returned; `values` `[n, M]`."""
    neurons = substitution.neurons
    count = values.shape[1]
    real = neurons.real[mine][:, :count]
    _put(own, np.where(real, neurons.columns[mine][:, :count], 0), -values)
    return np.where(real, values, 0.0).sum(1)


def _put(own: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Coefficients `[n, M]` of `columns` `[n, M]` (none where 0) of rows `own`."""
    row, place = (columns > 0).nonzero()
    own[row, columns[row, place]] = values[row, place]


def _sums(substitution: Substitution, matrix: Matrix, mine: np.ndarray) -> np.ndarray:
    """Rows that add up the columns of the phases of each of these neurons."""
    neurons = substitution.neurons
    own = np.zeros((len(mine), matrix.width))
    for place, neuron in enumerate(mine):
        own[place, neurons.columns[neuron][neurons.real[neuron]]] = 1.0
    return own
