"""A subproblem as a linear program whose solutions include every violation, rounding included.

Columns: the inputs, those of the undecided neurons (`neurons`), and last t, the largest margin of the disjunct's rows,
which is minimised: no violation where it stays positive. Everything else of the network is substituted away. A row over
some node is brought back to these columns by the backward pass of the bounds, which stops at undecided neurons; what
that pass may be wrong by widens the row. So the program is exact data, and a relaxation of the real network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.backends.neurons import NodeNeurons, node_neurons
from verifier.backends.protocol import Answer, LinearProgram
from verifier.backends.subproblem import Subproblem
from verifier.bounding.backward import Walk
from verifier.core.flat import flat
from verifier.core.operator import Elementwise
from verifier.core.rounding import unit
from verifier.core.verdict import Status
from verifier.errors import BackendError

EPS = 2 * unit(torch.float64)


@dataclass(frozen=True, eq=False)
class Neurons:
    """All `N` undecided neurons, in the order of their nodes, each with up to K columns; phase p of a neuron belongs to
    its column p. `columns` `[N, K]` (0 where not `real`); `sizes`, `gains`, `real` `[N, K]`, `bend`, `start` `[N]` as
    in `NodeNeurons`; `node` `[N]`; `row` `[N]` the row that ties a bend's columns to its argument, else -1."""

    columns: np.ndarray
    sizes: np.ndarray
    gains: np.ndarray
    real: np.ndarray
    bend: np.ndarray
    start: np.ndarray
    node: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.columns)

    def phase_bounds(self, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds `[N, K]` of the columns in each neuron's `phase` `[N]`, -1 for undecided."""
        place, chosen = np.arange(self.columns.shape[1]), phase[:, None]
        bend, free = self.bend[:, None], chosen < 0
        lower = np.where(bend & ~free, place < chosen, False)
        upper = np.where(free, True, np.where(bend, place <= chosen, place != chosen))
        return lower.astype(float), upper.astype(float)


@dataclass(frozen=True, eq=False)
class Encoding:
    """`program` with the `neurons` in it. `reads` `[rows, N]`: how the value of each neuron enters each row. `implied`
    `[rows]`: rows that follow from each neuron being in one of its phases."""

    program: LinearProgram
    neurons: Neurons
    reads: np.ndarray
    implied: np.ndarray
    inputs: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """`low <= value - x - d <= high` for rows over nodes, where x, d are `inputs` `[n, inputs]` and `columns`
    `[n, columns]` times the columns; `reads` `[n, N]`."""

    inputs: np.ndarray
    columns: np.ndarray
    reads: np.ndarray
    low: np.ndarray
    high: np.ndarray


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
    return _Encoder(subproblem).encode()


class _Encoder:
    def __init__(self, subproblem: Subproblem) -> None:
        self.subproblem = subproblem
        self.program, self.found, box = subproblem.program, subproblem.found, subproblem.box
        self.lower, self.upper = flat(box.lower)[0].numpy(), flat(box.upper)[0].numpy()
        self.inputs = len(self.lower)
        self.groups: dict[int, NodeNeurons] = {
            position: node_neurons(self.program, self.found, position)
            for position, node in enumerate(self.program.graph.nodes[: self.program.graph.output + 1])
            if isinstance(node.op, Elementwise)
        }
        self.planes = {position: group.planes for position, group in self.groups.items()}
        self.neurons = self._stack()
        self.width = self.inputs + int(self.neurons.real.sum()) + 1
        self.matrix: list[np.ndarray] = []
        self.reads: list[np.ndarray] = []
        self.low: list[np.ndarray] = []
        self.high: list[np.ndarray] = []
        self.implied: list[np.ndarray] = []

    def encode(self) -> Encoding:
        for position, group in self.groups.items():
            self._splits(position)
            if len(group.elements):
                if group.bend:
                    self._tie_bends(position, group)
                else:
                    self._tie_choices(position, group)
        self._link()
        lowest, highest = self._margins()
        cost = np.zeros(self.width)
        cost[-1] = 1.0
        columns = self.width - self.inputs - 1
        lower = np.concatenate([self.lower, np.zeros(columns), [lowest]])
        upper = np.concatenate([self.upper, np.ones(columns), [highest]])
        parts = (self.matrix, self.low, self.high, self.reads, self.implied)
        matrix, low, high, reads, implied = (np.concatenate(part) for part in parts)
        linear = LinearProgram(cost, matrix, low, high, lower, upper)
        return Encoding(linear, self.neurons, reads, implied, self.inputs)

    def _stack(self) -> Neurons:
        """The neurons of all nodes; their columns are numbered in order."""
        groups = [(position, group) for position, group in self.groups.items() if len(group.elements)]
        most = max((group.sizes.shape[1] for _, group in groups), default=1)
        pad = lambda part: np.pad(part, ((0, 0), (0, most - part.shape[1])))  # noqa: E731
        join = lambda parts, empty: np.concatenate(parts) if parts else empty  # noqa: E731
        none = np.zeros((0, most))
        real = join([pad(group.real) for _, group in groups], none.astype(bool))
        columns = np.where(real, self.inputs - 1 + real.cumsum().reshape(real.shape), 0)
        return Neurons(
            columns=columns,
            sizes=join([pad(group.sizes) for _, group in groups], none),
            gains=join([pad(group.gains) for _, group in groups], none),
            real=real,
            bend=join([np.full(len(group.elements), group.bend) for _, group in groups], np.zeros(0, bool)),
            start=join([group.start for _, group in groups], np.zeros(0)),
            node=join([np.full(len(group.elements), position) for position, group in groups], np.zeros(0, int)),
            row=np.full(len(real), -1),
        )

    def _of(self, position: int) -> np.ndarray:
        """Numbers of the neurons of a node."""
        return (self.neurons.node == position).nonzero()[0]

    def _rows(self, start: dict[int, Tensor], bias: Tensor, exact: bool = True) -> _Rows:
        """Rows `start[node]` `[n, *shape]` plus `bias` `[n]` over the columns."""
        both = {k: torch.cat([v, -v]).unsqueeze(0) for k, v in start.items()}
        walk = Walk(
            self.program, both, torch.cat([bias, -bias]).unsqueeze(0), self.found.intervals, self.planes, int(not exact)
        )
        reads = np.zeros((2 * len(bias), len(self.neurons)))
        for position in range(max(start), 0, -1):
            if position not in walk.pending:
                continue
            group = self.groups.get(position)
            if group is not None and len(group.elements):
                reads[:, self._of(position)] = walk.read(position, group.elements, group.reach)[0].numpy()
            walk.cross(position)
        form = walk.arrive()
        inputs = flat(form.coefficients, 2)[0].numpy()
        columns, slack = self._spread(reads)
        ends = (form.bias - form.debt)[0].numpy() - slack
        ends = ends - 4 * EPS * np.abs(form.bias[0].numpy())
        half = len(bias)
        # both passes should have the same coefficients; where rounding parted them, the row is widened
        apart = np.abs(inputs[:half] + inputs[half:]) @ np.maximum(np.abs(self.lower), np.abs(self.upper))
        apart = apart + np.abs(columns[:half] + columns[half:]).sum(1)
        high = -ends[half:] + apart * (1 + EPS * self.width)
        return _Rows(inputs[:half], columns[:half], reads[:half], ends[:half], high)

    def _spread(self, reads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the neurons' columns `[n, columns]`, and how wrong their rounding may make a row `[n]`."""
        real = self.neurons.real
        columns = (reads[:, :, None] * np.where(self._carries(), self.neurons.gains, 0.0))[:, real]
        return columns, np.abs(columns).sum(1) * (2 * EPS) + float(np.finfo(float).tiny) * columns.shape[1]

    def _carries(self) -> np.ndarray:
        """Mask `[N, K]` of the columns that the value is written with: of a choice, only the first."""
        return self.neurons.bend[:, None] | (np.arange(self.neurons.real.shape[1]) == 0)

    def _add(self, rows: _Rows, own: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
        """Rows  low <= own - value <= high, with `own` `[n, width]` over the columns; returns where they begin."""
        first = sum(map(len, self.matrix))
        matrix = own.copy()
        matrix[:, : self.inputs] -= rows.inputs
        matrix[:, self.inputs : -1] -= rows.columns
        self.matrix.append(matrix)
        self.reads.append(-rows.reads)
        self.implied.append(np.zeros(len(matrix), dtype=bool))
        self.low.append(low)
        self.high.append(high)
        return first

    def _tie_bends(self, position: int, group: NodeNeurons) -> None:
        """sum_i sizes_i d_i = z - l  for each neuron of a node."""
        (source,) = self.program.graph.nodes[position].inputs
        count, mine = len(group.elements), self._of(position)
        rows = self._rows({source: self._one_hot(source, group.elements)}, torch.zeros(count, dtype=torch.float64))
        own = np.zeros((count, self.width))
        places = np.arange(count)[:, None].repeat(self.neurons.real.shape[1], 1)
        real = self.neurons.real[mine]
        own[places[real], self.neurons.columns[mine][real]] = self.neurons.sizes[mine][real]
        slack = group.slack + 2 * EPS * (np.abs(rows.low) + np.abs(rows.high) + np.abs(group.start))
        low, high = rows.low - group.start - slack, rows.high - group.start + slack
        self.neurons.row[mine] = self._add(rows, own, low, high) + np.arange(count)

    def _tie_choices(self, position: int, group: NodeNeurons) -> None:
        """z_i + U_i d_i = z_0 + U_0 d_0  for each argument i of each neuron, and one d is 0."""
        sources, mine = self.program.graph.nodes[position].inputs, self._of(position)
        neuron, slot = group.real.nonzero()
        neuron, slot = neuron[slot > 0], slot[slot > 0]
        start: dict[int, Tensor] = {}
        for places, sign in ((slot, 1.0), (np.zeros_like(slot), -1.0)):
            argument = group.source[neuron, places]
            for place, source in enumerate(sources):
                rows = self._one_hot(source, group.elements[torch.from_numpy(neuron)])
                rows = rows * torch.from_numpy(sign * (argument == place)).reshape(-1, *[1] * (rows.ndim - 1))
                start[source] = start[source] + rows if source in start else rows
        value = self._rows(start, torch.zeros(len(neuron), dtype=torch.float64))
        own = np.zeros((len(neuron), self.width))
        number = np.arange(len(neuron))
        columns, gains = self.neurons.columns[mine], self.neurons.gains[mine]
        own[number, columns[neuron, 0]] = gains[neuron, 0]
        own[number, columns[neuron, slot]] = -gains[neuron, slot]
        slack = EPS * (np.abs(value.low) + np.abs(value.high))
        self._add(value, own, value.low - slack, value.high + slack)
        self._add_implied(self._incidence(mine), self.neurons.real[mine].sum(1) - 1.0)

    def _incidence(self, mine: np.ndarray) -> np.ndarray:
        """Rows that add up the columns of each of these neurons."""
        own = np.zeros((len(mine), self.width))
        for place, neuron in enumerate(mine):
            own[place, self.neurons.columns[neuron][self.neurons.real[neuron]]] = 1.0
        return own

    def _link(self) -> None:
        """d_i+1 <= d_i  along each bend."""
        real, columns = self.neurons.real & self.neurons.bend[:, None], self.neurons.columns
        neuron, slot = (real[:, 1:] & real[:, :-1]).nonzero()
        own = np.zeros((len(neuron), self.width))
        number = np.arange(len(neuron))
        own[number, columns[neuron, slot + 1]], own[number, columns[neuron, slot]] = 1.0, -1.0
        self._add_implied(own, np.zeros(len(neuron)))

    def _add_implied(self, matrix: np.ndarray, high: np.ndarray) -> None:
        """Rows  matrix v <= high  over the columns themselves, which hold in every phase."""
        self.matrix.append(matrix)
        self.reads.append(np.zeros((len(matrix), len(self.neurons))))
        self.implied.append(np.ones(len(matrix), dtype=bool))
        self.low.append(np.full(len(matrix), -np.inf))
        self.high.append(high)

    def _splits(self, position: int) -> None:
        """A bound at a kink is where a search split: it does not follow from the box, so it needs a row."""
        node = self.program.graph.nodes[position]
        assert isinstance(node.op, Elementwise)
        kinks = node.op.kinks()
        if kinks is None:
            return
        (source,) = node.inputs
        bounds = self.found.intervals[source]
        at_kink = torch.zeros_like(bounds.lower, dtype=torch.bool)
        for kink in kinks:
            at_kink |= (bounds.lower == kink) | (bounds.upper == kink)
        elements = flat(at_kink)[0].nonzero().flatten()
        if not len(elements):
            return
        rows = self._rows({source: self._one_hot(source, elements)}, torch.zeros(len(elements), dtype=torch.float64))
        # value in [l, u], and value - x - d in [low, high]
        lower, upper = (flat(end)[0, elements].numpy() for end in (bounds.lower, bounds.upper))
        slack = 2 * EPS * (np.abs(rows.low) + np.abs(rows.high) + np.abs(lower) + np.abs(upper))
        self._add(rows, np.zeros((len(elements), self.width)), rows.low - upper - slack, rows.high - lower + slack)

    def _margins(self) -> tuple[float, float]:
        """margin <= t  for each row of the disjunct; returns ends of t."""
        problem, which = self.subproblem.problem, self.subproblem.which
        slots = (problem.owner[which] == self.subproblem.disjunct).nonzero().flatten()
        table, output = problem.row[which][slots], self.program.graph.output
        start = {output: problem.output_rows[table].reshape(-1, *self.program.graph.output_shape).double()}
        if problem.input_rows is not None:
            inputs = problem.input_rows[table].reshape(-1, *self.program.graph.input_shape).double()
            start[0] = inputs + start[0] if output == 0 else inputs
        rows = self._rows(start, problem.offset[which][slots].double(), problem.exact)
        own = np.zeros((len(slots), self.width))
        own[:, -1] = 1.0
        self._add(rows, own, rows.low, np.full(len(slots), np.inf))
        columns = rows.columns.shape[1]
        lower, upper = np.append(self.lower, np.zeros(columns)), np.append(self.upper, np.ones(columns))
        both = np.concatenate([rows.inputs, rows.columns], 1)
        size = np.abs(both) @ np.maximum(np.abs(lower), np.abs(upper)) + np.abs(rows.low) + np.abs(rows.high) + 1
        lowest = np.minimum(both * lower, both * upper).sum(1) + rows.low - size * (EPS * self.width)
        highest = np.maximum(both * lower, both * upper).sum(1) + rows.high + size * (EPS * self.width)
        return float(lowest.max()), float(highest.max())

    def _one_hot(self, source: int, elements: Tensor) -> Tensor:
        node = self.program.graph.nodes[source]
        rows = torch.zeros((len(elements), node.size), dtype=torch.float64)
        rows[torch.arange(len(elements)), elements] = 1.0
        return rows.reshape(len(elements), *node.shape)
