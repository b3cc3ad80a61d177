"""Forward linear forms: every value as an affine function of the input's position in its box, plus a remainder.

    z  =  center + sum_i coefficients_i e_i  ±  radius,      e in [-1, 1]^d,  x = middle + half_width * e

This is Fast-Lin run forwards (Weng 2018; equally a first-order Taylor model): an affine operator maps the form, a
nonlinear one multiplies it by the slope of a parallel band and widens the remainder by the band. All roundings go into
the remainder. For few inputs d it costs a fraction of the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from verifier.bounding.interval import underflow
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.graph import Constant
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Band, Elementwise
from verifier.core.rounding import down, gamma, roundoff, tiny, unit, up


@dataclass(frozen=True, eq=False)
class Form:
    """`terms` `[batch, 1 + d, *shape]`: the center, then the coefficients. `radius` `[batch, *shape]`."""

    terms: Tensor
    radius: Tensor

    @cached_property
    def spread(self) -> Tensor:
        """Upper bound of sum |coefficients| + radius, `[batch, *shape]`."""
        return up(self.terms[:, 1:].abs().sum(1) + self.radius, self.terms.shape[1] + 1)

    def interval(self) -> Interval:
        return Interval(down(self.terms[:, 0] - self.spread), up(self.terms[:, 0] + self.spread))


def input_form(box: Interval) -> Form:
    """The identity on `box` `[batch, *shape]`; `d` is the number of elements. The rounding of middle and half-width is
    covered by the half-width reaching both ends."""
    batch, shape = box.lower.shape[0], box.lower.shape[1:]
    lower, middle, upper = flat(box.lower), flat(box.middle()), flat(box.upper)
    half = torch.maximum(upper - middle, middle - lower)
    half = half + half * (2 * unit(half.dtype))  # a point stays a point; else both differences may be rounded down
    terms = torch.cat([middle.unsqueeze(1), torch.diag_embed(half)], 1)
    return Form(terms.unflatten(2, shape), torch.zeros((batch, *shape), dtype=half.dtype, device=half.device))


def node_form(program: Program, position: int, forms: dict[int, Form], bounds: dict[int, Interval]) -> Form:
    """The form of one node from those of its arguments; `bounds` hold the arguments of a nonlinear node."""
    node = program.graph.nodes[position]
    if isinstance(node.op, Constant):
        like = forms[0].terms
        terms = torch.zeros((*like.shape[:2], *node.shape), dtype=like.dtype, device=like.device)
        terms[:, 0] = node.op.value
        return Form(terms, (node.op.value.abs() * gamma(2, like.dtype)).expand(like.shape[0], *node.shape))
    arguments = tuple(forms[source] for source in node.inputs)
    if isinstance(node.op, Elementwise):
        return _apply_band(node.op.band(*(bounds[source] for source in node.inputs)), arguments)
    absolute = program.absolute[position]
    assert isinstance(node.op, Affine) and absolute is not None
    return _apply_affine(node.op, absolute, arguments)


def _apply_affine(op: Affine, absolute: Affine, arguments: tuple[Form, ...]) -> Form:
    batch, count = arguments[0].terms.shape[:2]
    dtype, offset = arguments[0].terms.dtype, op.offset()
    terms = op.linear(*(a.terms.flatten(0, 1) for a in arguments)).unflatten(0, (batch, count))
    if op.fan_in == 0 and offset is None:
        return Form(terms, op.linear(*(a.radius for a in arguments)))
    sizes = [a.terms[:, 0].abs() + a.spread for a in arguments]
    inflated = [a.radius + roundoff(size, op.depth_in + 8) for a, size in zip(arguments, sizes, strict=True)]
    radius = absolute.linear(*inflated) + underflow(op.fan_in, sizes) * count
    if offset is not None:
        # not in place: an operator that moves nothing returns its argument
        terms = torch.cat([(terms[:, 0] + offset).unsqueeze(1), terms[:, 1:]], 1)
        radius = radius + offset.abs() * gamma(4, dtype)
    return Form(terms, up(radius + terms[:, 0].abs() * unit(dtype), 3))


def _apply_band(band: Band, arguments: tuple[Form, ...]) -> Form:
    """y in sum s_i x_i + [low, high]: the middle of the band joins the center, its half-width the remainder."""
    dtype = arguments[0].terms.dtype
    middle = band.low / 2 + band.high / 2
    terms = sum(s.unsqueeze(1) * a.terms for s, a in zip(band.slopes, arguments, strict=True))
    assert isinstance(terms, Tensor)
    roundings = 2 * len(arguments) + 4
    radius = torch.maximum(band.high - middle, middle - band.low) + gamma(roundings, dtype) * middle.abs()
    for slope, argument in zip(band.slopes, arguments, strict=True):
        error = roundoff(argument.terms[:, 0].abs() + argument.spread, roundings)
        radius = radius + slope.abs() * (argument.radius + error)
    terms[:, 0] += middle
    return Form(terms, up(radius, 3) + tiny(dtype) * len(arguments) * (terms.shape[1] + 2))
