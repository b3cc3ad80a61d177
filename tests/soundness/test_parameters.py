"""Planes with parameters: valid at any parameter, exactly; as tight as they can be; their derivatives."""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.soundness.test_curves import similar_boxes
from tests.soundness.test_elementwise import ONE_ARGUMENT, Checker, points_in
from verifier.core.adjustable import Adjustable, Adjusted, Sloped
from verifier.core.interval import Interval
from verifier.ops import OPERATORS, LogSumExp, Maximum, Minimum, Multiply
from verifier.ops.scalar import Scalar

DTYPES = {"float32": torch.float32, "float64": torch.float64}
CASES: list[tuple[Adjustable, int]] = [
    (Multiply(), 2),
    *((LogSumExp(), count) for count in (1, 2, 3, 7)),
    *((op, count) for op in (Maximum(), Minimum()) for count in (2, 3, 7)),
]
each = pytest.mark.parametrize(("op", "count"), CASES, ids=[f"{op.name}-{count}" for op, count in CASES])
SIDES = {"lower": -1, "upper": 1}


def test_every_adjustable_operator_is_here() -> None:
    """One-argument ones are in `test_multipliers`."""
    several = {op for op in OPERATORS if issubclass(op, Adjustable) and not issubclass(op, Sloped)}
    assert several == {type(op) for op, _ in CASES}


def plane(op: Adjustable, side: str, parameter: Tensor, boxes: tuple[Interval, ...]) -> Adjusted:
    return (op.lower_plane if side == "lower" else op.upper_plane)(parameter, *boxes)


def widened(boxes: tuple[Interval, ...]) -> tuple[Interval, ...]:
    return tuple(Interval(box.lower.unsqueeze(1), box.upper.unsqueeze(1)) for box in boxes)


@pytest.mark.parametrize("dtype", DTYPES)
@each
def test_planes_of_any_parameter(op: Adjustable, count: int, dtype: str) -> None:
    """Several for each box `[batch, spec]`, a few out of their range: boxes that are points, a few ulps wide, huge."""
    boxes = similar_boxes(count, DTYPES[dtype])
    random = torch.rand(len(boxes[0].lower), 2, generator=torch.Generator().manual_seed(1)).to(DTYPES[dtype])
    fixed = torch.tensor([0.0, 1.0, 0.5, 1e-20, -0.3, 1.7, 1e20], dtype=DTYPES[dtype])
    parameters = torch.cat([fixed.expand(len(random), -1), random], 1)
    points = points_in(boxes, op, seed=count)
    checker = Checker(op, boxes)
    compared = 0
    for side, sign in SIDES.items():
        found = plane(op, side, parameters, widened(boxes))
        slopes = [slope.expand_as(parameters) for slope in found.slopes]
        for spec in range(parameters.shape[1]):

            def lines(
                place: int, a: list[Tensor] = slopes, t: Tensor = found.intercept, j: int = spec, s: int = sign
            ) -> list[tuple[str, int, list[Fraction], Fraction]]:
                numbers = [float(slope[place, j]) for slope in a]
                intercept = float(t.expand_as(a[0])[place, j])
                assert intercept != -s * np.inf
                if not np.isfinite([*numbers, intercept]).all():
                    return []
                return [(f"plane {j}", s, [*map(Fraction, numbers)], Fraction(intercept))]

            checker.lines = lines  # type: ignore[method-assign]
            checker.check(points)
            compared += sum(bool(lines(place)) for place in range(len(points)))
    assert compared > 0.5 * 2 * parameters.numel()


@each
def test_what_is_not_a_number_gives_no_plane(op: Adjustable, count: int) -> None:
    for lower, upper in ((-torch.inf, 1.0), (0.0, torch.inf), (torch.nan, 1.0)):
        boxes = tuple(Interval(torch.tensor([[lower]]), torch.tensor([[upper]])) for _ in range(count))
        for side, sign in SIDES.items():
            found = plane(op, side, torch.tensor([[0.3]]), boxes)
            at = [torch.full((1, 1), 0.5)] * count
            value = float(sum((s * x for s, x in zip(found.slopes, at, strict=True)), found.intercept))
            assert not np.isfinite(value) and value != -sign * np.inf
    boxes = tuple(Interval(torch.tensor([[0.0]]), torch.tensor([[1.0]])) for _ in range(count))
    assert not bool(plane(op, "lower", torch.tensor([[torch.nan]]), boxes).intercept.isfinite())


@each
def test_the_first_parameters_give_the_planes_that_are_relaxed_to(op: Adjustable, count: int) -> None:
    boxes = some_boxes(count)
    planes = op.relax(*boxes)
    assert planes.lower_intercept is not None
    below, above = op.parameters(planes, *boxes)
    for side, parameter, slopes, intercept in (
        ("lower", below, planes.lower_slopes, planes.lower_intercept),
        ("upper", above, planes.upper_slopes, planes.upper_intercept),
    ):
        found = plane(op, side, parameter, boxes)
        for own, slope in zip(found.slopes, slopes, strict=True):
            torch.testing.assert_close(own, slope, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.intercept, intercept, rtol=1e-9, atol=1e-12)


def some_boxes(count: int) -> tuple[Interval, ...]:
    generator = torch.Generator().manual_seed(count)
    lower = torch.randn(count, 40, dtype=torch.float64, generator=generator)
    width = torch.rand(count, 40, dtype=torch.float64, generator=generator) * 2 + 0.01
    return tuple(Interval(low, low + wide) for low, wide in zip(lower, width, strict=True))


def assert_in_use(op: Adjustable, parameter: Tensor, boxes: tuple[Interval, ...]) -> None:
    """The plane of each side where it is asked for, in any mixture of the two."""
    sides = [plane(op, side, parameter, boxes) for side in SIDES]
    for above in (torch.zeros_like(parameter), torch.ones_like(parameter), (parameter * 1e3).floor() % 2):
        found = op.plane(above, parameter, *boxes)
        names = ("slopes", "turns", "intercept", "lift")
        for got, low, high in zip(*(parts(each, names) for each in (found, *sides)), strict=True):
            chosen = torch.where(above > 0, high, low)
            known = chosen.isfinite()
            torch.testing.assert_close(got.expand_as(chosen)[known], chosen[known], rtol=1e-9, atol=1e-12)


def parts(adjusted: Adjusted, names: tuple[str, ...]) -> list[Tensor]:
    values = [getattr(adjusted, name) for name in names]
    return [part for value in values if value is not None for part in (value if isinstance(value, tuple) else (value,))]


@each
def test_the_plane_in_use(op: Adjustable, count: int) -> None:
    parameter = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert_in_use(op, parameter, widened(some_boxes(count)))


@pytest.mark.parametrize("name", [name for name, op in ONE_ARGUMENT.items() if isinstance(op, Scalar)])
def test_the_line_in_use(name: str) -> None:
    op, box = ONE_ARGUMENT[name].to(torch.float64, "cpu"), widened(some_boxes(1))[0]
    assert isinstance(op, Scalar)
    if op.slope_ranges(box)[1] is None:
        pytest.skip("its upper line has no parameter")
    slopes = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert_in_use(op, slopes, (box,))


@pytest.mark.parametrize("side", SIDES)
@each
def test_rise_is_the_derivative_by_the_parameter(op: Adjustable, count: int, side: str) -> None:
    boxes, generator = some_boxes(count), torch.Generator().manual_seed(3)
    draw = partial(torch.rand, 40, dtype=torch.float64, generator=generator)
    x, parameter, step = [torch.randn(40, dtype=torch.float64, generator=generator) for _ in boxes], draw(), 1e-6
    parameter = parameter * 0.9 + 0.05

    def value(at: Tensor) -> Tensor:
        found = plane(op, side, at, boxes)
        return sum((s * v for s, v in zip(found.slopes, x, strict=True)), found.intercept)

    difference = (value(parameter + step) - value(parameter - step)) / (2 * step)
    torch.testing.assert_close(plane(op, side, parameter, boxes).rise(*x), difference, rtol=1e-5, atol=1e-6)


def touched(op: Adjustable, side: str, share: float, boxes: tuple[Interval, Interval]) -> list[int]:
    """In how many of the four corners a plane meets the function, which it never crosses there; by box."""
    x, y = boxes
    corners = [(a, b) for a in (x.lower, x.upper) for b in (y.lower, y.upper)]
    found = plane(op, side, torch.full_like(x.lower, share), boxes)
    values = [found.slopes[0] * a + found.slopes[1] * b + found.intercept for a, b in corners]
    gaps = torch.stack([(v - op.evaluate(a, b)) * SIDES[side] for v, (a, b) in zip(values, corners, strict=True)])
    assert (gaps >= 0).all()
    return (gaps < 1e-12).sum(0).tolist()


def test_planes_of_a_product_touch_it_in_the_corners() -> None:
    """Every mixture in two of them, and the two planes that are mixed in three."""
    for side in SIDES:
        for share, corners in ((0.0, 3), (0.4, 2), (1.0, 3)):
            assert touched(Multiply(), side, share, some_boxes(2)) == [corners] * 40  # type: ignore[arg-type]


def test_planes_of_a_maximum_are_sides_of_the_hull() -> None:
    """Above, each of the two planes that are mixed meets it in three corners; below, each is an argument."""
    boxes = some_boxes(2)
    x, y = boxes
    unstable = Maximum().unstable(*boxes)
    assert int(unstable.sum()) > 10
    for share in (0.0, 1.0):
        found = touched(Maximum(), "upper", share, (x, y))
        assert all(count >= 3 for count, counts in zip(found, unstable.tolist(), strict=True) if counts)
        below = plane(Maximum(), "lower", torch.full_like(x.lower, share), boxes)
        assert sorted(below.slopes[0][unstable].unique().tolist()) == [0.0, 1.0]
        torch.testing.assert_close(below.slopes[0] + below.slopes[1], torch.ones_like(x.lower))
        assert (below.intercept <= 0).all() and (below.intercept > -1e-12).all()


def test_planes_of_two_exponentials_are_sides_of_the_hull() -> None:
    for share in (0.0, 1.0):
        assert touched(LogSumExp(), "upper", share, some_boxes(2)) == [3] * 40  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_no_corner_is_above_the_planes_of_exponentials(count: int) -> None:
    """A convex function is below a plane over a box if it is so in the corners: here all of them, of boxes of every
    width, in single precision. What double precision adds is far smaller than what a missing rounding would show."""
    generator = torch.Generator().manual_seed(count)
    width = 10.0 ** (torch.rand(count, 4000, generator=generator) * 4 - 3)
    lower = torch.randn(count, 4000, generator=generator) * 3
    boxes = [Interval(low, low + wide) for low, wide in zip(lower, width, strict=True)]
    for share in (0.0, 0.5, 1.0):
        above = plane(LogSumExp(), "upper", torch.full_like(lower[0], share), tuple(boxes))
        closest = torch.full((4000,), torch.inf, dtype=torch.float64)
        for ends in itertools.product(("lower", "upper"), repeat=count):
            corner = [getattr(box, end).double() for box, end in zip(boxes, ends, strict=True)]
            value = sum((s.double() * x for s, x in zip(above.slopes, corner, strict=True)), above.intercept.double())
            closest = torch.minimum(closest, value - LogSumExp().evaluate(*corner))
        assert float(closest.min()) > 0
        assert float(closest.median()) < (1e-4 if share != 0.5 else 1.0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_planes_of_logsumexp_touch_it(count: int) -> None:
    """Below, in the point that the parameter names; above, at either corner, as near to it as chords allow."""
    boxes, op = some_boxes(count), LogSumExp()
    for share in (0.0, 0.3, 1.0):
        parameter = torch.full_like(boxes[0].lower, share)
        point = [torch.lerp(box.lower, box.upper, parameter) for box in boxes]
        below = plane(op, "lower", parameter, boxes)
        value = sum((s * v for s, v in zip(below.slopes, point, strict=True)), below.intercept)
        torch.testing.assert_close(value, op.evaluate(*point), rtol=1e-12, atol=1e-12)
    for end, share in (("lower", 0.0), ("upper", 1.0)):
        corner = [getattr(box, end) for box in boxes]
        above = plane(op, "upper", torch.full_like(corner[0], share), boxes)
        value = sum((s * v for s, v in zip(above.slopes, corner, strict=True)), above.intercept)
        assert (value - op.evaluate(*corner)).abs().max() < (1e-2 if end == "lower" else 1e-12)
