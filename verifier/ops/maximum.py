"""Maximum and minimum of several arguments of one shape.

Below: the argument with the largest middle, the first, or any mixture of it and the second.

Above, for any number c:  max(x) <= c + sum_i max(x_i - c, 0), and with c at least L, the largest lower bound, each
term is below its chord, which is 0 at l_i and u_i - c at u_i (or 0, if u_i is not above c). As a function of c that is
straight between the u_i, and beyond the second largest u_i it only rises. So c runs from L to that; in the middle of
the box the plane is lowest from the third largest u_i on. Of two arguments all these planes are as low there, none is
lower, and the first and the last one are the upper sides of the convex hull.

An argument whose upper bound is below L can never win; where that leaves one, the planes are that argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from verifier.core.adjustable import Adjustable, Adjusted
from verifier.core.interval import Interval
from verifier.core.operator import Band, Branch, Planes, weighted
from verifier.core.rounding import gamma, tiny, unit, up


@dataclass(frozen=True)
class Maximum(Adjustable):
    """The parameters, from 0 to 1: below, the share of the second argument; above, where c is on its way."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).amax(0)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(_stack(inputs, "lower").amax(0), _stack(inputs, "upper").amax(0))

    def unstable(self, *inputs: Interval) -> Tensor:
        return ~_Race(inputs).over

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        """At L, below which an argument cannot win; one that starts there, where no rival can win above it, or else in
        the middle. The arguments whose upper bounds are the two largest matter most."""
        race = _Race(inputs)
        points = []
        for place, box in enumerate(inputs):
            rival = torch.cat([race.upper[:place], race.upper[place + 1 :], race.floor.unsqueeze(0)]).amax(0)
            inside = (box.lower < rival) & (rival < box.upper)
            points.append(torch.where(box.lower < race.floor, race.floor, torch.where(inside, rival, box.middle())))
        sizes = torch.minimum(race.upper, race.last) - race.floor
        return weighted(points, tuple(sizes.clamp(min=0)))

    def relax(self, *inputs: Interval) -> Planes:
        race = _Race(inputs)
        slopes, intercept = race.above(race.best)
        return Planes(tuple(race.first.to(intercept.dtype)), torch.zeros_like(intercept), tuple(slopes), intercept)

    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval]:
        most = (~_Race(inputs).over).to(inputs[0].lower.dtype)
        return Interval(torch.zeros_like(most), most), Interval(torch.zeros_like(most), most)

    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        race = _Race(inputs)
        span = race.last - race.floor
        return torch.zeros_like(span), torch.where(span > 0, (race.best - race.floor) / span, 0.0)

    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        race = _Race(inputs)
        share = torch.where(race.over, 0.0, parameter.clamp(0, 1))
        slopes = torch.where(race.first, 1 - share, torch.where(race.second, share, 0.0))
        doubt = share.clamp(max=unit(share.dtype)) * race.size.amax(0)  # 1 - share is off by so much at most
        turns = (race.second.to(share.dtype) - race.first.to(share.dtype)) * ~race.over
        zero = torch.zeros_like(race.floor)
        return Adjusted(tuple(slopes), torch.where(share == 0, 0.0, -2 * doubt), tuple(turns), zero)

    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        race = _Race(inputs)
        span = race.last - race.floor
        level = torch.minimum(torch.maximum(race.floor + parameter * span, race.floor), race.last)
        slopes, intercept = race.above(level)
        turns = torch.where((race.upper > level) & ~race.over, -span / race.width, 0.0)
        lift = torch.where(race.over, 0.0, span - (turns * race.lower).sum(0))
        return Adjusted(tuple(slopes), intercept, tuple(turns), lift)

    def band(self, *inputs: Interval) -> Band:
        """Around the argument w with the largest lower bound:  0 <= max(x) - x_w <= max(0, max u_i - l_w)."""
        race = _Race(inputs)
        rival = torch.where(race.winner, -torch.inf, race.upper).amax(0)
        high = torch.where(rival > race.floor, up(rival - race.floor), 0.0)
        return Band(tuple(race.winner.to(high.dtype)), torch.zeros_like(race.floor), high)

    def extreme(self) -> int:
        return 1


class _Race:
    """What the bounds say about who wins. `lower`, `upper` and the masks `winner` (has the largest lower bound),
    `first` and `second` (by their middles) are `[arguments, *shape]`. `floor` is L; the race is `over` where only the
    winner can win, who then is the first."""

    def __init__(self, inputs: tuple[Interval, ...]) -> None:
        self.lower, self.upper = _stack(inputs, "lower"), _stack(inputs, "upper")
        self.floor, place = self.lower.max(0)
        self.winner = _is(place, len(inputs))
        self.over = ((self.upper <= self.floor) | self.winner).all(0)  # what is not a number decides nothing

    @cached_property
    def middles(self) -> Tensor:
        return torch.nan_to_num(self.lower / 2 + self.upper / 2)

    @cached_property
    def first(self) -> Tensor:
        return torch.where(self.over, self.winner, _is(self.middles.argmax(0), len(self.lower)))

    @cached_property
    def second(self) -> Tensor:
        return _is(torch.where(self.first, -torch.inf, self.middles).argmax(0), len(self.lower)) & ~self.first

    @cached_property
    def size(self) -> Tensor:
        """The largest absolute value of each argument."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @cached_property
    def width(self) -> Tensor:
        return (self.upper - self.lower).clamp(min=tiny(self.lower.dtype))

    @cached_property
    def highest(self) -> Tensor:
        """The three largest upper bounds, or all."""
        return self.upper.topk(min(3, len(self.upper)), 0).values

    @property
    def last(self) -> Tensor:
        """The largest c."""
        return torch.maximum(self.highest[:2][-1], self.floor)

    @property
    def best(self) -> Tensor:
        """The c of the plane that is lowest in the middle."""
        return torch.maximum(self.highest[-1], self.floor) if len(self.highest) > 2 else self.floor

    def above(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and intercept of the plane for c = `level`, which is at least L. Stored slopes are off by rounding:
        argument i needs  s x + t_i >= max(x, c) - c  at both of its ends."""
        rise = (self.upper - level).clamp(min=0)
        slopes = rise / self.width
        gaps = torch.maximum(-slopes * self.lower, rise - slopes * self.upper)
        terms = torch.where(rise == 0, 0.0, gaps)
        size = (torch.where(rise == 0, 0.0, slopes * self.size + self.upper.abs() + level.abs())).sum(0)
        slack = size * gamma(2 * len(terms) + 6, level.dtype) + tiny(level.dtype)
        intercept = level + terms.sum(0) + slack + level.abs() * gamma(2, level.dtype)
        return torch.where(self.over, self.winner.to(level.dtype), slopes), torch.where(self.over, 0.0, intercept)


@dataclass(frozen=True)
class Minimum(Adjustable):
    """min(x_i) = -max(-x_i): its planes are those of the maximum, with sides changed."""

    def evaluate(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).amin(0)

    def interval(self, *inputs: Interval) -> Interval:
        return _negate(Maximum().interval(*map(_negate, inputs)))

    def unstable(self, *inputs: Interval) -> Tensor:
        return Maximum().unstable(*map(_negate, inputs))

    def branches(self, *inputs: Interval) -> tuple[Branch, ...]:
        mirrored = Maximum().branches(*map(_negate, inputs))
        return tuple(Branch(-branch.point, branch.share) for branch in mirrored)

    def relax(self, *inputs: Interval) -> Planes:
        return _mirrored(Maximum().relax(*map(_negate, inputs)))

    def ranges(self, *inputs: Interval) -> tuple[Interval, Interval]:
        return Maximum().ranges(*map(_negate, inputs))

    def parameters(self, planes: Planes, *inputs: Interval) -> tuple[Tensor, Tensor]:
        above, below = Maximum().parameters(_mirrored(planes), *map(_negate, inputs))
        return below, above

    def lower_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        plane = Maximum().upper_plane(parameter, *map(_negate, inputs))
        return Adjusted(plane.slopes, -plane.intercept, plane.turns, -plane.lift)

    def upper_plane(self, parameter: Tensor, *inputs: Interval) -> Adjusted:
        plane = Maximum().lower_plane(parameter, *map(_negate, inputs))
        return Adjusted(plane.slopes, -plane.intercept, plane.turns, -plane.lift)

    def band(self, *inputs: Interval) -> Band:
        mirrored = Maximum().band(*map(_negate, inputs))
        return Band(mirrored.slopes, -mirrored.high, -mirrored.low)

    def extreme(self) -> int:
        return -1


def _mirrored(planes: Planes) -> Planes:
    assert planes.lower_intercept is not None
    return Planes(planes.upper_slopes, -planes.upper_intercept, planes.lower_slopes, -planes.lower_intercept)


def _stack(inputs: tuple[Interval, ...], side: str) -> Tensor:
    return torch.stack([getattr(box, side) for box in inputs])


def _is(winner: Tensor, count: int) -> Tensor:
    """Mask `[count, *winner.shape]` of the argument that `winner` names."""
    return torch.nn.functional.one_hot(winner, count).movedim(-1, 0).bool()


def _negate(box: Interval) -> Interval:
    return Interval(-box.upper, -box.lower)
