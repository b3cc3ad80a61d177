"""A query as tensors: its input boxes, and for each box the rows of its disjuncts.

A row is turned into a margin  c . y + d . x - bound, and violated where the margin is <= 0 (strict rows are proved by
their closure). A box is free of violations when each of its disjuncts has a row, or a nonnegative combination of its
rows, whose margin is positive everywhere. Distinct coefficient vectors are stored once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.query import Query
from verifier.core.rationals import cast_fractions, nearest, round_fractions
from verifier.core.stacked import cast

NUMPY: dict[torch.dtype, type[np.floating]] = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True, eq=False)
class Problem:
    """`box` `[boxes, *input]` outward float; per box up to R rows and D disjuncts:

    `row` `[boxes, R]` indices into the coefficient tables, `offset` `[boxes, R]` = -bound rounded down, `owner`
    `[boxes, R]` the disjunct (0..D-1) of the row or -1 for padding, `disjuncts` `[boxes]` their number.
    `output_rows` `[distinct, outputs]`, `input_rows` `[distinct, inputs]` or None, `exact` whether both are exact.
    `precise`: where they are not, the same three in double precision.
    """

    box: Interval
    row: Tensor
    offset: Tensor
    owner: Tensor
    disjuncts: Tensor
    output_rows: Tensor
    input_rows: Tensor | None
    exact: bool
    precise: tuple[Tensor, Tensor | None, bool] | None = None

    @cached_property
    def most_disjuncts(self) -> int:
        return int(self.disjuncts.max())

    @cached_property
    def real(self) -> Tensor:
        """Mask `[boxes, D]` of the disjuncts that each box has."""
        return torch.arange(self.most_disjuncts, device=self.disjuncts.device) < self.disjuncts.unsqueeze(1)

    @cached_property
    def constrained(self) -> bool:
        """Whether every disjunct has a row: without one, any point violates it."""
        pairs = zip(self.disjuncts.tolist(), self.owner.tolist(), strict=True)
        return all(set(range(count)) <= set(owner) for count, owner in pairs)

    def rows_of(self, still: Tensor) -> Tensor:
        """Indices into the coefficient tables, ascending, of the rows of some disjuncts, a mask `[boxes, D]`."""
        mask = (self.owner >= 0) & still.gather(1, self.owner.clamp(min=0))
        return self.row[mask].unique()

    @cached_property
    def most_rows(self) -> int:
        """Of one disjunct."""
        boxes = torch.arange(len(self.owner), device=self.owner.device).unsqueeze(1)
        counts = torch.bincount((boxes * self.most_disjuncts + self.owner)[self.owner >= 0])
        return int(counts.max()) if len(counts) else 0

    def select(self, which: Tensor, box: Interval) -> Problem:
        """The query over parts of its boxes: `box` `[n, *input]`, each a part of box `which` `[n]`."""
        return replace(
            self,
            box=box,
            row=self.row[which],
            offset=self.offset[which],
            owner=self.owner[which],
            disjuncts=self.disjuncts[which],
        )

    def in_double(self) -> Problem:
        """In double precision. Offsets stay rounded down as they were."""
        wide = cast(self, torch.float64)
        if self.precise is None:
            return wide
        output_rows, input_rows, exact = self.precise
        return replace(wide, output_rows=output_rows, input_rows=input_rows, exact=exact, precise=None)

    def margins(self, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
        """Margins `[n, R]` of the rows of box `which` `[n]` at points `x` `[n, *input]`, outputs `y` `[n, outputs]`.

        Where distinct rows are few, all are multiplied at once; otherwise each point's own rows are gathered."""
        index = self.row[which]
        if len(self.output_rows) <= 4 * index.shape[1]:
            values = y @ self.output_rows.T
            if self.input_rows is not None:
                values = values + flat(x) @ self.input_rows.T
            return values.gather(1, index) + self.offset[which]
        values = torch.einsum("nro,no->nr", self.output_rows[index], y)
        if self.input_rows is not None:
            values = values + torch.einsum("nri,ni->nr", self.input_rows[index], flat(x))
        return values + self.offset[which]

    def disjunct_margins(self, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
        """`[n, D]`: the margin of each disjunct, at most zero where it seems to hold, and infinite where the box has no
        such disjunct."""
        margins = violation_margin(self.margins(x, y, which), self.owner[which], self.most_disjuncts)
        return torch.where(self.real[which], margins, torch.inf)

    def closest(self, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
        """`[n]`: the margin of the disjunct that is nearest to a violation."""
        return self.disjunct_margins(x, y, which).amin(1)


def violation_margin(margins: Tensor, owner: Tensor, count: int) -> Tensor:
    """`[n, count]`: for each disjunct the largest margin of its rows, at most zero where all of them hold.

    `margins` `[n, R]` of rows, `owner` `[n, R]` the disjunct of each, -1 for padding. A disjunct without rows gives
    minus infinity: any point violates. NaN never violates.
    """
    place = torch.where(owner < 0, count, owner)
    worst = margins.new_full((len(margins), count + 1), -torch.inf)
    return worst.scatter_reduce(1, place, torch.nan_to_num(margins, nan=torch.inf), "amax")[:, :count]


def build_problem(query: Query, dtype: torch.dtype, device: torch.device | str) -> Problem:
    """Boxes are rounded outward to float32 whatever `dtype` is: a float32 network rounds its inputs to it."""
    groups: dict[int, list[int]] = {id(box): [] for box in query.boxes}
    for position, disjunct in enumerate(query.disjuncts):
        groups[id(disjunct.box)].append(position)
    ends = [box.outward(np.float32) for box in query.boxes]
    table: dict[tuple[object, object], int] = {}
    rows, owners, bounds = [], [], []
    for members in groups.values():
        found = [(row, slot) for slot, member in enumerate(members) for row in query.disjuncts[member].rows]
        rows.append([table.setdefault((row.inputs, row.outputs), len(table)) for row, _ in found])
        owners.append([slot for _, slot in found])
        bounds.append([-row.bound for row, _ in found])
    keys = list(table)
    put = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731

    def tables(kind: torch.dtype) -> tuple[Tensor, Tensor | None, bool]:
        output_rows, exact_out = _dense([key[1] for key in keys], query.output_size, kind)
        input_rows, exact_in = _dense([key[0] for key in keys], query.input_size, kind)
        return put(output_rows), put(input_rows) if any(key[0] for key in keys) else None, exact_out and exact_in

    output_rows, input_rows, exact = tables(dtype)
    width = max(1, max(map(len, rows), default=1))
    return Problem(
        box=Interval(put(np.stack([e[0] for e in ends])).to(dtype), put(np.stack([e[1] for e in ends])).to(dtype)),
        row=put(_pad(rows, width, 0)),
        offset=put(_pad([round_fractions(b, NUMPY[dtype], -1).tolist() for b in bounds], width, 0.0, NUMPY[dtype])),
        owner=put(_pad(owners, width, -1)),
        disjuncts=put(np.array([len(members) for members in groups.values()])),
        output_rows=output_rows,
        input_rows=input_rows,
        exact=exact,
        precise=None if exact else tables(torch.float64),
    )


def with_exact_inputs(query: Query, device: torch.device | str) -> Problem:
    """In double precision, with the inputs that a box fixes as exact as that is. Each box is there twice, one after the
    other: once with these inputs as they are written, once as a float32 network reads them."""
    problem = build_problem(query, torch.float64, device)
    lower, upper = (end.repeat_interleave(2, 0) for end in (problem.box.lower, problem.box.upper))
    for number, box in enumerate(query.boxes):
        fixed = [place for place, (low, high) in enumerate(zip(box.lower, box.upper, strict=True)) if low == high]
        values = [box.lower[place] for place in fixed]
        for end, direction in ((lower, -1), (upper, 1)):
            written = round_fractions(values, np.float64, direction)
            read = cast_fractions(values, np.float32).astype(np.float64)
            end[2 * number : 2 * number + 2, fixed] = torch.from_numpy(np.stack([written, read])).to(device)
    twice = torch.arange(len(problem.row), device=problem.row.device).repeat_interleave(2)
    return problem.select(twice, Interval(lower, upper))


def _dense(terms: list, size: int, dtype: torch.dtype) -> tuple[np.ndarray, bool]:
    """Sparse exact rows as one array, each number rounded to nearest, and whether nothing was rounded. Numbers that are
    too large become infinite, and then their rows prove nothing."""
    array: np.ndarray = np.zeros((max(1, len(terms)), size), dtype=NUMPY[dtype])
    exact = True
    with np.errstate(over="ignore", under="ignore"):
        for place, row in enumerate(terms):
            for index, coefficient in row:
                array[place, index] = nearest(coefficient)
                stored = float(array[place, index])
                exact &= np.isfinite(stored) and Fraction(stored) == coefficient
    return array, exact


def _pad(lists: list[list], width: int, fill: float, dtype: type = np.int64) -> np.ndarray:
    array: np.ndarray = np.full((len(lists), width), fill, dtype=dtype)
    for place, values in enumerate(lists):
        array[place, : len(values)] = values
    return array
