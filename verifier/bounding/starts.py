"""Multipliers that served over one box, as a start for the same rows over the next.

The best slopes of a neuron's row change little from a box of inputs to the one beside it: proved with them as they are,
its bounds gain nearly as much as an ascent of many steps does, and a few steps more gain the rest.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.dual import Multipliers
from verifier.bounding.undecided import Undecided


@dataclass(frozen=True, eq=False)
class _Served:
    """`values` `[2 m, k]` of the parameters of a nonlinear node's elements `columns` `[k]`, for the lower ends of the
    elements `index` `[m]` of the rows' node and for their upper ends."""

    index: Tensor
    columns: Tensor
    values: Tensor

    @property
    def size(self) -> int:
        """Bytes, but for the positions."""
        return self.values.numel() * self.values.element_size()


class Starts:
    """Of one network. `room`: bytes for what a box leaves, of this network and of its parts together."""

    def __init__(self, room: int) -> None:
        self._room = [room]
        self._last: dict[Hashable, list[_Served]] = {}
        self._next: dict[Hashable, list[_Served]] = {}
        self._parts: dict[Hashable, Starts] = {}

    def of(self, part: Hashable) -> Starts:
        """Of a part of the network."""
        if part not in self._parts:
            self._parts[part] = Starts(0)
            self._parts[part]._room = self._room
        return self._parts[part]

    def turn(self) -> None:
        """A new box begins: what was kept over the last one serves from now on."""
        self._room[0] += sum(served.size for kept in self._last.values() for served in kept)
        self._last, self._next = self._next, {}
        for part in self._parts.values():
            part.turn()

    def keep(self, source: int, index: Tensor, undecided: Undecided, multipliers: Multipliers) -> None:
        """Of rows for the ends of the elements `index` `[m]` of node `source`, while there is room."""
        for side, position, values in _parameters(multipliers):
            if values.numel() * torch.bfloat16.itemsize <= self._room[0]:
                served = _Served(index, undecided.readers[position].index, values.to(torch.bfloat16))
                self._room[0] -= served.size
                self._next.setdefault((source, side, position), []).append(served)

    def fill(self, source: int, index: Tensor, undecided: Undecided, multipliers: Multipliers) -> bool:
        """Overwrite those that served over the last box; whether there were any."""
        known = False
        for side, position, values in _parameters(multipliers):
            for served in self._last.get((source, side, position), ()):
                rows, own_rows = _common(served.index, index)
                columns, own_columns = _common(served.columns, undecided.readers[position].index)
                for end in (0, 1):  # lower ends, upper ends
                    old = served.values[(rows + end * len(served.index)).unsqueeze(1), columns]
                    values[(own_rows + end * len(index)).unsqueeze(1), own_columns] = old.to(values.dtype)
                known |= len(rows) > 0
        return known


def _parameters(multipliers: Multipliers) -> list[tuple[int, int, Tensor]]:
    groups = multipliers.groups()[:2]
    return [(side, position, values) for side, group in enumerate(groups) for position, values in group.items()]


def _common(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Where the numbers that two vectors of distinct ones share are, in each."""
    same = (first.unsqueeze(1) == second).nonzero()
    return same[:, 0], same[:, 1]
