"""How large the values are that a backward pass multiplies: what its rounding errors are proportional to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.bounding.program import Program
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.rounding import gamma


class Reach:
    """Worked out on first use, over all domains of a batch together, and kept for all passes over any of them. Bounds
    of nodes only ever get tighter, so that what is kept stays true."""

    def __init__(self, intervals: dict[int, Interval]) -> None:
        self.intervals = intervals
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
        gamma_products |L| m + gamma_constants |b|."""

        def error() -> Tensor:
            op = program.graph.nodes[position].op
            assert isinstance(op, Affine)
            offset, own = op.offset(), self.sums(program, position) * gamma(products, program.dtype)
            return own if offset is None else own + offset.abs() * gamma(constants, program.dtype)

        return self._once(error, position, program.dtype, products, constants)

    def underflow(self, program: Program, position: int) -> Tensor:
        """What the underflows in taking rows back through an affine node multiply, in all: one in each product and
        each sum, times an argument."""

        def underflow() -> Tensor:
            node = program.graph.nodes[position]
            assert isinstance(node.op, Affine)
            arguments = sum(self.largest(source, program.dtype).sum() for source in node.inputs)
            return torch.as_tensor(arguments * (node.op.fan_out + 1))

        return self._once(underflow, position, program.dtype)

    def _once(self, work: Callable[[], Tensor], *key: object) -> Tensor:
        key = (work.__name__, *key)
        if key not in self._kept:
            self._kept[key] = work()
        return self._kept[key]
