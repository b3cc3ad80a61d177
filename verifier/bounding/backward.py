"""Backward linear bounds (CROWN, Zhang 2018; auto_LiRPA, Xu 2020) with every rounding accounted for.

Rows  A . z + bias  over some nodes are rewritten over earlier nodes, in reverse topological order, until they are rows
over the input, below the original ones:
    affine        z = L x + b      A <- L^T A,  bias += A . b
    elementwise   planes           A <- A+ lower_slope + A- upper_slope,  bias += A+ . lower + A- . upper
A node with several readers sums what they send.

Rounding. Each step commits an error that is at most  |A| . v  for a vector v known in advance (`_error_vector`), since
the value that A multiplies is bounded: with m = max|x| over all domains, replacing L^T A by its computed value changes
the row's value by at most gamma |A| . (|L| m). The sum of these errors, the debt, is subtracted in the end. So the
computed bounds hold in real arithmetic, whatever the order of summation.

Behind a ReLU no pass over the rows is needed for |A|: with A' the rows over its output |A| = A - 2 A'- upper_slope, and
A'- is multiplied by a vector anyway, to which a multiple of upper_slope v is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.account import Account
from verifier.bounding.dots import offset_depth, per_row, times, times_offset, times_vector
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.choose import choose, negative
from verifier.core.flat import flat
from verifier.core.graph import Constant
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Elementwise
from verifier.core.rounding import down, gamma, roundoff, tiny, unit
from verifier.core.sums import total, total_depth
from verifier.ops import Near

SAFETY = 1.03  # covers the rounding of the debt's own arithmetic, which is relative and far smaller


@dataclass(frozen=True, eq=False)
class LinearForm:
    """For each domain and row, `value >= coefficients . x + bias - debt` for all x in the domain's box.

    `coefficients` `[batch, spec, *input_shape]`; `bias`, `debt` `[batch, spec]`."""

    coefficients: Tensor
    bias: Tensor
    debt: Tensor

    def minimum(self, box: Interval) -> Tensor:
        """Lower bound of the rows over `box` `[batch, *input_shape]`, outward; `[batch, spec]`."""
        rows = flat(self.coefficients, 2)
        lower, middle, upper = flat(box.lower), flat(box.middle()), flat(box.upper)
        half = torch.maximum(upper - middle, middle - lower)
        half = half + roundoff(middle.abs() + half, total_depth(rows.shape[2]) + 10)
        value = times(rows, middle) - times(rows.abs(), half) + self.bias
        error = 4 * unit(rows.dtype) * (value.abs() + self.bias.abs()) + 2 * tiny(rows.dtype) * rows.shape[2]
        return value - (self.debt + error) * SAFETY


@dataclass(frozen=True, eq=False)
class Charge:
    """Multipliers b `[batch, spec, k]` of the bounds of the elements at flat positions `index` `[k]` of a node:
    b > 0 adds  b (lower - z) <= 0  to the rows, b < 0 adds  b (upper - z) <= 0  (Lagrangian; the splits of beta-CROWN,
    Wang 2021, are bounds like any other)."""

    index: Tensor
    multipliers: Tensor


def backward(
    program: Program,
    start: dict[int, Tensor],
    bias: Tensor,
    found: NodeBounds,
    exact_start: bool = True,
    charges: dict[int, Charge] | None = None,
    terms: int | None = None,
) -> LinearForm:
    """Rows `start[node]` `[batch, spec, *shape]` (over one or several nodes) plus `bias` `[batch, spec]`, bounded below
    by a linear form over the input.

    `found` has intervals of the arguments of every affine node crossed and planes of every nonlinear one; their batch
    is the rows' batch or 1. `exact_start`: the starting coefficients and `bias` are exact; else each is off by one
    rounding, or by `tiny`.
    `charges`: by node, multipliers of bounds of its elements. `terms`: so many coefficients of a starting row are not
    0 at most, if that is known.
    """
    walk = Walk(program, start, bias, found, 0 if exact_start else 1, terms)
    for position in range(max(start), 0, -1):
        if charges is not None and position in charges:
            walk.charge(position, charges[position])
        if position in walk.pending:
            walk.cross(position)
    return walk.arrive()


def backward_to_neurons(
    program: Program, start: dict[int, Tensor], bias: Tensor, found: NodeBounds, exact_start: bool = True
) -> Tensor:
    """The same rows, bounded below by what is known of the nonlinear nodes nearest to the start, `[batch, spec]`."""
    walk = Walk(program, start, bias, found, 0 if exact_start else 1)
    for position in range(max(start), 0, -1):
        op = program.graph.nodes[position].op
        if position in walk.pending and (isinstance(op, Near) or not isinstance(op, Elementwise)):
            walk.cross(position)
    return walk.settle()


class Walk:
    """The rows in flight during one backward pass."""

    def __init__(
        self,
        program: Program,
        start: dict[int, Tensor],
        bias: Tensor,
        found: NodeBounds,
        start_roundings: int,
        terms: int | None = None,
    ) -> None:
        self.program, self.found = program, found
        self.pending = dict(start)
        self.roundings = dict.fromkeys(start, start_roundings)  # of each pending coefficient, relative to itself
        sizes = {position: program.graph.nodes[position].size for position in start}
        self.terms = {k: min(size, terms or size) for k, size in sizes.items()}  # of a pending row, that are not 0
        self.own: set[int] = set()  # nodes whose pending rows are in memory that nobody else reads
        self.foreseen: dict[int, Tensor] = {}  # error vectors v of affine nodes for which  (|A| - A) . v  is settled
        self.account = Account(bias)
        self.size: Tensor = torch.ones((), dtype=bias.dtype, device=bias.device)  # underflows times what they multiply
        if start_roundings:
            self.account.owe(bias.abs() * gamma(start_roundings, bias.dtype))
            for position in start:
                self.size = self.size + (found.reach.total(position, bias.dtype) + 1)

    def read(self, position: int, elements: Tensor, reach: Tensor) -> Tensor:
        """The coefficients `[batch, spec, k]` of `elements` `[k]` of a node that is not crossed yet. What they multiply
        is at most `reach` `[k]`: their roundings are settled here."""
        rows = flat(self.pending[position], 2)[..., elements]
        self._owe_elements(rows, reach, self.roundings[position] + 1)
        return rows

    def arrive(self) -> LinearForm:
        """What is left at the input, when every other node is crossed."""
        if 0 in self.pending:
            self._owe_roundoff(0, self.pending[0], self.roundings[0] + 1)
        bias, debt = self.balance()
        rows = self.pending[0] if 0 in self.pending else _zero_rows(self.program, bias)
        return LinearForm(rows, bias, debt)

    def settle(self) -> Tensor:
        """Lower bounds `[batch, spec]` of what is left, from the intervals of the nodes where it is."""
        for position, rows in self.pending.items():
            self._owe_roundoff(position, rows, self.roundings[position] + 1)
        bias, debt = self.balance()
        least = down(bias - debt, 2)
        none = torch.zeros_like(bias)
        for position, rows in self.pending.items():
            least = down(least + LinearForm(rows, none, none).minimum(self.found.intervals[position]))
        return least

    def balance(self) -> tuple[Tensor, Tensor]:
        """The constant terms, and the most that all errors so far can be together."""
        bias, debt = self.account.balance()
        return bias, debt * SAFETY + tiny(self.program.dtype) * self.size

    def cross(self, position: int) -> None:
        """Rewrite the rows over one node as rows over its arguments."""
        node = self.program.graph.nodes[position]
        rows = self.pending.pop(position)
        self.own.discard(position)
        if isinstance(node.op, Constant):
            self.account.add(times_offset(rows, node.op.value))
            self.size = self.size + 2 * node.size
            error = roundoff(node.op.value.abs(), offset_depth(node.shape, node.op.value) + 4)
            self.account.owe(times_vector(rows.abs(), error))
        elif isinstance(node.op, Elementwise):
            self._cross_elementwise(position, rows)
        elif position in self.found.contracted:
            self._cross_contracted(position, rows)
        else:
            self._cross_affine(position, rows)
        del self.roundings[position], self.terms[position]

    def charge(self, position: int, charge: Charge) -> None:
        """Add  b (lower - z)  or  b (upper - z)  for some elements of a node; roundings go to the debt."""
        node, box, b = self.program.graph.nodes[position], self.found.intervals[position], charge.multipliers
        lower, upper = (flat(end).index_select(1, charge.index).unsqueeze(1) for end in (box.lower, box.upper))
        gain = b.clamp(min=0) * lower + b.clamp(max=0) * upper
        gain = torch.where(b == 0, 0.0, gain)  # where b is 0 an infinite bound says nothing
        self.account.add(total(gain))
        count = total_depth(b.shape[2]) + 3
        self.account.owe(gain.abs().sum(2) * gamma(count, gain.dtype) + tiny(gain.dtype) * b.shape[2])
        whole = torch.zeros((*b.shape[:2], node.size), dtype=b.dtype, device=b.device)
        whole.scatter_(2, charge.index.expand(b.shape), -b)
        self._send(position, whole.reshape(*b.shape[:2], *node.shape), 0, b.shape[2])

    def _cross_affine(self, position: int, rows: Tensor) -> None:
        node = self.program.graph.nodes[position]
        assert isinstance(node.op, Affine)
        offset = node.op.offset()
        if offset is not None:
            self.account.add(times_offset(rows, offset))
        exact = False
        if position in self.foreseen:
            self._settle(position, rows)
        else:
            error = self._error_vector(position)
            exact = error is None
            if error is not None:
                self.account.owe(times_vector(rows.abs(), error))
        batch, spec = rows.shape[:2]
        roundings, terms = self.roundings[position] if exact else 0, self.terms[position]
        if node.op.columns is not None:
            self._send_columns(node.inputs[0], node.op.columns, flat(rows, 2), roundings, terms)
            return
        for source, sent in zip(node.inputs, node.op.adjoint(rows.flatten(0, 1)), strict=True):
            self._send(source, sent.unflatten(0, (batch, spec)), roundings, terms * max(1, node.op.fan_in))

    def _cross_contracted(self, position: int, rows: Tensor) -> None:
        """Parallel planes: they take A to A q and A p, and add  A . middle - |A| . half."""
        node, known = self.program.graph.nodes[position], self.found.contracted[position]
        contraction, absolute = self.program.contractions[position], rows.abs()
        self.size = self.size + 2 * self.found.reach.underflow(self.program, contraction.product)
        self.account.add(times(rows, known.middle))
        self.account.add(-times(absolute, known.half))
        earlier = self.roundings[position] + 3
        self.account.owe(times(absolute, known.terms) * gamma(contraction.depth + earlier, rows.dtype))
        constants = times(absolute, known.middle.abs() + known.half)
        self.account.owe(constants * gamma(total_depth(node.size) + earlier, rows.dtype))
        terms = self.terms[position] * contraction.summed
        for source, sent in zip(contraction.sources, known.adjoint(rows, contraction), strict=True):
            self._send(source, sent, 0, terms)

    def _error_vector(self, position: int) -> Tensor | None:
        """v with |error of crossing this affine node| <= |A| . v; None where crossing is exact."""
        node = self.program.graph.nodes[position]
        assert isinstance(node.op, Affine)
        offset = node.op.offset()
        if node.op.fan_out == 0 and node.op.fan_in == 0 and offset is None:
            return None  # only moves data: earlier roundings travel with the coefficients
        earlier = self.roundings[position] + 3
        meeting = min(node.op.depth_out, self.terms[position])  # sums of zeros are exact
        self.size = self.size + self.found.reach.underflow(self.program, position)
        summed = 0 if offset is None else offset_depth(node.shape, offset)
        return self.found.reach.error(self.program, position, meeting + earlier, summed + earlier)

    def _owe_roundoff(self, position: int, rows: Tensor, roundings: int) -> None:
        """For coefficients of a node that are off by so many roundings."""
        largest = self.found.reach.largest(position, self.program.dtype)[0]
        self.size = self.size + self.program.graph.nodes[position].size
        self.account.owe(times_vector(rows.abs(), roundoff(largest, roundings)))

    def _owe_elements(self, rows: Tensor, reach: Tensor, roundings: int) -> None:
        """The same for rows `[batch, spec, k]` over some elements, which are at most `reach` `[k]`."""
        self.size = self.size + len(reach)
        self.account.owe(rows.abs() @ roundoff(reach, roundings))

    def _cross_elementwise(self, position: int, rows: Tensor) -> None:
        node, planes = self.program.graph.nodes[position], self.found.planes[position]
        self.size = self.size + self.found.reach.underflow(self.program, position)
        count = total_depth(node.size) + self.roundings[position] + 3
        falling = rows.clamp(max=0)
        if planes.simple:
            self._cross_simple(position, rows, falling, count)
            return
        high = times(falling, planes.upper_intercept)
        if planes.lower_intercept is None:
            self.account.add(high, gamma(count, rows.dtype))
        else:
            rising = rows - falling
            self.account.add(high)
            self.account.add(times(rising, planes.lower_intercept))
            error = times(rising, planes.lower_intercept.abs()) - times(falling, planes.upper_intercept.abs())
            self.account.owe(error * gamma(count, rows.dtype))
        takes_upper = negative(rows)
        for source, low, up in zip(node.inputs, planes.lower_slopes, planes.upper_slopes, strict=True):
            slope = per_row(low, rows)
            if up is not low:  # parallel planes share theirs
                slope = choose(takes_upper, per_row(up, rows), slope)
            self._send(source, rows * slope, self.roundings[position] + 1, self.terms[position])

    def _cross_simple(self, position: int, rows: Tensor, falling: Tensor, count: int) -> None:
        """A l + A- (u - l), two fused passes. With l in {0, 1}, u in [0, 1] and u >= 1/2 where l = 1, the result is at
        least half of each term, so all roundings are relative to it."""
        planes, source = self.found.planes[position], self.program.graph.nodes[position].inputs[0]
        (low,), (up,), intercept = planes.lower_slopes, planes.upper_slopes, planes.upper_intercept
        alone = source not in self.pending and len(self.program.graph.consumers[source]) == 1
        sent = torch.addcmul(rows * low.unsqueeze(1), falling, (up - low).unsqueeze(1))
        self._send(source, sent, self.roundings[position] + 8, self.terms[position])
        error = self._foresee(source) if alone else None
        if error is not None:
            intercept = torch.addcmul(intercept + tiny(rows.dtype), up, error, value=2 * SAFETY)
        self.account.add(times(falling, intercept), gamma(count + 4, rows.dtype))

    def _foresee(self, position: int) -> Tensor | None:
        """The error vector of an affine node that is crossed later, if it is one whose errors are charged."""
        node = self.program.graph.nodes[position]
        if isinstance(node.op, Affine) and position not in self.found.contracted:
            error = self._error_vector(position)
            if error is not None:
                self.foreseen[position] = error
            return error
        return None

    def _settle(self, position: int, rows: Tensor) -> None:
        """What is left of a debt that was foreseen:  A . v."""
        self.account.add(times_vector(rows, self.foreseen.pop(position) * -SAFETY))

    def _send(self, source: int, rows: Tensor, roundings: int, terms: int) -> None:
        size = self.program.graph.nodes[source].size
        self.terms[source] = min(size, self.terms.get(source, 0) + terms)
        if source not in self.pending:
            self.pending[source], self.roundings[source] = rows, roundings
            return
        if source in self.foreseen:
            self._settle(source, self.pending[source])
        # Earlier parts carry relative roundings that cancellation could amplify: settle them before adding.
        parts = ((self.pending[source], self.roundings[source]), (rows, roundings))
        for part, count in parts:
            if count:
                self._owe_roundoff(source, part, count)
        self.pending[source], self.roundings[source] = parts[0][0] + rows, 1
        self.own.add(source)

    def _send_columns(self, source: int, columns: Tensor, rows: Tensor, roundings: int, terms: int) -> None:
        """The same for rows `[batch, spec, k]` over the elements `columns` `[k]` alone: the others stay as they are."""
        node = self.program.graph.nodes[source]
        self.terms[source] = min(node.size, self.terms.get(source, 0) + terms)
        if source not in self.pending:
            self.pending[source], self.roundings[source] = rows.new_zeros(*rows.shape[:2], *node.shape), 0
        elif source not in self.own or not self.pending[source].is_contiguous():
            self.pending[source] = self.pending[source].clone(memory_format=torch.contiguous_format)
        self.own.add(source)
        if source in self.foreseen:
            self._settle(source, self.pending[source])
        whole = self.pending[source].view(*rows.shape[:2], node.size)  # the same memory, or an error
        reach = self.found.reach.largest(source, self.program.dtype).flatten()[columns]
        for part, count in ((whole[..., columns], self.roundings[source]), (rows, roundings)):
            if count:
                self._owe_elements(part, reach, count)
        whole.index_add_(2, columns, rows)
        self.roundings[source] = max(1, self.roundings[source])


def _zero_rows(program: Program, bias: Tensor) -> Tensor:
    return torch.zeros((*bias.shape, *program.graph.input_shape), dtype=program.dtype, device=program.device)
