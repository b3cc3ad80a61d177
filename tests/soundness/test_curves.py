"""Smooth functions, steps and products: ranges, planes and bands contain the function, for the numbers as stored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.soundness.exact import apply, fractions
from tests.soundness.test_elementwise import DTYPES, ONE_ARGUMENT, Checker, points_in, some_boxes
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.ops import (
    OPERATORS,
    Atan,
    Ceil,
    Cos,
    Elu,
    Erf,
    Exp,
    Floor,
    Gelu,
    HardSwish,
    IsNonzero,
    Log,
    LogRatio,
    LogSumExp,
    Maximum,
    Minimum,
    Mish,
    Multiply,
    Positive,
    Power,
    Reciprocal,
    Round,
    Share,
    Shrink,
    Silu,
    Sin,
    Softplus,
    Softsign,
    Sqrt,
    Tan,
    ThresholdedRelu,
    Truncate,
    Where,
)
from verifier.ops.scalar import Scalar

CURVES: dict[str, Scalar] = {
    "exp": Exp(),
    "log": Log(),
    "sqrt": Sqrt(),
    "reciprocal": Reciprocal(),
    **{f"power{p}": Power(float(p)) for p in (-3, -2, 0, 1, 2, 3, 4, 5, 8)},
    **{f"power{p}": Power(p) for p in (-1.5, -0.5, 0.3, 0.5, 1.7, 2.5)},
    "sin": Sin(),
    "cos": Cos(),
    "tan": Tan(),
    "atan": Atan(),
    "erf": Erf(),
    "softplus": Softplus(),
    "softsign": Softsign(),
    "elu": Elu(1.0),
    "elu-flat": Elu(0.3),
    "elu-negative": Elu(-0.8),
    "selu": Elu(1.6732631921768188, 1.0507010221481323),
    "celu": Elu(2.5, width=2.5),
    "gelu": Gelu(),
    "gelu-tanh": Gelu(True),
    "silu": Silu(),
    "mish": Mish(),
    "hardswish": HardSwish(),
}
STEPS: dict[str, Scalar] = {
    "floor": Floor(),
    "ceil": Ceil(),
    "round": Round(),
    "truncate": Truncate(-(2.0**31), 2.0**31 - 1),
    "truncate-byte": Truncate(-128.0, 127.0),
    "thresholded": ThresholdedRelu(0.7),
    "thresholded-below": ThresholdedRelu(-1.3),
    "thresholded-at-0": ThresholdedRelu(0.0),
    "shrink": Shrink(0.5, 0.0),
    "shrink-soft": Shrink(0.3, 0.3),
    "shrink-odd": Shrink(0.3, -2.1),
    "nonzero": IsNonzero(),
    "nonzero-integer": IsNonzero(0.5),
    "positive": Positive(),
    "nonnegative": Positive(strict=False),
}
BOXES = 20
INTEGERS = tuple(range(-4, 5))


def boxes_for(op: Elementwise, dtype: torch.dtype, seed: int) -> Interval:
    """Boxes of every kind; for steps also those with ends at and next to halves."""
    every = some_boxes(dtype, seed)
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(every.lower))[:BOXES])
    few = every.select(chosen)
    halves = torch.tensor(INTEGERS, dtype=dtype) / 2
    near = torch.cat([halves, *(torch.nextafter(halves, torch.full_like(halves, end)) for end in (-9.0, 9.0))])
    pairs = torch.tensor([pair for pair in itertools.product(near.tolist(), near.tolist()) if pair[0] <= pair[1]])
    pairs = pairs.to(dtype)[torch.from_numpy(np.random.default_rng(seed).permutation(len(pairs))[:10])]
    return Interval(torch.cat([few.lower, pairs[:, 0]]), torch.cat([few.upper, pairs[:, 1]]))


def points_of(checker: Checker, seed: int) -> list[set[tuple[Fraction, ...]]]:
    """Ends, inner points, integers and halves, and where the planes come nearest to the function, and next to it."""
    generator, box, op = np.random.default_rng(seed), checker.boxes[0], checker.op
    assert isinstance(op, Scalar)
    slopes = [checker.planes.lower_slopes[0], checker.planes.upper_slopes[0], checker.band.slopes[0]]
    touches: list[Tensor] = [x.expand_as(box.lower) for slope in slopes for x, _ in op.points(box, slope)]
    found = []
    for place in range(len(box.lower)):
        low, high = float(box.lower[place]), float(box.upper[place])
        candidates = [low + w * (high - low) for w in (0.5, 1e-6, 1 - 1e-6, *generator.random(3))]
        candidates += [float(n) / 2 for n in INTEGERS] + [np.pi / 2, -np.pi / 2, 1e-30, -1e-30]
        for touch in {float(t[place]) for t in touches}:
            candidates += [touch, np.nextafter(touch, np.inf), np.nextafter(touch, -np.inf), touch * 1.001]
        inside = {Fraction(x) for x in candidates if np.isfinite(x) and low <= x <= high}
        found.append({(x,) for x in inside | {Fraction(low), Fraction(high)} if defined(op, x)})
    return found


def defined(op: Elementwise, x: Fraction) -> bool:
    if isinstance(op, Truncate):
        return op.minimum <= (x.__floor__() if x > 0 else x.__ceil__()) <= op.maximum
    if isinstance(op, Log) or (isinstance(op, Power) and op.exponent < 0 and op.exponent != int(op.exponent)):
        return x > 0
    if isinstance(op, Power) and op.exponent < 0:
        return x != 0
    return x >= 0 or not (isinstance(op, Sqrt) or (isinstance(op, Power) and op.exponent != int(op.exponent)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*CURVES, *STEPS])
def test_one_argument(name: str, dtype: str) -> None:
    op = CURVES[name] if name in CURVES else STEPS[name]
    checker = Checker(op, (boxes_for(op, DTYPES[dtype], seed=len(name)),))
    checker.check(points_of(checker, seed=7))


def hard_places(op: Scalar, dtype: torch.dtype) -> Tensor:
    """Kinks, inflection points and poles of this operator, jumps, multiples of pi / 2."""
    own = getattr(op, "knots", ()) + ((op.threshold, -op.threshold) if isinstance(op, ThresholdedRelu | Shrink) else ())
    waves = tuple(k * np.pi / 2 for k in (-3, -1, 1, 2, 100)) if isinstance(op, Sin | Cos | Tan) else ()
    return torch.tensor([*own, *waves, 0.0, 0.5, 1.0, -1.5], dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*CURVES, *STEPS])
def test_boxes_chosen_to_be_hard(name: str, dtype: str) -> None:
    """That begin, end or lie at such a place, or an ulp beside it; from an ulp to 2 wide."""
    op = CURVES[name] if name in CURVES else STEPS[name]
    places = hard_places(op, DTYPES[dtype])
    near = torch.cat([places, *(torch.nextafter(places, torch.full_like(places, end)) for end in (-1e9, 1e9))])
    ulps = (near.abs() + torch.finfo(DTYPES[dtype]).tiny) * torch.finfo(DTYPES[dtype]).eps
    widths = [ulps, 3 * ulps, torch.full_like(near, 1e-3), torch.full_like(near, 2.0)]
    pairs = [(near, near + width) for width in widths] + [(near - width, near) for width in widths]
    box = Interval(torch.cat([low for low, _ in pairs]), torch.cat([high for _, high in pairs]))
    checker = Checker(op, (box.select(torch.arange(0, len(box.lower), 3)),))
    checker.check(points_of(checker, seed=8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sqrt", "log", "reciprocal", "power0.5", "power0.3", "power1.7"])
def test_ends_at_minus_zero(name: str, dtype: str) -> None:
    """A derivative is +inf at 0 and computed as -inf at -0.0. (One box fills a vector register, so that denormals are
    flushed or not as they are in large batches.)"""
    info = torch.finfo(DTYPES[dtype])
    upper = torch.tensor([info.tiny * scale for scale in (1e-6, 0.3, 1.0, 7.0, 1e6)] + [1e-7, 1.0, 1e30])
    upper = upper.to(DTYPES[dtype]).repeat_interleave(16)
    checker = Checker(CURVES[name], (Interval(torch.full_like(upper, -0.0), upper),))
    checker.check(points_of(checker, seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "softplus", "power3", "sin", "gelu", "elu-flat", "floor"])
def test_lines_moved_inwards_are_caught(name: str, dtype: str) -> None:
    """The test above has teeth."""
    op = CURVES[name] if name in CURVES else STEPS[name]
    checker = Checker(op, (boxes_for(op, DTYPES[dtype], seed=len(name)),))
    points = points_of(checker, seed=7)
    above = checker.planes.upper_intercept
    ulps = 64 * torch.finfo(DTYPES[dtype]).eps
    moved = above - (above.abs() + checker.planes.upper_slopes[0].abs() * checker.boxes[0].magnitude()) * ulps
    checker.planes = replace(checker.planes, upper_intercept=moved - ulps)
    with pytest.raises(AssertionError, match="plane above"):
        checker.check(points)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*CURVES, *STEPS])
def test_a_line_of_any_slope_has_a_valid_intercept(name: str, dtype: str) -> None:
    """Also slopes outside of the range worth trying, several for each box `[batch, spec]`."""
    op = CURVES[name] if name in CURVES else STEPS[name]
    checker = Checker(op, (boxes_for(op, DTYPES[dtype], seed=5).select(slice(0, 12)),))
    points, box = points_of(checker, seed=6), checker.boxes[0]
    wide = Interval(box.lower.unsqueeze(1), box.upper.unsqueeze(1))
    generator = torch.Generator().manual_seed(len(name))
    slopes = torch.randn(12, 3, generator=generator).to(DTYPES[dtype]) * torch.tensor([0.1, 1.0, 30.0]).to(
        DTYPES[dtype]
    )
    below, above = op.lower_line(wide, slopes).intercept, op.upper_line(wide, slopes).intercept
    for place, spec in itertools.product(range(12), range(3)):
        slope, low, high = (float(t[place, spec]) for t in (slopes, below, above))
        for (x,) in points[place]:
            rest = apply(op, (x,)) - Fraction(slope) * x
            assert not (np.isfinite(low) and Fraction(low) > rest) and low != np.inf, (place, slope, float(x))
            assert not (np.isfinite(high) and Fraction(high) < rest) and high != -np.inf, (place, slope, float(x))


MODERATE = ((0.1, 0.3), (0.2, 3.0), (-1.0, 1.4), (-3.0, 1.0))
LOOSE = 0.15  # of the range, at most, above the best plane at the middle


@pytest.mark.parametrize("name", [*CURVES, *(name for name in STEPS if name != "nonzero")])
def test_planes_are_near_the_convex_hull(name: str) -> None:
    """Sound bounds of infinite width would pass everything above."""
    op = CURVES[name] if name in CURVES else STEPS[name]
    for low, high in MODERATE:
        if not all(defined(op, Fraction(x)) for x in (low, high, 0.0) if low <= x <= high):
            continue
        if isinstance(op, Tan) and high - low > 2.5:
            continue
        box = Interval(torch.tensor([low], dtype=torch.float64), torch.tensor([high], dtype=torch.float64))
        values = np.array([float(apply(op, (Fraction(x),))) for x in np.linspace(low, high, 41)])
        if (values[:-1] == values[1:]).all():
            continue
        checker, span = Checker(op, (box,)), values.max() - values.min()
        lines = {name: float(slopes[0]) * (low + high) / 2 + float(c) for name, _, slopes, c in checker.lines(0)}
        best_below, best_above = envelope(values), -envelope(-values)
        assert lines["plane below"] >= best_below - LOOSE * span, (low, high)
        assert lines["plane above"] <= best_above + LOOSE * span, (low, high)
        assert lines["range below"] >= values.min() - 0.05 * span, (low, high)
        assert lines["range above"] <= values.max() + 0.05 * span, (low, high)


def envelope(values: np.ndarray) -> float:
    """The greatest convex function below equally spaced values, at the middle: the least chord across it."""
    middle = len(values) // 2
    left, right = np.arange(middle)[:, None], np.arange(middle + 1, len(values))[None, :]
    chords = values[left] + (values[right] - values[left]) * (middle - left) / (right - left)
    return float(min(chords.min(), values[middle]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CURVES)
def test_a_point_has_tight_bounds(name: str, dtype: str) -> None:
    values = torch.tensor([-100.0, -2.5, 1e-3, 0.2, 7.0, 60.0], dtype=DTYPES[dtype])
    values = values[[defined(CURVES[name], x) for x in fractions(values)]]
    checker = Checker(CURVES[name], (Interval(values, values),))
    for place, x in enumerate(fractions(values)):
        y, lines = apply(checker.op, (x,)), checker.lines(place)
        assert len(lines) == 6
        for line, _, slopes, intercept in lines:
            size = 1 + abs(y) + abs(slopes[0] * x)
            assert abs(slopes[0] * x + intercept - y) <= size * Fraction(1, 10**4), (line, float(x))


@pytest.mark.parametrize("op", [Floor(), Ceil(), Round(), Positive(), Positive(False), IsNonzero(), IsNonzero(0.5)])
def test_a_step_is_decided_at_a_point(op: Elementwise) -> None:
    """Also at a jump, which is on one of its sides; a box that reaches beyond has both."""
    x = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    value, wide = op.interval(Interval(x, x)), op.interval(Interval(x - 1, x + 1))
    assert torch.equal(value.lower, op.evaluate(x)) and torch.equal(value.upper, op.evaluate(x))
    assert (wide.lower <= op.evaluate(x - 1)).all() and (wide.upper >= op.evaluate(x + 1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*CURVES, *STEPS, *ONE_ARGUMENT])
def test_ranges_shrink_with_the_box(name: str, dtype: str) -> None:
    op = (CURVES | STEPS | ONE_ARGUMENT)[name].to(DTYPES[dtype], "cpu")
    box = boxes_for(op, DTYPES[dtype], seed=3)
    middle = (box.lower / 2 + box.upper / 2).clamp(box.lower, box.upper)
    outer = op.interval(box)
    slack = 1e-3 * (1 + outer.magnitude())  # tangents at points found by bisection are not the same ones
    for inner in (op.interval(Interval(box.lower, middle)), op.interval(Interval(middle, box.upper))):
        assert (inner.lower >= outer.lower - slack).logical_or(~outer.lower.isfinite()).all()
        assert (inner.upper <= outer.upper + slack).logical_or(~outer.upper.isfinite()).all()


ENDLESS = ((-torch.inf, torch.inf), (-torch.inf, 1.0), (1.0, torch.inf), (torch.nan, 1.0), (-1.0, torch.nan))


@pytest.mark.parametrize("name", [*CURVES, *STEPS])
def test_boxes_without_ends_prove_nothing(name: str) -> None:
    """Whatever is finite must hold at every number that can be meant."""
    op = CURVES[name] if name in CURVES else STEPS[name]
    ends = torch.tensor(ENDLESS)
    numbers = [Fraction(x) for x in (-1e9, -1e5, -120.0, -1.0, -0.7, 0.3, 1.0, 2.5, 1e5, 1e9)]
    points = [{(x,) for x in numbers if defined(op, x) and not (x < low or x > high)} for low, high in ENDLESS]
    Checker(op, (Interval(ends[:, 0], ends[:, 1]),)).check(points)


def curvature_of_mish(x: Any) -> Any:
    e = mpmath.iv.exp(x)
    return 2 * (e + 1) * (e * e + 2 * e + 2) - x * (2 * e**3 + 3 * e * e - 2 * e - 2)


def curvature_of_silu(x: Any) -> Any:
    e = mpmath.iv.exp(x)
    return 2 * (e + 1) - x * (e - 1)  # tanh(x / 2) = (e - 1) / (e + 1)


def curvature_of_gelu(x: Any) -> Any:
    """For x >= 0, with tanh u = (e - 1) / (e + 1), e = exp(2 u)."""
    c, k = mpmath.iv.mpf("0.044715"), mpmath.iv.sqrt(2 / mpmath.iv.pi)
    e = mpmath.iv.exp(2 * k * (x + c * x**3))
    return (1 + 6 * c * x * x) * (e + 1) - k * x * (1 + 3 * c * x * x) ** 2 * (e - 1)


@pytest.mark.parametrize(
    ("function", "low", "knots"),
    [
        (curvature_of_mish, -40.0, Mish.knots),
        (curvature_of_silu, -40.0, Silu.knots),
        (curvature_of_gelu, 0.0, Gelu(True).knots[1:]),
    ],
    ids=["mish", "silu", "gelu-tanh"],
)
def test_inflection_points(function: Callable[[Any], Any], low: float, knots: tuple[float, ...]) -> None:
    """The second derivative has one sign on each piece, by interval arithmetic; beyond 40 its leading terms decide."""
    edges, sign = [low, *knots, 40.0], 1 if low == 0 else -1
    for start, end in itertools.pairwise(edges):
        open_cells = [(start + (1e-12 if start in knots else 0), end - (1e-12 if end in knots else 0))]
        while open_cells:
            left, right = open_cells.pop()
            value = function(mpmath.iv.mpf([left, right])) * sign
            if not value.a > 0:
                assert right - left > 1e-13, (left, right)
                middle = (left + right) / 2
                open_cells += [(left, middle), (middle, right)]
        sign = -sign


# --- several arguments

RATIOS = [(LogRatio(1.0), 2), (LogRatio(3.0), 2)]
CONDITIONS = [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (0.0, 0.5), (-1e-7, 1e-7), (1 - 1e-7, 1 + 1e-7)]


def similar_boxes(count: int, dtype: torch.dtype) -> tuple[Interval, ...]:
    """Boxes of one order of magnitude, some degenerate, and boxes of any size together."""
    generator = torch.Generator().manual_seed(count)
    pool = some_boxes(dtype, seed=3)
    size = 10.0 ** torch.randint(-4, 4, (60,), generator=generator).to(dtype)
    boxes = []
    for _ in range(count):
        mixed = pool.select(torch.randint(len(pool.lower), (60,), generator=generator))
        lower = torch.randn(60, generator=generator).to(dtype) * size
        width = torch.rand(60, generator=generator).to(dtype) * size * (torch.rand(60, generator=generator) < 0.8)
        boxes.append(Interval(torch.cat([mixed.lower, lower]), torch.cat([mixed.upper, lower + width])))
    return tuple(boxes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("op", "count"),
    [(Multiply(), 2), *((LogSumExp(), count) for count in (1, 2, 3, 7)), (Where(), 3), *RATIOS, (Share(), 2)],
    ids=["multiply", *(f"logsumexp{count}" for count in (1, 2, 3, 7)), "where", "ratio", "ratio-of-cubes", "share"],
)
def test_several_arguments(op: Elementwise, count: int, dtype: str) -> None:
    boxes = similar_boxes(count, DTYPES[dtype])
    if isinstance(op, Where):
        ends = torch.tensor(CONDITIONS, dtype=DTYPES[dtype]).repeat(20, 1)[: len(boxes[0].lower)]
        boxes = Interval(ends[:, 0], ends[:, 1]), *boxes[1:]
    if isinstance(op, LogRatio):
        boxes = tuple(Interval(b.lower.clamp(min=0), b.upper.clamp(min=0)) for b in boxes)
    if isinstance(op, Share):
        boxes = tuple(Interval(b.lower.clamp(max=0), b.upper.clamp(max=0)) for b in boxes)
    points = points_in(boxes, op, seed=count)
    if isinstance(op, Where):  # of a condition only 0 and 1 count
        whole = [range(math.ceil(low), math.floor(high) + 1) for low, high in ends.tolist()[: len(points)]]
        points = [{(Fraction(c), *x[1:]) for c in cs for x in xs} for cs, xs in zip(whole, points, strict=True)]
    Checker(op, boxes).check(points)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_logsumexp_planes_are_tight_to_second_order(count: int) -> None:
    """Over boxes of radius r the gap is at most r^2, wherever they are: no loss where shares are tiny, no overflow."""
    generator = torch.Generator().manual_seed(count)
    for radius in (0.3, 0.01):
        center = [torch.randn(50, dtype=torch.float64, generator=generator) * 30 for _ in range(count)]
        boxes = [Interval(c - radius, c + radius) for c in center]
        planes, band = LogSumExp().relax(*boxes), LogSumExp().band(*boxes)
        assert planes.lower_intercept is not None
        below = sum((s * c for s, c in zip(planes.lower_slopes, center, strict=True)), planes.lower_intercept)
        above = sum((s * c for s, c in zip(planes.upper_slopes, center, strict=True)), planes.upper_intercept)
        assert (above - below).max() <= radius**2
        assert (band.high - band.low).max() <= 3 * radius**2


def test_a_product_has_the_width_of_mccormick() -> None:
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(2, 50, dtype=torch.float64, generator=generator)
    width = torch.rand(2, 50, dtype=torch.float64, generator=generator)
    band = Multiply().band(*(Interval(lower[i], lower[i] + width[i]) for i in (0, 1)))
    torch.testing.assert_close(band.high - band.low, width.prod(0) / 2, rtol=1e-9, atol=1e-12)


def test_every_bounded_elementwise_operator_is_tested() -> None:
    here = {type(op) for op in (*CURVES.values(), *STEPS.values())} | {Multiply, LogSumExp, LogRatio, Share, Where}
    before = {type(op) for op in ONE_ARGUMENT.values()} | {Maximum, Minimum}
    assert {op for op in OPERATORS if issubclass(op, Elementwise)} == here | before
