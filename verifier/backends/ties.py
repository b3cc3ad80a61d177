"""Rows that tie the columns of bends and of choices to their arguments."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from verifier.backends.columns import EPS, Neurons
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
    sums, real = phase_sums(neurons, mine, matrix.width), neurons.real[mine]
    matrix.add_plain(sums, np.full(len(mine), -np.inf), real.sum(1) - 1.0, implied=True)


def phase_sums(neurons: Neurons, mine: np.ndarray, width: int) -> np.ndarray:
    """Rows `[n, width]` that add up the columns of the phases of each of these neurons."""
    own = np.zeros((len(mine), width))
    for place, neuron in enumerate(mine):
        own[place, neurons.columns[neuron][neurons.real[neuron]]] = 1.0
    return own
