"""How tight the planes of each elementwise operator are, over a grid of intervals.

    python benchmarks/relaxations.py benchmarks/results/relaxations.csv

Each interval gives the area between the planes that bounds use first (before any slope is optimised), divided by

    hull        the area of the convex hull of the function's graph, which no pair of planes can reach
    best        the smallest area between two planes: the distance of the hull's sides in the middle, times the width
    published   the area between planes as published, computed here from their formulas; at most 1 is as tight

Written are the mean and the largest quotient of each over the grid (of two arguments: volumes, over pairs of
intervals). Left out are intervals on which the hull is nearly flat. Published choices:

    CROWN       Zhang et al. 2018, tables 1 and 2, equations 13 to 16: chords, tangents in the middle of convex and
                concave parts, and tangents through an end where an S-shaped function bends both ways (auto_LiRPA has
                the same for them, and the tangent in the middle for exp, log, reciprocal, roots and powers)
    DeepPoly    Singh et al. 2019, section 4.5: the largest lower end below, the largest upper end above
    McCormick   Shi et al. 2020, section 3.3: the plane of one corner below, and of one above
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from verifier import ops
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.ops.scalar import Scalar

POINTS = 801  # at which a function of one argument is looked at, and 41 x 41 for two
ENDS = (-8.0, -4.0, -2.0, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
FEW_ENDS = (-4.0, -1.0, -0.1, 0.5, 3.0)
FLAT = 1e-6  # of the values' range: hulls with a smaller height are left out
COLUMNS = ("operator", "intervals", "hull_mean", "hull_most", "best_mean", "best_most", "source", "mean", "most")

Heights = tuple[Tensor, Tensor]
"""Of a lower and an upper plane, over the middle of each interval."""
Function = Callable[..., Tensor]
Published = Callable[[Function, tuple[Interval, ...]], Heights]


def middle_of(boxes: tuple[Interval, ...]) -> list[Tensor]:
    return [(box.lower + box.upper) / 2 for box in boxes]


def chord(f: Function, box: Interval) -> Tensor:
    return (f(box.lower) + f(box.upper)) / 2


def slope_at(f: Function, x: Tensor) -> Tensor:
    """The derivative, by automatic differentiation."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(f(x).sum(), x)
    return slope


def convex(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    """The tangent in the middle, the chord."""
    return f(*middle_of(boxes)), chord(f, boxes[0])


def concave(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    return chord(f, boxes[0]), f(*middle_of(boxes))


def bent_at_0(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    """Convex and straight but for a kink at (0, 0): below, the line of the longer side."""
    (box,), (middle,) = boxes, middle_of(boxes)
    side = torch.where(box.upper > -box.lower, 1.0, -1.0).double()
    return f(side) * middle / side, chord(f, box)


def s_shaped(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    """Convex left of 0, concave right of it."""
    (box,), (middle,) = boxes, middle_of(boxes)
    steep = (f(box.upper) - f(box.lower)) / (box.upper - box.lower)
    value, straight = f(middle), chord(f, box)
    lower = torch.where(slope_at(f, box.lower) >= steep, straight, _through(f, box.upper, box.lower, middle))
    upper = torch.where(slope_at(f, box.upper) >= steep, straight, _through(f, box.lower, box.upper, middle))
    left, right = box.upper <= 0, box.lower >= 0
    lower, upper = torch.where(left, value, lower), torch.where(left, straight, upper)
    return torch.where(right, straight, lower), torch.where(right, value, upper)


def s_mirrored(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    """Concave left of 0, convex right of it: the negative of an S."""
    low, high = s_shaped(lambda x: -f(x), boxes)
    return -high, -low


def _through(f: Function, end: Tensor, other: Tensor, at: Tensor) -> Tensor:
    """Height at `at` of the line through (end, f(end)) that touches f between 0 and `other`."""
    near, far = torch.zeros_like(other), other
    for _ in range(60):
        touch = (near + far) / 2
        miss = (f(touch) + slope_at(f, touch) * (end - touch) - f(end)) * torch.sign(other - end)
        near, far = torch.where(miss < 0, touch, near), torch.where(miss < 0, far, touch)
    return f(end) + slope_at(f, far) * (at - end)


def deep_poly(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    """Of a maximum: an argument with the largest lower end; that one above too, where no other can exceed it."""
    lower, upper = torch.stack([box.lower for box in boxes]), torch.stack([box.upper for box in boxes])
    winner = lower.argmax(0, keepdim=True)
    below = torch.stack(middle_of(boxes)).gather(0, winner)[0]
    rival = upper.scatter(0, winner, -torch.inf).amax(0)
    return below, torch.where(rival <= lower.amax(0), below, upper.amax(0))


def corners(f: Function, boxes: tuple[Interval, ...]) -> Heights:
    """y_l x + x_l y - x_l y_l  and  y_u x + x_l y - x_l y_u."""
    (x, y), (p, q) = boxes, middle_of(boxes)
    return y.lower * p + x.lower * q - x.lower * y.lower, y.upper * p + x.lower * q - x.lower * y.upper


@dataclass(frozen=True)
class Case:
    op: Elementwise
    source: str = ""
    published: Published | None = None
    domain: tuple[float, float] = (-np.inf, np.inf)


ABOVE = (0.1, np.inf)
TANGENTS = "CROWN"
CASES: dict[str, Case] = {
    "Relu": Case(ops.Relu(), TANGENTS, bent_at_0),
    "LeakyRelu(0.1)": Case(ops.LeakyRelu(torch.tensor([0.1], dtype=torch.float64)), TANGENTS, bent_at_0),
    "Abs": Case(ops.Abs(), TANGENTS, bent_at_0),
    "Clip(-1, 1)": Case(ops.Clip(-1.0, 1.0)),
    **{f"{op.name}": Case(op) for op in (ops.Sign(), ops.Floor(), ops.Ceil(), ops.Round(), ops.Positive())},
    "Truncate": Case(ops.Truncate(-128.0, 127.0)),
    "ThresholdedRelu(1)": Case(ops.ThresholdedRelu(1.0)),
    "Shrink(0.5, 0.5)": Case(ops.Shrink(0.5, 0.5)),
    **{op.name: Case(op, TANGENTS, s_shaped) for op in (ops.Sigmoid(), ops.Tanh(), ops.Atan())},
    **{op.name: Case(op, TANGENTS, s_shaped) for op in (ops.Erf(), ops.Softsign())},
    **{op.name: Case(op, TANGENTS, convex) for op in (ops.Exp(), ops.Softplus())},
    "Reciprocal": Case(ops.Reciprocal(), TANGENTS, convex, ABOVE),
    "Power(2)": Case(ops.Power(2.0), TANGENTS, convex),
    "Power(3)": Case(ops.Power(3.0), TANGENTS, s_mirrored),
    "Power(0.3)": Case(ops.Power(0.3), TANGENTS, concave, ABOVE),
    "Log": Case(ops.Log(), TANGENTS, concave, ABOVE),
    "Sqrt": Case(ops.Sqrt(), TANGENTS, concave, ABOVE),
    **{op.name: Case(op) for op in (ops.Sin(), ops.Cos())},
    "Tan": Case(ops.Tan(), TANGENTS, s_mirrored, (-1.0, 1.0)),
    "Elu(1)": Case(ops.Elu(1.0), TANGENTS, convex),
    **{op.name: Case(op) for op in (ops.Gelu(), ops.Silu(), ops.Mish(), ops.HardSwish())},
    "Maximum": Case(ops.Maximum(), "DeepPoly", deep_poly),
    "Multiply": Case(ops.Multiply(), "McCormick", corners),
    "LogSumExp": Case(ops.LogSumExp()),
}


def intervals(case: Case) -> tuple[Interval, ...]:
    """Of one argument, or of two."""
    if isinstance(case.op, Scalar | ops.Relu):
        ends = [end for end in ENDS if case.domain[0] <= end <= case.domain[1]]
        return (_as_interval(list(itertools.combinations(ends, 2))),)
    pairs = list(itertools.product(itertools.combinations(FEW_ENDS, 2), repeat=2))
    return _as_interval([first for first, _ in pairs]), _as_interval([second for _, second in pairs])


def _as_interval(pairs: list[tuple[float, float]]) -> Interval:
    lower, upper = torch.tensor(pairs, dtype=torch.float64).T
    return Interval(lower, upper)


def hull_of_one(op: Elementwise, low: float, high: float) -> tuple[float, float]:
    """Mean height of the hull over the interval, and the height in the middle."""
    x = np.linspace(low, high, POINTS)
    y = op.evaluate(torch.from_numpy(x)).numpy()
    height = -_envelope(x, -y) - _envelope(x, y)
    return float(np.trapezoid(height, x)) / (high - low), float(height[POINTS // 2])


def _envelope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The greatest convex function below the points, at these (Andrew's chain)."""
    chain: list[int] = []
    for place in range(len(x)):
        while len(chain) > 1 and _above(x, y, chain[-2], chain[-1], place):
            chain.pop()
        chain.append(place)
    return np.interp(x, x[chain], y[chain])


def _above(x: np.ndarray, y: np.ndarray, first: int, middle: int, last: int) -> bool:
    """Whether the middle point is on or above the chord."""
    return bool((y[middle] - y[first]) * (x[last] - x[first]) >= (y[last] - y[first]) * (x[middle] - x[first]))


def hull_of_two(op: Elementwise, boxes: list[tuple[float, float]]) -> tuple[float, float]:
    """The same of a convex function, or of a product, whose envelopes the values in the corners give: above the larger
    of both ways to divide the box in triangles; below the function, or the smaller one of a product."""
    share = np.linspace(0, 1, 41)
    s, t = np.meshgrid(share, share)
    (a, b), (c, d) = boxes
    at = lambda x, y: op.evaluate(torch.as_tensor(x), torch.as_tensor(y)).numpy()  # noqa: E731
    one = {
        key: float(at(np.float64(x), np.float64(y)))
        for key, x, y in (("ll", a, c), ("hl", b, c), ("lh", a, d), ("hh", b, d))
    }
    rising = one["ll"] + np.where(s > t, s * (one["hl"] - one["ll"]) + t * (one["hh"] - one["hl"]),
                                  t * (one["lh"] - one["ll"]) + s * (one["hh"] - one["lh"]))  # fmt: skip
    falling = np.where(s + t < 1, one["ll"] + s * (one["hl"] - one["ll"]) + t * (one["lh"] - one["ll"]),
                       one["hh"] + (1 - s) * (one["lh"] - one["hh"]) + (1 - t) * (one["hl"] - one["hh"]))  # fmt: skip
    below = np.minimum(rising, falling) if isinstance(op, ops.Multiply) else at(a + s * (b - a), c + t * (d - c))
    height = np.maximum(rising, falling) - below
    return float(height.mean()), float(height[20, 20])


def quotients(case: Case) -> Iterator[tuple[float, float, float]]:
    """Of each interval: our area by that of the hull, of the best planes, and of the published ones (NaN if none)."""
    boxes = intervals(case)
    middles, planes = middle_of(boxes), case.op.relax(*boxes)
    low = torch.zeros_like(middles[0]) if planes.lower_intercept is None else planes.lower_intercept
    ours = planes.upper_intercept - low
    for place, middle in enumerate(middles):
        ours = ours + (planes.upper_slopes[place] - planes.lower_slopes[place]) * middle
    nothing = torch.full_like(ours, torch.nan)
    below, above = (nothing, nothing) if case.published is None else case.published(case.op.evaluate, boxes)
    for place in range(len(ours)):
        ends = [(float(box.lower[place]), float(box.upper[place])) for box in boxes]
        mean, best = hull_of_one(case.op, *ends[0]) if len(ends) == 1 else hull_of_two(case.op, ends)
        values = case.op.interval(*(box.select(slice(place, place + 1)) for box in boxes))
        if mean > FLAT * float(values.upper - values.lower):
            own = float(ours[place])
            yield own / mean, own / best, own / float(above[place] - below[place])


def row_of(name: str) -> tuple[object, ...]:
    table = np.array(list(quotients(CASES[name])))
    hull, best, published = (f"{value:.3f}" for value in table.mean(0)), table.max(0), table[:, 2]
    means, most = list(hull), [f"{value:.3f}" for value in best]
    told = (means[2], most[2]) if not np.isnan(published).any() else ("", "")
    return name, len(table), means[0], most[0], means[1], most[1], CASES[name].source, *told


def main() -> None:
    with Path(sys.argv[1]).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name in CASES:
            writer.writerow(row_of(name))


if __name__ == "__main__":
    main()
