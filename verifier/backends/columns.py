"""The columns of undecided neurons: which is whose, and what they add to the values of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from verifier.backends.neurons import NodeNeurons
from verifier.core.rounding import unit

EPS = 2 * unit(torch.float64)
BESIDE = 1e-5  # of a segment: the distance from a jump at which violations are looked for
AT_A_JUMP = 1e-9  # of a neuron's range: as near to a jump any value between its limits will do


@dataclass(frozen=True, eq=False)
class Neurons:
    """All `N` undecided neurons, in the order of their nodes, each with up to K columns for its phases; phase p of a
    neuron belongs to its column p. `columns` `[N, K]` (0 where not `real`); `sizes`, `gains`, `real` `[N, K]`, `bend`,
    `start`, `spread` `[N]` as in `NodeNeurons`; `node` `[N]`; `enclosed` `[N]` whether it has pieces, and then `own`
    `[N]` is the column of its value (else 0); `row` `[N]` the row that ties a bend's columns to its argument, else -1.
    `within`: for each node with pieces the columns `[n, M, k]` that say where in a box the arguments are (0 where a box
    has no width, or is padding). `count`: of all columns but the inputs and the margin."""

    columns: np.ndarray
    sizes: np.ndarray
    gains: np.ndarray
    real: np.ndarray
    bend: np.ndarray
    start: np.ndarray
    spread: np.ndarray
    node: np.ndarray
    enclosed: np.ndarray
    own: np.ndarray
    row: np.ndarray
    within: Mapping[int, np.ndarray]
    inputs: int
    count: int

    def __len__(self) -> int:
        return len(self.columns)

    def of(self, position: int) -> np.ndarray:
        """Numbers of the neurons of a node."""
        return (self.node == position).nonzero()[0]

    @property
    def choice(self) -> np.ndarray:
        """Mask `[N]`."""
        return ~self.bend & ~self.enclosed

    @property
    def jumps(self) -> np.ndarray:
        """Mask `[N, K]` of the segments of bends that stand for jumps."""
        return self.real & self.bend[:, None] & (self.sizes == 0)

    def phase_bounds(self, phase: np.ndarray, distance: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds `[N, K]` of the columns in each neuron's `phase` `[N]`, -1 for undecided. With a
        `distance` from jumps, as a share of the segments next to them."""
        place, chosen = np.arange(self.columns.shape[1]), phase[:, None]
        bend, free = self.bend[:, None], chosen < 0
        lower = np.where(bend & ~free, place < chosen, False).astype(float)
        upper = np.where(free, True, np.where(bend, place <= chosen, place != chosen)).astype(float)
        jumps, own = np.pad(self.jumps, ((0, 0), (1, 1))), (place == chosen) & ~self.jumps
        lower[own & jumps[:, :-2]] = distance
        upper[own & jumps[:, 2:]] -= distance
        return lower, upper

    def gaps(self, point: np.ndarray) -> np.ndarray:
        """`[N]`: how far the value of each neuron is from its function at a point `[columns]`, of one with pieces how
        far it is from being in one of them."""
        columns = np.where(self.real, point[self.columns], 0.0)
        filled = (self.sizes * columns).sum(1, keepdims=True) - (self.sizes.cumsum(1) - self.sizes)
        beyond = filled - AT_A_JUMP * self.sizes.sum(1, keepdims=True)
        jump = np.where(beyond > 0, 1.0, np.where(filled < 0, 0.0, columns))
        exact = np.divide(filled, self.sizes, out=jump, where=self.sizes > 0)
        bend = np.abs((self.gains * (columns - np.clip(exact, 0.0, 1.0))).sum(1))
        other = np.where(self.real, np.abs(self.sizes * columns), np.inf).min(1, initial=np.inf)
        return np.where(self.bend, bend, np.where(self.real.any(1), other, 0.0))

    def spread_out(self, reads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients `[n, count]` of all columns, where rows read the neurons' values `reads` `[n, N]`; and how wrong
        their rounding may make a row `[n]`."""
        columns = np.zeros((len(reads), self.count))
        carried = self.bend[:, None] | (np.arange(self.real.shape[1]) == 0)  # a choice is written with its first column
        neuron, slot = (self.real & carried & (self.gains != 0)).nonzero()
        columns[:, self.columns[neuron, slot] - self.inputs] = reads[:, neuron] * self.gains[neuron, slot]
        columns[:, self.own[self.enclosed] - self.inputs] = (reads * self.spread)[:, self.enclosed]
        return columns, np.abs(columns).sum(1) * (2 * EPS) + float(np.finfo(float).tiny) * self.count


def placed(groups: Mapping[int, NodeNeurons], inputs: int) -> Neurons:
    """Columns are numbered in order: inputs, phases, values and places of those with pieces, the margin."""
    some = {position: group for position, group in groups.items() if len(group.elements)}
    most = max((group.sizes.shape[1] for group in some.values()), default=1)
    pad = lambda part: np.pad(part, ((0, 0), (0, most - part.shape[1])))  # noqa: E731
    join = lambda parts, empty: np.concatenate(parts) if parts else empty  # noqa: E731
    each = lambda value: [np.full(len(group.elements), value(p, group)) for p, group in some.items()]  # noqa: E731
    none = np.zeros((0, most))
    real = join([pad(group.real) for group in some.values()], none.astype(bool))
    enclosed = join(each(lambda _, group: group.pieces is not None), np.zeros(0, bool))
    end = inputs + int(real.sum())
    own = np.where(enclosed, end - 1 + enclosed.cumsum(), 0)
    end += int(enclosed.sum())
    within = {}
    for position, group in some.items():
        if group.pieces is not None:
            wide = group.pieces.real[:, :, None] & (group.pieces.lower < group.pieces.upper)
            within[position] = np.where(wide, end - 1 + wide.cumsum().reshape(wide.shape), 0)
            end += int(wide.sum())
    return Neurons(
        columns=np.where(real, inputs - 1 + real.cumsum().reshape(real.shape), 0),
        sizes=join([pad(group.sizes) for group in some.values()], none),
        gains=join([pad(group.gains) for group in some.values()], none),
        real=real,
        bend=join(each(lambda _, group: group.bend), np.zeros(0, bool)),
        start=join([group.start for group in some.values()], np.zeros(0)),
        spread=join([group.spread for group in some.values()], np.zeros(0)),
        node=join(each(lambda position, _: position), np.zeros(0, int)),
        enclosed=enclosed,
        own=own,
        row=np.full(len(real), -1),
        within=within,
        inputs=inputs,
        count=end - inputs,
    )
