"""Ranges, planes and bands of elementwise operators contain the function: exactly, for the numbers as stored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.soundness.exact import apply, fractions
from verifier.core.interval import Interval
from verifier.core.operator import Band, Elementwise, Planes
from verifier.ops import Abs, Clip, LeakyRelu, Maximum, Minimum, Relu, Sigmoid, Sign, Tanh

DTYPES = {"float32": torch.float32, "float64": torch.float64}
HUGE = 1e30
RANDOM_BOXES = 60


def leaky(*slopes: float) -> LeakyRelu:
    return LeakyRelu(torch.tensor(slopes, dtype=torch.float64))


ONE_ARGUMENT: dict[str, Elementwise] = {
    "relu": Relu(),
    "leaky-0.01": leaky(0.01),
    "leaky-0": leaky(0.0),
    "leaky-1": leaky(1.0),
    "leaky-steep": leaky(3.3),
    "leaky-negative": leaky(-0.7),
    "leaky-very-negative": leaky(-41.3),
    "leaky-tiny": leaky(1e-12),
    "abs": Abs(),
    "clip-0-6": Clip(0.0, 6.0),
    "clip-inexact-ends": Clip(-0.1, 0.3),
    "clip-below": Clip(0.1, np.inf),
    "clip-above": Clip(-np.inf, 0.7),
    "clip-nothing": Clip(-np.inf, np.inf),
    "clip-to-a-point": Clip(0.1, 0.1),
    "clip-large": Clip(-1e10, 12345.678),
    "sign": Sign(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
}


def special_values(dtype: torch.dtype) -> list[float]:
    info = torch.finfo(dtype)
    denormal = info.smallest_normal * info.eps
    values = [
        0.0,
        denormal,
        37 * denormal,
        info.tiny,
        1e-20,
        1e-7,
        0.1,
        0.3,
        0.7,
        1.0,
        6.0,
        9.0,
        17.3,
        100.0,
        12345.678,
    ]
    values += [1e10, HUGE]
    return [*sorted({v for value in values for v in (value, -value)}), -0.0]


def some_boxes(dtype: torch.dtype, seed: int) -> Interval:
    """All pairs of special numbers, boxes a few ulps wide, random ones of every size. `[n]`."""
    generator = np.random.default_rng(seed)
    kind = np.float32 if dtype is torch.float32 else np.float64
    special = special_values(dtype)
    pairs = [(a, b) for a, b in itertools.product(special, special) if a <= b]
    chosen = generator.permutation(len(pairs))[:110]
    boxes = [pairs[i] for i in chosen] + [(value, value) for value in special] + [(-0.0, 0.0), (0.0, -0.0)]
    for _ in range(RANDOM_BOXES):
        center = generator.normal() * 10.0 ** generator.uniform(-6, 3)
        width = 10.0 ** generator.uniform(-8, 2.3) if generator.random() < 0.8 else 0.0
        boxes.append((center, center + width))
    for value in (0.1, 0.3, 1.0, 6.0, 3.7, -5.1, 88.0, -103.0):  # a few ulps, around kinks and elsewhere
        low = kind(value)
        for _ in range(int(generator.integers(1, 4))):
            low = np.nextafter(low, kind(-np.inf))
        boxes.append((float(low), float(np.nextafter(kind(value), kind(np.inf)))))
    for _ in range(30):  # the tails, and boxes that end in one
        low, high = sorted(generator.uniform(-100, 100, 2))
        boxes.append((low, high))
        boxes.append((low, low + 10.0 ** generator.uniform(-6, 0)))
    lower, upper = (torch.tensor([float(kind(box[side])) for box in boxes], dtype=dtype) for side in (0, 1))
    return Interval(lower, torch.maximum(lower, upper))


def sample_points(
    lower: float, upper: float, kinks: Sequence[Fraction], generator: np.random.Generator
) -> set[Fraction]:
    points = {Fraction(lower), Fraction(upper)}
    weights = (0.5, 1e-6, 1 - 1e-6, *generator.random(3))
    inner = [lower + w * (upper - lower) for w in weights]
    inner += [np.nextafter(lower, np.inf), np.nextafter(upper, -np.inf), *generator.normal(size=2), 0.0]
    candidates = [Fraction(float(x)) for x in inner] + list(kinks)
    return points | {x for x in candidates if lower <= x <= upper}


def kinks_of(op: Elementwise) -> list[Fraction]:
    if not isinstance(op, Clip):
        return [Fraction(0)]
    return [Fraction(end) for end in (op.minimum, op.maximum) if np.isfinite(end)]


class Checker:
    """The three kinds of bounds of one operator over a batch of boxes, compared with exact values."""

    def __init__(self, op: Elementwise, boxes: tuple[Interval, ...]) -> None:
        self.op, self.boxes = op, boxes
        cast = op.to(boxes[0].lower.dtype, "cpu")
        self.range, self.planes, self.band = cast.interval(*boxes), cast.relax(*boxes), cast.band(*boxes)

    def lines(self, place: int) -> list[tuple[str, int, list[Fraction], Fraction]]:
        """What holds in box `place`: (name, +1 for an upper bound, slopes, intercept)."""
        planes, band = self.planes, self.band
        low = torch.zeros_like(planes.upper_intercept) if planes.lower_intercept is None else planes.lower_intercept
        none = (torch.zeros_like(low),) * len(self.boxes)
        found: list[tuple[str, int, Sequence[Tensor], Tensor]] = [
            ("range below", -1, none, self.range.lower),
            ("range above", +1, none, self.range.upper),
            ("plane below", -1, planes.lower_slopes, low),
            ("plane above", +1, planes.upper_slopes, planes.upper_intercept),
            ("band below", -1, band.slopes, band.low),
            ("band above", +1, band.slopes, band.high),
        ]
        numbers = [
            (name, side, [float(s[place]) for s in slopes], float(intercept[place]))
            for name, side, slopes, intercept in found
        ]
        for name, side, _, intercept_there in numbers:
            assert intercept_there != -side * np.inf, (name, place)
        return [
            (name, side, [*map(Fraction, slopes_there)], Fraction(intercept_there))
            for name, side, slopes_there, intercept_there in numbers
            if np.isfinite([*slopes_there, intercept_there]).all()  # else it says nothing
        ]

    def check(self, points_of: list[set[tuple[Fraction, ...]]]) -> None:
        for place, points in enumerate(points_of):
            lines = self.lines(place)
            for x in points:
                y = apply(self.op, x)
                for name, side, slopes, intercept in lines:
                    value = sum((s * v for s, v in zip(slopes, x, strict=True)), intercept)
                    assert (value - y) * side >= 0, self.explain(name, place, x, value, y)

    def explain(self, name: str, place: int, x: tuple[Fraction, ...], value: Fraction, y: Fraction) -> str:
        boxes = [(float(b.lower[place]), float(b.upper[place])) for b in self.boxes]
        return f"{name} {self.op} over {boxes} at {[*map(float, x)]}: {float(value)!r} for {float(y)!r}"


def points_in(boxes: tuple[Interval, ...], op: Elementwise, seed: int) -> list[set[tuple[Fraction, ...]]]:
    generator, kinks = np.random.default_rng(seed), kinks_of(op)
    found: list[set[tuple[Fraction, ...]]] = []
    for place in range(len(boxes[0].lower)):
        axes = [sample_points(float(b.lower[place]), float(b.upper[place]), kinks, generator) for b in boxes]
        if len(axes) == 1:
            found.append({(x,) for x in axes[0]})
            continue
        lists = [sorted(axis) for axis in axes]
        corners: set[tuple[Fraction, ...]] = {
            tuple(axis[int(generator.integers(0, 2)) - 1] for axis in lists) for _ in range(8)
        }
        inner: set[tuple[Fraction, ...]] = {
            tuple(axis[int(generator.integers(len(axis)))] for axis in lists) for _ in range(6)
        }
        found.append(corners | inner)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_one_argument(name: str, dtype: str) -> None:
    op, boxes = ONE_ARGUMENT[name], (some_boxes(DTYPES[dtype], seed=1),)
    Checker(op, boxes).check(points_in(boxes, op, seed=2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("op", [Maximum(), Minimum()], ids=["maximum", "minimum"])
def test_several_arguments(op: Elementwise, count: int, dtype: str) -> None:
    """Boxes of similar size, so that several arguments can win, and boxes of any size together."""
    generator = torch.Generator().manual_seed(count)
    pool = some_boxes(DTYPES[dtype], seed=3)
    mixed = [pool.select(torch.randint(len(pool.lower), (150,), generator=generator)) for _ in range(count)]
    scale = 10.0 ** torch.randint(-8, 8, (100,), generator=generator).to(DTYPES[dtype])
    similar = []
    for _ in range(count):
        lower = torch.randn(100, generator=generator).to(DTYPES[dtype]) * scale
        width = torch.rand(100, generator=generator).to(DTYPES[dtype]) * scale
        similar.append(Interval(lower, lower + width * (torch.rand(100, generator=generator) < 0.8)))
    boxes = tuple(
        Interval(torch.cat([m.lower, s.lower]), torch.cat([m.upper, s.upper]))
        for m, s in zip(mixed, similar, strict=True)
    )
    Checker(op, boxes).check(points_in(boxes, op, seed=count))


@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu_takes_each_channels_slope(dtype: str) -> None:
    slopes = torch.tensor([0.1, -2.0, 7.3, 0.0], dtype=torch.float64).reshape(1, 4, 1)
    ends = torch.linspace(-3, 2, 9).to(DTYPES[dtype])
    box = Interval(ends.reshape(9, 1, 1, 1).expand(9, 1, 4, 2), (ends + 1.7).reshape(9, 1, 1, 1).expand(9, 1, 4, 2))
    op = LeakyRelu(slopes).to(DTYPES[dtype], "cpu")
    whole, planes, band = op.interval(box), op.relax(box), op.band(box)
    for channel in range(4):
        single = leaky(float(slopes[0, channel, 0]))
        part = Interval(box.lower[:, 0, channel, 0], box.upper[:, 0, channel, 0])
        checker = Checker(single, (part,))

        def pick(tensor: Tensor, channel: int = channel) -> Tensor:
            return tensor[:, 0, channel, 1]

        checker.range = Interval(pick(whole.lower), pick(whole.upper))
        assert planes.lower_intercept is not None
        checker.planes = Planes(
            (pick(planes.lower_slopes[0]),),
            pick(planes.lower_intercept),
            (pick(planes.upper_slopes[0]),),
            pick(planes.upper_intercept),
        )
        checker.band = Band((pick(band.slopes[0]),), pick(band.low), pick(band.high))
        checker.check(points_in((part,), single, seed=channel))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_simple_planes_promise(dtype: str) -> None:
    box = some_boxes(DTYPES[dtype], seed=4)
    planes = Relu().relax(box)
    low, up = planes.lower_slopes[0], planes.upper_slopes[0]
    assert planes.simple and planes.lower_intercept is None
    assert ((low == 0) | (low == 1)).all() and ((up >= 0) & (up <= 1)).all() and (up[low == 1] >= 0.5).all()
    assert (planes.upper_intercept >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_a_point_has_tight_bounds(name: str, dtype: str) -> None:
    """Sound bounds of infinite width would pass everything above."""
    values = torch.tensor([-100.0, -2.5, -1.0, -1e-3, 1e-3, 0.2, 1.0, 7.0, 100.0], dtype=DTYPES[dtype])
    checker = Checker(ONE_ARGUMENT[name], (Interval(values, values),))
    for place, x in enumerate(fractions(values)):
        y = apply(checker.op, (x,))
        for line, _, slopes, intercept in checker.lines(place):
            size = 1 + abs(y) + abs(slopes[0] * x)
            assert abs(slopes[0] * x + intercept - y) <= size * Fraction(1, 10**5), (line, float(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu", "abs", "tanh", "clip-0-6"])
def test_lines_moved_inwards_are_caught(name: str, dtype: str) -> None:
    """The checks above have teeth: bounds that are a little too tight do not pass them."""
    boxes = (some_boxes(DTYPES[dtype], seed=1),)
    points, ulps = points_in(boxes, ONE_ARGUMENT[name], seed=2), 16 * torch.finfo(DTYPES[dtype]).eps
    checker = Checker(ONE_ARGUMENT[name], boxes)
    above = checker.planes.upper_intercept
    checker.planes = replace(checker.planes, upper_intercept=above - above.abs() * ulps)
    with pytest.raises(AssertionError, match="plane above"):
        checker.check(points)
