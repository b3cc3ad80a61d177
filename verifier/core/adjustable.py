"""Nonlinear operators whose planes have a parameter for each element, such as a slope: what optimised bounds vary."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.core.choose import choose
from verifier.core.interval import Interval
from verifier.core.operator import Branch, Elementwise, Planes


@dataclass(frozen=True, eq=False)
class Adjusted:
    """A plane for each element on one side of f, at some value of its parameter. `slopes` and `intercept` hold as those
    of `Planes` do. Its derivative by the parameter is  sum_i turns[i] x_i + lift;  `turns` None: x_1 + lift."""

    slopes: tuple[Tensor, ...]
    intercept: Tensor
    turns: tuple[Tensor, ...] | None
    lift: Tensor

    def rise(self, *values: Tensor) -> Tensor:
        """The derivative at some place."""
        if self.turns is None:
            return values[0] + self.lift
        total = self.lift
        for turn, value in zip(self.turns, values, strict=True):
            total = torch.addcmul(total, turn, value)
        return total


class Adjustable(Elementwise):
    """y = f(x_1..x_k) whose planes have a parameter for each element on either side: what optimised bounds vary.

    Parameters are `[batch, spec, *shape]`, and boxes `[batch, 1, *shape]`, but without the spec axis in `parameters`.
    `pace`: how large the steps of an ascent may be; 1 for planes that turn about a kink, whose best parameters often
    are the ends of their range.
    """

    pace: ClassVar[float] = 1.0

    @abstractmethod
    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval | None]:
        """Parameters worth trying below and above f; None above where the plane of `relax` is the best one."""

    @abstractmethod
    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        """The parameters below and above that give (nearly) the `planes` of `relax` over these inputs."""

    @abstractmethod
    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        """The plane below f."""

    @abstractmethod
    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        """The plane above f."""

    def plane(self, above: Tensor, parameter: Tensor, *inputs: Interval) -> Adjusted:
        """The plane above f where `above` is 1, below f where it is 0: what an ascent looks at. No proof rests on it,
        so that it need not be rounded outward."""
        high, low = self.upper_plane(parameter, *inputs), self.lower_plane(parameter, *inputs)
        slopes = tuple(choose(above, *pair) for pair in zip(high.slopes, low.slopes, strict=True))
        turns = tuple(choose(above, *pair) for pair in zip(high.turns or (), low.turns or (), strict=True))
        return Adjusted(
            slopes, choose(above, high.intercept, low.intercept), turns or None, choose(above, high.lift, low.lift)
        )


@dataclass(frozen=True, eq=False)
class Line:
    """Intercepts of lines of given slopes on one side of f, rounded outward, and `touch`, where each meets f (nearly):
    the derivative of the intercept by the slope is `-touch`."""

    intercept: Tensor
    touch: Tensor


class Sloped(Adjustable):
    """y = f(x) whose lines may have other slopes than those `relax` chooses: the slope is the parameter.

    Slopes are `[batch, spec, *shape]`, and the box `[batch, 1, *shape]`.
    """

    @abstractmethod
    def slope_ranges(self, box: Interval) -> tuple[Interval, Interval | None]:
        """Slopes worth trying below and above f; None above where the line of `relax` is the best one."""

    @abstractmethod
    def lower_line(self, box: Interval, slope: Tensor) -> Line:
        """The highest line of each slope (from its range) below f on the box."""

    @abstractmethod
    def upper_line(self, box: Interval, slope: Tensor) -> Line:
        """The lowest line of each slope (from its range) above f on the box."""

    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval | None]:
        return self.slope_ranges(inputs[0])

    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        return planes.lower_slopes[0], planes.upper_slopes[0]

    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        line = self.lower_line(inputs[0], parameter)
        return Adjusted((parameter,), line.intercept, None, -line.touch)

    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        line = self.upper_line(inputs[0], parameter)
        return Adjusted((parameter,), line.intercept, None, -line.touch)

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        return (Branch(self.branch_point(inputs[0])),)

    @abstractmethod
    def branch_point(self, box: Interval) -> Tensor:
        """Where to split the argument, of the box's shape: a kink, or a point that makes both parts easier."""
