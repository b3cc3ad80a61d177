"""What an operator is: a record of facts, from which every analysis is derived.

Tensors are batched over domains: a value of shape `shape` travels as `[batch, *shape]`, where `shape` is the ONNX shape
(its own leading 1 included). An operator's constants (weights, axes, target shapes) live in its fields; its arguments
are the variable inputs only.

Two kinds have bounds, and the bounding code knows only these:

    Affine        y = L(x_1, ..., x_k) + b          backward is the adjoint of L, interval is  L c ± |L| r
    Elementwise   y_j = f(x_1j, ..., x_kj)          two planes for each element, from the bounds of its arguments

Anything else is an `Op` that can only be evaluated: it loads and replays, and bounds refuse it by name.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from verifier.core.interval import Interval
from verifier.core.rounding import without_subnormals
from verifier.core.stacked import pick


class Op(ABC):
    """An operator with its constants. Subclasses are frozen dataclasses."""

    @abstractmethod
    def evaluate(self, *inputs: Tensor) -> Tensor:
        """Inputs `[batch, *shape_i]` to output `[batch, *shape]`, in the inputs' precision, differentiable."""

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """The same operator with floating-point constants in `dtype` (one rounding each) and everything on `device`."""
        return self._with_tensors(lambda value: value.to(device, dtype if value.is_floating_point() else None))

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        tensors = {field.name: getattr(self, field.name) for field in fields}
        changes = {name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **changes) if changes else self  # type: ignore[type-var]

    @property
    def name(self) -> str:
        """The canonical name, as tables and messages show it."""
        return type(self).__name__


class Affine(Op):
    """y = L(x) + b.

    `fan_in`: the most products that meet in one element of `L(x)`; 0 where L only moves data (exact).
    `fan_out`: the same for the adjoint. Constants may be off by one rounding, or by `tiny` if that is more.
    """

    fan_in: int = 0
    fan_out: int = 0

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """As for any operator, but subnormal constants become 0."""
        return super().to(dtype, device)._with_tensors(without_subnormals)

    @property
    def positive(self) -> bool:
        """Whether no weight is negative, not even one that was dropped as subnormal; False where nobody has looked."""
        return False

    @property
    def columns(self) -> Tensor | None:
        """Where L only moves some elements of its one argument, each to one place, and they are few beside the others:
        their flat positions, in the order of the output."""
        return None

    @property
    def depth_in(self) -> int:
        """The n of gamma_n for `L(x)`: less than `fan_in` where long sums are made of parts."""
        return self.fan_in

    @property
    def depth_out(self) -> int:
        """The same for the adjoint."""
        return self.fan_out

    @abstractmethod
    def linear(self, *inputs: Tensor) -> Tensor:
        """L(x): inputs `[batch, *shape_i]` to `[batch, *shape]`, without the constant term."""

    @abstractmethod
    def adjoint(self, rows: Tensor) -> tuple[Tensor, ...]:
        """L^T: rows `[rows, *shape]` over the output to rows `[rows, *shape_i]` over each input."""

    def absolute(self) -> Affine:
        """|L|: the same operator with the absolute values of its weights (and of its constant term)."""
        return self

    def offset(self) -> Tensor | None:
        """b, broadcastable to `[*shape]`, or None for zero."""
        return None

    def row(self, index: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """Of an operator with one argument, of this shape: the rows of L for the output's flat positions `index`
        `[...]`, as `[..., *shape]`, without a rounding, where that is cheaper than the adjoint of a matrix of unit
        rows; else None."""
        return None

    def evaluate(self, *inputs: Tensor) -> Tensor:
        value, offset = self.linear(*inputs), self.offset()
        return value if offset is None else value + offset


@dataclass(frozen=True, eq=False)
class Planes:
    """Linear bounds of y = f(x_1..x_k), element by element, valid in exact arithmetic for these stored numbers:

        sum_i lower_slopes[i] x_i + lower_intercept  <=  y  <=  sum_i upper_slopes[i] x_i + upper_intercept

    All tensors `[batch, *shape]`, or `[batch, spec, *shape]` where each row of a backward pass has planes of its own.
    `lower_intercept` None means zero everywhere, and then `upper_intercept` is nowhere negative: sums of intercepts
    then have terms of one sign, and their rounding error needs no extra pass to bound.
    `simple`: one argument, lower slope 0 or 1, upper slope in [0, 1], and at least 1/2 where the lower one is 1.
    """

    lower_slopes: tuple[Tensor, ...]
    lower_intercept: Tensor | None
    upper_slopes: tuple[Tensor, ...]
    upper_intercept: Tensor
    simple: bool = False

    def select(self, domains: Tensor | slice) -> Planes:
        """Those of some domains."""
        return pick(self, domains)


@dataclass(frozen=True, eq=False)
class Band:
    """Parallel planes:  sum_i slopes[i] x_i + low  <=  y  <=  sum_i slopes[i] x_i + high. All `[batch, *shape]`."""

    slopes: tuple[Tensor, ...]
    low: Tensor
    high: Tensor


@dataclass(frozen=True, eq=False)
class Branch:
    """How to split one argument: at `point` `[batch, *shape]`, or not at all where that is not inside its interval.
    `share`, from 0 to 1: how much of what lies between the planes this can remove, next to the other arguments."""

    point: Tensor
    share: Tensor | float = 1.0


def weighted(points: Sequence[Tensor], sizes: Sequence[Tensor]) -> tuple[Branch, ...]:
    """A branch for each argument, with the share that its size (never negative) is of the largest."""
    largest = torch.stack(tuple(sizes)).amax(0)
    largest = torch.where(largest > 0, largest, 1.0)
    return tuple(Branch(point, size / largest) for point, size in zip(points, sizes, strict=True))


@dataclass(frozen=True, eq=False)
class Corner:
    """A place where f bends or jumps, the end of the box next to it where it is outside, and enclosures of what f tends
    to from below (or takes there) and from above. All `[batch, *shape]`."""

    place: Tensor
    before: Interval
    behind: Interval


class Elementwise(Op):
    """y_j = f(x_1j, ..., x_kj), all of one shape. Arguments of its methods may be degenerate, huge or infinite."""

    @abstractmethod
    def interval(self, *inputs: Interval) -> Interval:
        """Outward-rounded range over the box of the inputs."""

    @abstractmethod
    def relax(self, *inputs: Interval) -> Planes:
        """Planes that hold over the whole box, rounding included. Not finite where the box is not."""

    @abstractmethod
    def band(self, *inputs: Interval) -> Band:
        """Parallel planes that hold over the whole box, rounding included: what forward forms carry."""

    @abstractmethod
    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """How each argument is best split."""

    def unstable(self, *inputs: Interval) -> Tensor:
        """Where tighter input bounds could still tighten the planes: a mask `[batch, *shape]`."""
        return torch.ones_like(inputs[0].lower, dtype=torch.bool)

    def elements(self, index: Tensor, shape: tuple[int, ...]) -> Elementwise:
        """The function of the elements at flat positions `index` `[k]` of a node of shape `shape`, for values `[n, k]`:
        another one only where elements have constants of their own."""
        return self

    def kinks(self) -> tuple[float, ...] | None:
        """Of a continuous f of one argument that is straight but for bends: their places, ascending. Else None."""
        return None

    def corners(self, box: Interval) -> Sequence[Corner] | None:
        """Of an f of one argument that is straight but for bends and jumps: all of them in the box, ascending. None of
        another f, and where they are too many."""
        kinks = self.kinks()
        if kinks is None:
            return None
        places = [box.lower.clamp(min=kink).minimum(box.upper) for kink in kinks]
        values = [self.interval(Interval(place, place)) for place in places]
        return [Corner(place, value, value) for place, value in zip(places, values, strict=True)]

    def parts(self, *inputs: Interval) -> Sequence[tuple[Interval, ...]]:
        """Boxes that together hold all values that the arguments can have: more than one where f is simpler on each."""
        return (inputs,)

    def extreme(self) -> int:
        """1 where f is the largest of its arguments, -1 where it is the least, 0 where it is neither."""
        return 0
