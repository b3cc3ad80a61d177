"""Rows over nodes of the network, brought back to the columns of a linear program.

The backward pass of the bounds does it, and stops at undecided neurons; what it may be wrong by widens the row. So
rows are exact data, and what they say holds for the real network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.backends.columns import EPS, Neurons
from verifier.backends.neurons import NodeNeurons
from verifier.backends.subproblem import Subproblem
from verifier.bounding.backward import Walk
from verifier.bounding.nodes import NodeBounds
from verifier.core.flat import flat


@dataclass(frozen=True, eq=False)
class Rows:
    """`low <= value - x - d <= high` for rows over nodes, where x, d are `inputs` `[n, inputs]` and `columns`
    `[n, columns]` times the columns; `reads` `[n, N]`: how the value of each neuron enters."""

    inputs: np.ndarray
    columns: np.ndarray
    reads: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Substitution:
    """Everything but the inputs and the columns of the neurons of `groups` is substituted away."""

    def __init__(self, subproblem: Subproblem, groups: dict[int, NodeNeurons], neurons: Neurons) -> None:
        self.program = subproblem.program
        self.lower, self.upper = (flat(end)[0].numpy() for end in (subproblem.box.lower, subproblem.box.upper))
        self.groups, self.neurons = groups, neurons
        planes = {position: group.planes for position, group in groups.items()}
        self.found = NodeBounds(subproblem.found.intervals, planes, known=subproblem.found.reach)

    def rows(self, start: dict[int, Tensor], bias: Tensor, exact: bool = True) -> Rows:
        """Of `start[node]` `[n, *shape]` plus `bias` `[n]`, with coefficients that are `exact` or off by a rounding."""
        both = {k: torch.cat([v, -v]).unsqueeze(0) for k, v in start.items()}
        ends = torch.cat([bias, -bias]).unsqueeze(0)
        walk = Walk(self.program, both, ends, self.found, int(not exact))
        reads = np.zeros((2 * len(bias), len(self.neurons)))
        for position in range(max(start), 0, -1):
            if position not in walk.pending:
                continue
            group = self.groups.get(position)
            if group is not None and len(group.elements):
                read = walk.read(position, group.elements, group.reach)[0]
                reads[:, self.neurons.of(position)] = read.numpy()
            walk.cross(position)
        form = walk.arrive()
        inputs = flat(form.coefficients, 2)[0].numpy()
        columns, slack = self.neurons.spread_out(reads)
        low = (form.bias - form.debt)[0].numpy() - slack
        low = low - 4 * EPS * np.abs(form.bias[0].numpy())
        half = len(bias)
        # both passes should have the same coefficients; where rounding parted them, the row is widened
        apart = np.abs(inputs[:half] + inputs[half:]) @ np.maximum(np.abs(self.lower), np.abs(self.upper))
        apart = apart + np.abs(columns[:half] + columns[half:]).sum(1)
        width = len(self.lower) + self.neurons.count + 1
        high = -low[half:] + apart * (1 + EPS * width)
        return Rows(inputs[:half], columns[:half], reads[:half], low[:half], high)

    def arguments(self, source: int, elements: Tensor) -> Rows:
        """The values of some elements of a node."""
        return self.rows({source: self.one_hot(source, elements)}, torch.zeros(len(elements), dtype=torch.float64))

    def one_hot(self, source: int, elements: Tensor) -> Tensor:
        """Rows `[k, *shape]` that each read one element `[k]`."""
        node = self.program.graph.nodes[source]
        rows = torch.zeros((len(elements), node.size), dtype=torch.float64)
        rows[torch.arange(len(elements)), elements] = 1.0
        return rows.reshape(len(elements), *node.shape)


class Matrix:
    """The rows of a linear program, as they are added."""

    def __init__(self, width: int, inputs: int, neurons: int) -> None:
        self.width, self.inputs, self.neurons = width, inputs, neurons
        self.blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.count = 0

    def add(self, rows: Rows, own: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
        """Rows  low <= own - value <= high, with `own` `[n, width]` over the columns; returns where they begin."""
        matrix = own.copy()
        matrix[:, : self.inputs] -= rows.inputs
        matrix[:, self.inputs : -1] -= rows.columns
        return self._append(matrix, low, high, -rows.reads, implied=False)

    def add_plain(self, matrix: np.ndarray, low: np.ndarray, high: np.ndarray, implied: bool = False) -> None:
        """Rows  low <= matrix v <= high  over the columns themselves. `implied`: they hold in every phase."""
        self._append(matrix, low, high, np.zeros((len(matrix), self.neurons)), implied)

    def _append(self, matrix: np.ndarray, low: np.ndarray, high: np.ndarray, reads: np.ndarray, implied: bool) -> int:
        first, self.count = self.count, self.count + len(matrix)
        self.blocks.append((matrix, low, high, reads, np.full(len(matrix), implied)))
        return first

    def copy(self) -> Matrix:
        """To which rows can be added without adding them to this one."""
        other = Matrix(self.width, self.inputs, self.neurons)
        other.blocks, other.count = list(self.blocks), self.count
        return other

    def joined(self) -> tuple[np.ndarray, ...]:
        """Matrix, low and high ends, reads of the neurons, mask of the implied rows."""
        return tuple(np.concatenate(part) for part in zip(*self.blocks, strict=True))
