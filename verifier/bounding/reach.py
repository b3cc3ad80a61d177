"""How large the values are that a backward pass multiplies: what its rounding errors are proportional to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.program import Program
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.rounding import gamma, tiny


class Reach:
    """Worked out on first use, over all domains of a batch together, and kept for all passes over any of them. Bounds
    of nodes only ever get tighter, so that what is kept stays true. `totals`: of nodes that have no intervals here."""

    def __init__(self, intervals: dict[int, Interval], totals: dict[int, Tensor] | None = None) -> None:
        self.intervals, self.totals = intervals, totals or {}
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def largest(self, position: int, dtype: torch.dtype) -> Tensor:
        """max |value| of a node, `[1, *shape]`."""

        def largest() -> Tensor:
            return self.intervals[position].magnitude().amax(0, keepdim=True).to(dtype)

        return self._once(largest, position, dtype)

    def sums(self, program: Program, position: int) -> Tensor:
        """|L| m `[*shape]` of an affine node  z = L x + b, where m = max |x|."""

        def sums() -> Tensor:
            node, absolute = program.graph.nodes[position], program.absolute[position]
            assert absolute is not None
            return absolute.linear(*(self.largest(source, program.dtype) for source in node.inputs))[0]

        return self._once(sums, position, program.dtype)

    def error(self, program: Program, position: int, products: int, constants: int) -> Tensor:
        """v `[*shape]` with  |error| <= |A| . v  of taking rows A back through an affine node  z = L x + b:
        gamma_products |L| m + gamma_constants |b|, and for the subnormal constants that were dropped  tiny (sum m + 1).
        """

        def error() -> Tensor:
            node = program.graph.nodes[position]
            assert isinstance(node.op, Affine)
            own = self.sums(program, position) * gamma(products, program.dtype)
            own = own + (self._arguments(program, position) + 1) * tiny(program.dtype)
            offset = node.op.offset()
            return own if offset is None else own + offset.abs() * gamma(constants, program.dtype)

        return self._once(error, position, program.dtype, products, constants)

    def underflow(self, program: Program, position: int) -> Tensor:
        """What the underflows in taking rows back through a node multiply, in all. Through an affine one: one in each
        product and each sum, times an argument, and one in each product with `error`. Through another one: one in each
        product with a slope, times an argument, and one in each product with an intercept, its size or its error."""

        def underflow() -> Tensor:
            node = program.graph.nodes[position]
            if isinstance(node.op, Affine):
                return self._arguments(program, position) * (node.op.fan_out + 1) + node.size
            return self._arguments(program, position) + 4 * node.size

        return self._once(underflow, position, program.dtype)

    def total(self, position: int, dtype: torch.dtype) -> Tensor:
        """The sum of max |value| over a node's elements."""
        if position in self.totals:
            return self.totals[position]

        def total() -> Tensor:
            return self.largest(position, dtype).sum()

        return self._once(total, position, dtype)

    def _arguments(self, program: Program, position: int) -> Tensor:
        totals = [self.total(source, program.dtype) for source in program.graph.nodes[position].inputs]
        return torch.stack(totals).sum()

    def _once(self, work: Callable[[], Tensor], *key: object) -> Tensor:
        key = (work.__name__, *key)
        if key not in self._kept:
            self._kept[key] = work()
        return self._kept[key]
