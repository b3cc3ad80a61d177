"""The columns of an encoding at points of the real network, in exact arithmetic: whatever they break is not sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from verifier.backends.encoding import Encoding
from verifier.backends.neurons import NodeNeurons
from verifier.core.flat import flat
from verifier.core.graph import Graph

Values = Sequence[Sequence[Fraction]]
"""By node and flat position."""


def columns_at(encoding: Encoding, graph: Graph, values: Values, margin: Fraction) -> list[Fraction]:
    """`values` of all nodes at an input, and the largest margin of the rows there."""
    neurons, point = encoding.neurons, list(values[0])
    point += [Fraction(0)] * (len(encoding.program.cost) - len(point))
    seen: dict[int, int] = {}
    for number, node in enumerate(neurons.node.tolist()):
        place = seen[node] = seen.get(node, -1) + 1
        element = int(encoding.groups[node].elements[place])
        arguments = [values[source][element] for source in graph.nodes[node].inputs]
        if neurons.bend[number]:
            _fill_bend(encoding, number, place, arguments[0], values[node][element], point)
        elif neurons.enclosed[number]:
            _fill_pieces(encoding, number, place, arguments, values[node][element], point)
        else:
            _fill_choice(encoding, number, encoding.groups[node], place, arguments, values[node][element], point)
    point[-1] = margin
    return point


def _fill_bend(encoding: Encoding, number: int, place: int, z: Fraction, y: Fraction, point: list[Fraction]) -> None:
    """At a jump as far as the value says."""
    neurons = encoding.neurons
    real, group = neurons.real[number], encoding.groups[int(neurons.node[number])]
    planes, element = group.planes, int(group.elements[place])
    assert planes.lower_intercept is not None
    ends = [flat(end)[0, element].item() for end in (planes.lower_intercept, planes.upper_intercept)]
    value, left = (Fraction(ends[0]) + Fraction(ends[1])) / 2, z - Fraction(float(neurons.start[number]))
    columns = zip(neurons.columns[number][real], neurons.sizes[number][real], neurons.gains[number][real], strict=True)
    for column, size, gain in columns:
        if size:
            share = left / Fraction(float(size))
        else:
            share = (y - value) / Fraction(float(gain)) if left == 0 else Fraction(left > 0)
        point[column] = min(max(share, Fraction(0)), Fraction(1))
        left, value = left - Fraction(float(size)), value + Fraction(float(gain))


def _fill_choice(
    encoding: Encoding,
    number: int,
    group: NodeNeurons,
    place: int,
    arguments: list[Fraction],
    y: Fraction,
    point: list[Fraction],
) -> None:
    neurons = encoding.neurons
    real = neurons.real[number]
    which = group.source[place][real[: group.source.shape[1]]].tolist()
    for column, gain, argument in zip(
        neurons.columns[number][real].tolist(), neurons.gains[number][real].tolist(), which, strict=True
    ):
        point[column] = (y - arguments[argument]) / Fraction(gain or 1)


def _fill_pieces(
    encoding: Encoding, number: int, place: int, arguments: list[Fraction], y: Fraction, point: list[Fraction]
) -> None:
    """In the first of the boxes that has the arguments: there is one."""
    neurons, node = encoding.neurons, int(encoding.neurons.node[number])
    pieces, within = encoding.groups[node].pieces, encoding.neurons.within[node]
    assert pieces is not None
    point[neurons.own[number]] = (y - Fraction(float(neurons.start[number]))) / Fraction(float(neurons.spread[number]))
    boxes = [
        piece
        for piece in pieces.real[place].nonzero()[0]
        if all(
            Fraction(low) <= z <= Fraction(high)
            for low, z, high in zip(
                pieces.lower[place, piece].tolist(), arguments, pieces.upper[place, piece].tolist(), strict=True
            )
        )
    ]
    chosen = boxes[0]
    for slot in neurons.real[number].nonzero()[0]:
        point[neurons.columns[number, slot]] = Fraction(int(slot != chosen))
    for argument, z in enumerate(arguments):
        low, high = pieces.lower[place, chosen, argument], pieces.upper[place, chosen, argument]
        if within[place, chosen, argument]:
            wide = Fraction(float(np.nextafter(high - low, np.inf)))
            point[within[place, chosen, argument]] = (z - Fraction(float(low))) / wide


def in_phases(encoding: Encoding, point: list[Fraction]) -> list[Fraction]:
    """The columns of the mixed-integer program: a binary is 1 where its column has begun, idle columns are left out."""
    neurons = encoding.neurons
    slot = np.arange(neurons.real.shape[1])
    marked = neurons.real & (neurons.choice[:, None] | (neurons.bend[:, None] & (slot > 0)))
    idle = neurons.columns[neurons.bend & (neurons.real.sum(1) > 1) & (neurons.gains[:, 0] == 0), 0]
    binaries = [Fraction(point[column] > 0) for column in neurons.columns[marked].tolist()]
    return [value for column, value in enumerate(point) if column not in idle] + binaries


def inside(matrix: np.ndarray, low: np.ndarray, high: np.ndarray, point: list[Fraction]) -> bool:
    """Whether  low <= matrix point <= high."""
    for row, least, most in zip(matrix.tolist(), low.tolist(), high.tolist(), strict=True):
        value = sum((Fraction(a) * v for a, v in zip(row, point, strict=True) if a), Fraction(0))
        if (np.isfinite(least) and value < Fraction(least)) or (np.isfinite(most) and value > Fraction(most)):
            return False
    return True


def between(lower: np.ndarray, upper: np.ndarray, point: list[Fraction]) -> bool:
    """Whether each column is between its ends."""
    ends = zip(lower.tolist(), point, upper.tolist(), strict=True)
    return all(Fraction(low) <= value <= Fraction(high) for low, value, high in ends)
