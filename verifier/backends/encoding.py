"""A subproblem as a linear program whose solutions include every violation, rounding included.

Columns: the inputs, those of the undecided neurons (`neurons`), and last t, the largest margin of the disjunct's rows,
which is minimised: no violation where it stays positive. Everything else of the network is substituted away (`rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from verifier.backends.columns import EPS, Neurons, placed
from verifier.backends.neurons import NodeNeurons, node_neurons
from verifier.backends.piece_rows import PieceRows
from verifier.backends.protocol import Answer, LinearProgram
from verifier.backends.rows import Matrix, Rows, Substitution
from verifier.backends.subproblem import Subproblem
from verifier.backends.ties import tie_bends, tie_choices
from verifier.core.flat import flat
from verifier.core.operator import Elementwise
from verifier.core.verdict import Status
from verifier.errors import BackendError


@dataclass(frozen=True, eq=False)
class Encoding:
    """`program` with the `neurons` in it, by node in `groups`. `reads` `[rows, N]`: how the value of each neuron enters
    each row. `implied` `[rows]`: rows that follow from each neuron being in one of its phases."""

    program: LinearProgram
    neurons: Neurons
    groups: Mapping[int, NodeNeurons]
    reads: np.ndarray
    implied: np.ndarray
    inputs: int


def encoded(subproblem: Subproblem) -> Encoding | Answer:
    """The encoding, or the answer where none is needed. Raises `BackendError` where there is an obstacle."""
    reason = subproblem.obstacle()
    if reason is not None:
        raise BackendError(reason)
    if subproblem.contradicts():
        return Answer(Status.UNSAT, "the bounds of the neurons contradict each other", checked=True)
    try:
        return encode(subproblem)
    except MemoryError as error:
        raise BackendError("exact reasoning ran out of memory") from error


@torch.no_grad()
def encode(subproblem: Subproblem) -> Encoding:
    """Where there is no obstacle to it."""
    frame = Frame(subproblem)
    problem, which, graph = subproblem.problem, subproblem.which, subproblem.program.graph
    slots = (problem.owner[which] == subproblem.disjunct).nonzero().flatten()
    table, output = problem.row[which][slots], graph.output
    start = {output: problem.output_rows[table].reshape(-1, *graph.output_shape).double()}
    if problem.input_rows is not None:
        inputs = problem.input_rows[table].reshape(-1, *graph.input_shape).double()
        start[0] = inputs + start[0] if output == 0 else inputs
    return frame.encoding(frame.substitution.rows(start, problem.offset[which][slots].double(), problem.exact))


class Frame:
    """What all questions about a network over a box share: the columns, and every row but those of the margin."""

    def __init__(self, subproblem: Subproblem) -> None:
        program, found = subproblem.program, subproblem.found
        self.groups = {
            position: node_neurons(program, found, position, subproblem.cuts)
            for position, node in enumerate(program.graph.nodes[: program.graph.output + 1])
            if isinstance(node.op, Elementwise)
        }
        self.inputs = program.graph.nodes[0].size
        self.neurons = placed(self.groups, self.inputs)
        self.substitution = Substitution(subproblem, self.groups, self.neurons)
        self.matrix = Matrix(self.inputs + self.neurons.count + 1, self.inputs, len(self.neurons))
        for position, group in self.groups.items():
            _keep_splits(self.substitution, self.matrix, position)
            if len(group.elements):
                _tie(self.substitution, self.matrix, position)
        _link(self.neurons, self.matrix)

    def encoding(self, margins: Rows) -> Encoding:
        """Of a disjunct with these rows."""
        matrix, count = self.matrix.copy(), len(margins.low)
        own = np.zeros((count, matrix.width))
        own[:, -1] = 1.0
        matrix.add(margins, own, margins.low, np.full(count, np.inf))  # margin <= t
        lowest, highest = _ends(margins, self.substitution)
        cost = np.zeros(matrix.width)
        cost[-1] = 1.0
        lower = np.concatenate([self.substitution.lower, np.zeros(self.neurons.count), [lowest]])
        upper = np.concatenate([self.substitution.upper, np.ones(self.neurons.count), [highest]])
        coefficients, low, high, reads, implied = matrix.joined()
        linear = LinearProgram(cost, coefficients, low, high, lower, upper)
        return Encoding(linear, self.neurons, self.groups, reads, implied, self.inputs)


def _tie(substitution: Substitution, matrix: Matrix, position: int) -> None:
    """What the columns of a node's neurons have to do with its arguments."""
    group = substitution.groups[position]
    if group.bend:
        tie_bends(substitution, matrix, position)
    elif group.pieces is not None:
        PieceRows(substitution, matrix, position, group.pieces).add()
    else:
        tie_choices(substitution, matrix, position)


def _link(neurons: Neurons, matrix: Matrix) -> None:
    """d_i+1 <= d_i  along each bend."""
    real, columns = neurons.real & neurons.bend[:, None], neurons.columns
    neuron, slot = (real[:, 1:] & real[:, :-1]).nonzero()
    own = np.zeros((len(neuron), matrix.width))
    number = np.arange(len(neuron))
    own[number, columns[neuron, slot + 1]], own[number, columns[neuron, slot]] = 1.0, -1.0
    matrix.add_plain(own, np.full(len(own), -np.inf), np.zeros(len(own)), implied=True)


def _keep_splits(substitution: Substitution, matrix: Matrix, position: int) -> None:
    """A bound at a kink is where a search split: it does not follow from the box, so it needs a row."""
    node = substitution.program.graph.nodes[position]
    assert isinstance(node.op, Elementwise)
    kinks = node.op.kinks()
    if kinks is None:
        return
    (source,) = node.inputs
    bounds = substitution.found.intervals[source]
    at_kink = torch.zeros_like(bounds.lower, dtype=torch.bool)
    for kink in kinks:
        at_kink |= (bounds.lower == kink) | (bounds.upper == kink)
    elements = flat(at_kink)[0].nonzero().flatten()
    if not len(elements):
        return
    rows = substitution.arguments(source, elements)
    # value in [l, u], and value - x - d in [low, high]
    lower, upper = (flat(end)[0, elements].numpy() for end in (bounds.lower, bounds.upper))
    slack = 2 * EPS * (np.abs(rows.low) + np.abs(rows.high) + np.abs(lower) + np.abs(upper))
    own = np.zeros((len(elements), matrix.width))
    matrix.add(rows, own, rows.low - upper - slack, rows.high - lower + slack)


def _ends(rows: Rows, substitution: Substitution) -> tuple[float, float]:
    """Of the largest of the rows' values, over the box of the columns."""
    columns = rows.columns.shape[1]
    lower, upper = np.append(substitution.lower, np.zeros(columns)), np.append(substitution.upper, np.ones(columns))
    both = np.concatenate([rows.inputs, rows.columns], 1)
    size = np.abs(both) @ np.maximum(np.abs(lower), np.abs(upper)) + np.abs(rows.low) + np.abs(rows.high) + 1
    rounding = size * (EPS * (both.shape[1] + 1))
    lowest = np.minimum(both * lower, both * upper).sum(1) + rows.low - rounding
    highest = np.maximum(both * lower, both * upper).sum(1) + rows.high + rounding
    return float(lowest.max()), float(highest.max())
