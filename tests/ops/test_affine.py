"""Facts every affine operator must state truly: adjoint, offset, absolute value, number of products."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from verifier.core.operator import Affine
from verifier.ops import AFFINE, Add, Concat, Conv, ConvTranspose, Crop, Linear, Permute, Reshape, Scale, Select, Sum
from verifier.ops.window import Window

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def windows() -> list[Window]:
    """Regular and irregular geometries: asymmetric padding, unreached elements, dilation, cropping."""
    result = []
    for wide, kernel, stride, dilation, begin, end in (
        ((7, 6), (3, 2), (1, 1), (1, 1), (0, 0), (0, 0)),
        ((7, 6), (3, 2), (2, 3), (1, 1), (1, 1), (1, 1)),
        ((8, 7), (3, 2), (3, 2), (2, 1), (2, 0), (0, 3)),
        ((9, 8), (4, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
        ((11, 8), (2, 5), (3, 3), (1, 1), (0, 0), (0, 1)),
        ((9, 8), (4, 3), (2, 2), (1, 1), (1, 0), (0, 2)),
        ((9,), (4,), (2,), (1,), (1,), (2,)),
        ((9,), (3,), (4,), (1,), (0,), (0,)),
        ((4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 2), (1, 0, 0), (0, 1, 0)),
        ((5, 4), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0)),
        ((10, 9), (1, 1), (2, 2), (1, 1), (0, 0), (0, 0)),
        ((20,), (1,), (1,), (1,), (0,), (1,)),
        ((6, 5), (6, 5), (1, 1), (1, 1), (0, 0), (0, 0)),
        ((6, 9), (2, 3), (2, 3), (1, 1), (0, 0), (0, 0)),
        ((7, 9), (3, 2), (3, 2), (1, 1), (0, 0), (0, 0)),
        ((10,), (5,), (5,), (1,), (0,), (0,)),
        ((4, 5, 6), (2, 3, 2), (2, 3, 2), (1, 1, 1), (0, 0, 0), (0, 0, 0)),
    ):
        sizes = zip(wide, kernel, stride, dilation, begin, end, strict=True)
        narrow = tuple((w + b + e - d * (k - 1) - 1) // s + 1 for w, k, s, d, b, e in sizes)
        result += [Window(wide, narrow, kernel, stride, dilation, begin, groups) for groups in (1, 2)]
    return result


def operators() -> list[tuple[Affine, tuple[tuple[int, ...], ...]]]:
    """Operators with the shapes of their inputs."""
    found: list[tuple[Affine, tuple[tuple[int, ...], ...]]] = [
        (Linear(normal(3, 4), normal(3)), ((2, 4),)),
        (Linear(normal(3, 4)), ((4,),)),
        (Reshape((2, 6), (3, 4)), ((2, 6),)),
        (Permute((2, 0, 1)), ((2, 3, 4),)),
        (Select(torch.tensor([[3, 0], [3, 3]]), (2, 3)), ((2, 3),)),
        (Select(torch.tensor([-1, 5, -1, 2]), (2, 3)), ((2, 3),)),
        (Select(torch.randperm(6, generator=torch.Generator().manual_seed(0)).reshape(3, 2), (2, 3)), ((2, 3),)),
        (Select(torch.tensor(4), (2, 3)), ((2, 3),)),
        (Crop((0, 1), (2, 1), (2, 3)), ((2, 3),)),
        (Select(torch.zeros(0, dtype=torch.long), (2, 3)), ((2, 3),)),
        (Add((1, -1, -1)), ((2, 3),) * 3),
        (Add((-1, 1)), ((),) * 2),
        (Scale(normal(3, 1), normal(4)), ((2, 3, 4),)),
        (Scale(None, normal(4)), ((3, 4),)),
        (Scale(normal(1)), ((3, 4),)),
        (Concat(1, (2, 1, 3)), ((2, 2), (2, 1), (2, 3))),
        (Sum((0, 2), (2, 3, 4)), ((2, 3, 4),)),
        (Sum((), (2, 3)), ((2, 3),)),
    ]
    for window in windows():
        groups, kernel = window.groups, window.kernel
        found.append((Conv(normal(6, 4 // groups, *kernel), window, normal(6)), ((2, 4, *window.wide),)))
        found.append((Conv(normal(6, 4 // groups, *kernel), window, normal(6)), ((1, 4, *window.wide),)))
        found.append((ConvTranspose(normal(4, 6 // groups, *kernel), window, normal(6)), ((2, 4, *window.narrow),)))
    return found


OPERATORS = operators()
each = pytest.mark.parametrize(("op", "shapes"), OPERATORS, ids=[op.name for op, _ in OPERATORS])


def test_all_affine_operators_are_here() -> None:
    assert {type(op) for op, _ in OPERATORS} == set(AFFINE)


def matrix(op: Affine, shapes: tuple[tuple[int, ...], ...]) -> Tensor:
    """L as a dense matrix `[outputs, all inputs]`, from its values at unit vectors."""
    total = sum(math.prod(shape) for shape in shapes)
    units = torch.eye(total, dtype=torch.float64).split([math.prod(shape) for shape in shapes], 1)
    value = op.linear(*(unit.reshape(total, *shape) for unit, shape in zip(units, shapes, strict=True)))
    return value.reshape(total, -1).T


@each
def test_adjoint_is_the_transpose(op: Affine, shapes: tuple[tuple[int, ...], ...]) -> None:
    inputs = [normal(3, *shape) for shape in shapes]
    value = op.linear(*inputs)
    rows = normal(5, *value.shape[1:])
    pulled = op.adjoint(rows)
    assert [tuple(part.shape) for part in pulled] == [(5, *shape) for shape in shapes]
    left = rows.reshape(5, -1) @ value.reshape(3, -1).T
    right = sum(part.reshape(5, -1) @ x.reshape(3, -1).T for part, x in zip(pulled, inputs, strict=True))
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@each
def test_rows_are_those_of_the_matrix(op: Affine, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Exactly, for positions in any order and shape."""
    expected, shape = matrix(op, shapes), shapes[0]
    index = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0)).repeat(2).reshape(2, -1)
    rows = op.row(index, shape) if len(shapes) == 1 else None
    plain = isinstance(op, Linear) or (isinstance(op, Conv) and op.window.groups == 1 and shape[0] == 1)
    assert (rows is not None) == plain
    if rows is not None:
        assert rows.shape == (*index.shape, *shape)
        assert torch.equal(rows.flatten(2), expected[index])
        assert bool(((rows != 0).flatten(2).sum(2) <= max(1, op.fan_in)).all())


def by_definition(window: Window, weight: Tensor) -> Tensor:
    """The matrix of a convolution of one group, `[out, narrow, channels, wide]` with places counted by rows."""
    out, channels = weight.shape[:2]
    result = torch.zeros(out, *window.narrow, channels, *window.wide, dtype=weight.dtype)
    for place in itertools.product(*map(range, window.narrow)):
        for tap in itertools.product(*map(range, window.kernel)):
            axes = zip(place, window.stride, tap, window.dilation, window.begin, strict=True)
            read = tuple(p * stride + t * dilation - begin for p, stride, t, dilation, begin in axes)
            if all(0 <= r < size for r, size in zip(read, window.wide, strict=True)):
                result[(slice(None), *place, slice(None), *read)] += weight[(..., *tap)]
    return result.reshape(out * math.prod(window.narrow), channels * math.prod(window.wide))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("window", [window for window in windows() if window.groups == 1], ids=str)
def test_every_way_of_convolving(window: Window, dtype: torch.dtype) -> None:
    """The library's convolutions, those that are products of matrices at each place, and those that are one product:
    all are what the definition says."""
    weight, limit = normal(6, 4, *window.kernel).to(dtype), 1e-5 if dtype == torch.float32 else 1e-13
    expected, conv = by_definition(window, weight), Conv(weight, window)
    wide, narrow = normal(20, 4, *window.wide).to(dtype), normal(20, 6, *window.narrow).to(dtype)
    down, up = (wide.flatten(1) @ expected.T).reshape(narrow.shape), (narrow.flatten(1) @ expected).reshape(wide.shape)
    for result in (window.correlate(wide, weight), conv.linear(wide.unsqueeze(1)).squeeze(1)):
        torch.testing.assert_close(result, down, rtol=0, atol=100 * limit)
    for result in (window.spread(narrow, weight), conv.adjoint(narrow.unsqueeze(1))[0].squeeze(1)):
        torch.testing.assert_close(result, up, rtol=0, atol=100 * limit)


@each
def test_evaluate_is_linear_plus_offset(op: Affine, shapes: tuple[tuple[int, ...], ...]) -> None:
    inputs = [normal(3, *shape) for shape in shapes]
    offset = op.offset()
    expected = op.linear(*inputs) + (0 if offset is None else offset)
    torch.testing.assert_close(op.evaluate(*inputs), expected, rtol=1e-12, atol=1e-12)
    zeros = [torch.zeros_like(x) for x in inputs]
    torch.testing.assert_close(op.linear(*zeros), torch.zeros_like(expected), rtol=0, atol=0)


@each
def test_absolute(op: Affine, shapes: tuple[tuple[int, ...], ...]) -> None:
    absolute = op.absolute()
    torch.testing.assert_close(matrix(absolute, shapes), matrix(op, shapes).abs(), rtol=1e-12, atol=1e-12)
    offset, own = absolute.offset(), op.offset()
    assert (offset is None) == (own is None)
    assert offset is None or own is None or torch.equal(offset, own.abs())


@each
def test_fan_counts_cover_all_products(op: Affine, shapes: tuple[tuple[int, ...], ...]) -> None:
    dense = matrix(op, shapes)
    moves = bool(((dense == 0) | (dense == 1)).all())
    most_in = int((dense != 0).sum(1).max()) if dense.numel() else 0
    most_out = int((dense != 0).sum(0).max()) if dense.numel() else 0
    assert op.fan_in >= most_in or (most_in <= 1 and moves)
    assert op.fan_out >= most_out or (most_out <= 1 and bool((dense.abs() <= 1).all()) and _is_signed_move(dense))


def _is_signed_move(dense: Tensor) -> bool:
    return bool(((dense == 0) | (dense.abs() == 1)).all())


def test_to_casts_constants_and_keeps_positions() -> None:
    op = Select(torch.tensor([1, -1]), (2,)).to(torch.float32, "cpu")
    assert op.index.dtype == torch.int64
    assert Scale(normal(2)).to(torch.float32, "cpu").scale.dtype == torch.float32
    np.testing.assert_array_equal(op.evaluate(torch.tensor([[1.0, 2.0]])), [[2.0, 0.0]])


def test_windows_side_by_side_meet_each_input_once() -> None:
    """The fan-out of a convolution counts the windows that overlap, not the taps of the kernel."""
    for stride, overlap in ((1, 16), (2, 4), (3, 4), (4, 1), (5, 1)):
        window = Window((20, 20), (3, 3), (4, 4), (stride, stride), (1, 1), (0, 0))
        conv = Conv(normal(6, 2, 4, 4), window)
        assert window.overlap == overlap and conv.fan_out == 6 * overlap
        assert ConvTranspose(normal(6, 2, 4, 4), window).fan_in == 6 * overlap
