"""A subproblem as a mixed-integer program, compact: binaries for the phases of undecided neurons only. All else of the
network is substituted away by the encoding of the relaxation, whose rows this program shares.

    bend    columns d_0 >= d_1 >= ... of the segments; binaries  d_i <= b_i <= d_i-1  let d_i begin only where d_i-1 is
            full (Dantzig 1960). Of a single bend this is the formulation of Tjeng 2019, with the tightest big-M.
    choice  binaries  d_i <= b_i,  sum_i b_i <= k - 1:  one of the k columns is 0.
    pieces  the columns that say in which box the arguments are not become binaries themselves.

A segment that adds nothing to the value, as the first one of a Relu, stands in its neuron's own row only and is
projected out:  low <= s d_0 + r <= high  with  b_1 <= d_0 <= 1  becomes  s b_1 + r <= high  and  low - s <= r.
So a Relu has two columns and three rows.
"""

from __future__ import annotations

import numpy as np

from verifier.backends.columns import BESIDE, Neurons
from verifier.backends.encoding import Encoding
from verifier.backends.protocol import MixedProgram

_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A matrix `[rows, columns]` and the ends `[rows]` between which its product lies."""


def mixed_program(encoding: Encoding, apart: bool = False) -> MixedProgram:
    """Its points with integral binaries are those of the encoding in which every neuron is in a phase. The inputs come
    first, as in the encoding. `apart`: only points at a distance from jumps, where a violation is one of the network;
    that there is none of these proves nothing."""
    old, neurons = encoding.program, encoding.neurons
    bend, slot = neurons.bend[:, None], np.arange(neurons.real.shape[1])
    later, choices = neurons.real & bend & (slot > 0), neurons.real & neurons.choice[:, None]
    marked = later | choices
    binary = np.zeros(marked.shape, dtype=int)
    binary[marked] = len(old.cost) + np.arange(marked.sum())
    width = len(old.cost) + int(marked.sum())
    before = np.roll(neurons.columns, 1, axis=1)
    idle = _idle(encoding, apart)
    own, low = np.pad(old.matrix, ((0, 0), (0, width - len(old.cost)))), old.low.copy()
    floors = _project(own, low, neurons.row[idle.any(1)], before[idle], binary[idle])
    kept = ~encoding.implied
    blocks = [
        (own[kept], low[kept], old.high[kept]),
        floors,
        _at_most(width, neurons.columns[marked], binary[marked]),
        _at_most(width, binary[later & ~idle], before[later & ~idle]),
        _one_is_zero(width, binary[choices], choices.nonzero()[0]),
    ]
    if apart:
        blocks += _beside_jumps(width, neurons, binary)
    matrix, low, high = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    left = np.append(_left(encoding, apart), np.ones(width - len(old.cost), dtype=bool))
    ends = [np.pad(end, (0, width - len(end)), constant_values=fill) for end, fill in ((old.lower, 0), (old.upper, 1))]
    cost, integral = np.pad(old.cost, (0, width - len(old.cost))), np.arange(width) >= len(old.cost)
    integral[neurons.columns[neurons.real & neurons.enclosed[:, None]]] = True
    return MixedProgram(cost[left], matrix[:, left], low, high, ends[0][left], ends[1][left], integral[left])


def unmixed(encoding: Encoding, point: np.ndarray) -> np.ndarray:
    """The columns of the encoding at a point of its mixed-integer program; those that it does without are 0."""
    left = _left(encoding, apart=False)
    columns = np.zeros(len(left))
    columns[left] = point[: left.sum()]
    return columns


def _idle(encoding: Encoding, apart: bool) -> np.ndarray:
    """Mask `[N, K]` of the second segments of bends whose first one adds nothing to the value; none if `apart`, where
    the first one has a row of its own."""
    neurons = encoding.neurons
    if apart:
        return np.zeros_like(neurons.real)
    second = np.arange(neurons.real.shape[1]) == 1
    return neurons.real & neurons.bend[:, None] & second & (np.roll(neurons.gains, 1, axis=1) == 0)


def _left(encoding: Encoding, apart: bool) -> np.ndarray:
    """Mask of the columns of the encoding that the mixed-integer program keeps."""
    left = np.ones(len(encoding.program.cost), dtype=bool)
    left[np.roll(encoding.neurons.columns, 1, axis=1)[_idle(encoding, apart)]] = False
    return left


def _project(matrix: np.ndarray, low: np.ndarray, row: np.ndarray, column: np.ndarray, binary: np.ndarray) -> _Rows:
    """Take each `column` out of the only `row` that it stands in, in place; the rows that come with it."""
    size = matrix[row, column].copy()
    matrix[row, column] = 0.0
    floors = matrix[row].copy(), np.nextafter(low[row] - size, -np.inf), np.full(len(row), np.inf)
    matrix[row, binary], low[row] = size, -np.inf
    return floors


def _at_most(width: int, small: np.ndarray, large: np.ndarray) -> _Rows:
    """Rows  v_small - v_large <= 0."""
    number = np.arange(len(small))
    matrix = np.zeros((len(small), width))
    matrix[number, small], matrix[number, large] = 1.0, -1.0
    return matrix, np.full(len(small), -np.inf), np.zeros(len(small))


def _beside_jumps(width: int, neurons: Neurons, binary: np.ndarray) -> list[_Rows]:
    """With c the share of each jump: c = b, the segment before it ends at  1 - s (1 - b)  and that behind it begins at
    s b."""
    jump = neurons.jumps & (binary > 0)
    before, columns = np.roll(neurons.columns, 1, axis=1), np.pad(neurons.columns, ((0, 0), (0, 1)))
    last = np.pad(neurons.real, ((0, 0), (0, 1)))[:, 1:]
    ends = _at_most(width, before[jump], binary[jump])
    ends[0][np.arange(len(ends[0])), binary[jump]] = -BESIDE
    begins = _at_most(width, binary[jump & last], columns[:, 1:][jump & last])
    begins[0][np.arange(len(begins[0])), binary[jump & last]] = BESIDE
    return [_at_most(width, binary[jump], neurons.columns[jump]), (*ends[:2], ends[2] + 1 - BESIDE), begins]


def _one_is_zero(width: int, binary: np.ndarray, neuron: np.ndarray) -> _Rows:
    """Rows that bound the sum of the binaries of each neuron by one less than their number."""
    _, place, count = np.unique(neuron, return_inverse=True, return_counts=True)
    matrix = np.zeros((len(count), width))
    matrix[place, binary] = 1.0
    return matrix, np.full(len(count), -np.inf), count - 1.0
