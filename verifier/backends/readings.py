"""What a point of an encoding says of the functions that lie between planes: their arguments, pieces and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from verifier.backends.encoding import Encoding
from verifier.backends.pieces import Pieces
from verifier.backends.subproblem import Subproblem
from verifier.core.operator import Elementwise

NEGLIGIBLE = 1e-7  # of a neuron's range: errors below it are rounding


@dataclass(frozen=True, eq=False)
class Reading:
    """Of the `n` neurons with pieces of node `position`: `arguments` `[n, k]`, the piece `chosen` `[n]`, and `error`
    `[n]`, the distance of the value from the function of these arguments, 0 where it is mere rounding."""

    position: int
    elements: np.ndarray
    pieces: Pieces
    arguments: np.ndarray
    chosen: np.ndarray
    error: np.ndarray


def readings(subproblem: Subproblem, encoding: Encoding, point: np.ndarray) -> Iterator[Reading]:
    """At the columns `point` `[columns]`."""
    neurons = encoding.neurons
    for position, within in encoding.neurons.within.items():
        group, mine = encoding.groups[position], neurons.of(position)
        pieces, node = group.pieces, subproblem.program.graph.nodes[position]
        assert pieces is not None and isinstance(node.op, Elementwise)
        count = within.shape[1]
        several = neurons.real[mine][:, :count]
        share = np.where(several, 1 - point[neurons.columns[mine][:, :count]], 0.0)
        share[~several.any(1), 0] = 1.0
        inside = np.where(within > 0, point[within] * (pieces.upper - pieces.lower), 0.0)
        arguments = (pieces.lower * share[:, :, None] + inside).sum(1)
        function = node.op.elements(group.elements, node.shape)
        exact = function.evaluate(*(torch.from_numpy(x)[None] for x in arguments.T.copy()))[0].numpy()
        value = neurons.start[mine] + neurons.spread[mine] * point[neurons.own[mine]]
        error = np.nan_to_num(np.abs(value - exact), nan=np.inf)
        error[error <= NEGLIGIBLE * neurons.spread[mine]] = 0.0
        yield Reading(position, group.elements.numpy(), pieces, arguments, share.argmax(1), error)


def leaves(subproblem: Subproblem, encoding: Encoding, point: np.ndarray) -> bool:
    """Whether a point has a value that is not that of its function."""
    return any(bool(reading.error.any()) for reading in readings(subproblem, encoding, point))
