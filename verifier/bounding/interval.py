"""Interval bound propagation (Gowal 2018): centre and radius through affine operators, ranges through the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.graph import Constant
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Elementwise
from verifier.core.rounding import down, gamma, roundoff, tiny, unit, up
from verifier.ops import Add


def interval_bounds(program: Program, box: Interval) -> dict[int, Interval]:
    """Bounds `[batch, *shape]` of every node by position; `box` `[batch, *input_shape]`."""
    bounds: dict[int, Interval] = {}
    for position in range(program.graph.output + 1):
        bounds[position] = node_interval(program, position, bounds, box)
    return bounds


def node_interval(program: Program, position: int, bounds: dict[int, Interval], box: Interval) -> Interval:
    """Bounds of one node from the bounds of its arguments. Ends that are not numbers, as from an infinite argument, are
    infinite: nothing is known there."""
    return _node_interval(program, position, bounds, box).intersect(Interval.unbounded((), box.lower))


def _node_interval(program: Program, position: int, bounds: dict[int, Interval], box: Interval) -> Interval:
    node = program.graph.nodes[position]
    if position == 0:
        return box.reshape(-1, *node.shape)
    if isinstance(node.op, Constant):
        # A computed constant may be off by the rounding of its cast.
        value = node.op.value.expand(box.shape[0], *node.shape)
        return Interval(down(value), up(value))
    arguments = tuple(bounds[source] for source in node.inputs)
    if isinstance(node.op, Elementwise):
        return node.op.interval(*arguments)
    if isinstance(node.op, Add):
        return sum_interval(node.op, arguments)
    absolute = program.absolute[position]
    assert isinstance(node.op, Affine) and absolute is not None
    return affine_interval(node.op, absolute, arguments)


def sum_interval(op: Add, arguments: tuple[Interval, ...]) -> Interval:
    """Sums of the ends. Those of integers are exact: what is decided about positions and equal values stays decided."""
    signed = [a if sign > 0 else Interval(-a.upper, -a.lower) for sign, a in zip(op.signs, arguments, strict=True)]
    low, high = torch.stack([a.lower for a in signed]), torch.stack([a.upper for a in signed])
    (lower, below), (upper, above) = _total(low), _total(high)
    return Interval(
        torch.where(below == 0, lower, down(lower - below)), torch.where(above == 0, upper, up(upper + above))
    )


def _total(terms: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the first axis, and how much it may be off."""
    size = terms.abs().sum(0)
    whole = (terms == terms.round()).all(0) & (size < 1 / unit(terms.dtype))
    return terms.sum(0), torch.where(whole, 0.0, size * gamma(len(terms) + 2, terms.dtype))


def affine_interval(op: Affine, absolute: Affine, arguments: tuple[Interval, ...]) -> Interval:
    """L c + b ± |L| s. With sums of depth n, L c errs by gamma_n |L||c|, the stored weights by one rounding more, and
    |L| s is itself computed with gamma_n: all inside s = r + gamma_(n + 8) (|c| + r), so that one product covers them,
    since (1 - gamma_n) gamma_(n + 8) >= gamma_n + 4 u. Subnormal numbers are counted apart."""
    offset = op.offset()
    if op.fan_in == 0 and offset is None:
        return Interval(op.linear(*(a.lower for a in arguments)), op.linear(*(a.upper for a in arguments)))
    dtype = arguments[0].lower.dtype
    centers = [a.middle() for a in arguments]
    radii = [torch.maximum(a.upper - c, c - a.lower) for a, c in zip(arguments, centers, strict=True)]
    sizes = [c.abs() + r for c, r in zip(centers, radii, strict=True)]
    inflated = [r + roundoff(size, op.depth_in + 8) for r, size in zip(radii, sizes, strict=True)]
    center = op.linear(*centers)
    radius = absolute.linear(*inflated) + underflow(op.fan_in, sizes)
    if offset is not None:
        center = center + offset
        radius = radius + offset.abs() * gamma(4, dtype)
    lower = down(center - radius, 3)
    if op.positive and all(bool((a.lower >= 0).all()) for a in arguments):
        # The rounding of large numbers must not make a variance negative, whose root is taken next.
        lower = lower.clamp(min=0.0) if offset is None else lower.maximum(down(offset))
    return Interval(lower, up(center + radius, 3))


def underflow(fan_in: int, sizes: Sequence[Tensor]) -> Tensor:
    """What subnormal weights and products may change in a value that is made of `fan_in` products, of weights with
    numbers up to `sizes` `[batch, *shape_i]`; `[batch, 1, ...]`."""
    dtype = sizes[0].dtype
    # what reads an infinite number, or none, is lost anyway
    largest = torch.stack([flat(size.nan_to_num(0.0, 0.0)).amax(1) for size in sizes]).amax(0)
    return (largest.reshape(-1, *(1,) * (sizes[0].ndim - 1)) + 2) * (tiny(dtype) * (fan_in + 1))
