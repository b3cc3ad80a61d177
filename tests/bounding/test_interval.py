"""Intervals keep a sign that no rounding of large numbers may take away, and are infinite where nothing is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from tests.frontend.onnx_models import load_nodes, node
from verifier.bounding.engine import METHODS
from verifier.bounding.interval import interval_bounds
from verifier.bounding.program import prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.core.query import Box
from verifier.core.rounding import tiny
from verifier.errors import UnsupportedError
from verifier.ops import Clip, Conv, Linear, Multiply, Scale, Sign, Sum
from verifier.ops.window import Window
from verifier.pipeline import bounds

WINDOW = Window(wide=(4, 4), narrow=(3, 3), kernel=(2, 2), stride=(1, 1), dilation=(1, 1), begin=(0, 0))


def some(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


POSITIVE: dict[str, tuple[Affine, tuple[int, ...], tuple[int, ...]]] = {
    "linear": (Linear(some(3, 5)), (1, 5), (1, 3)),
    "conv": (
        Conv(some(3, 2, 2, 2), WINDOW),
        (1, 2, 4, 4),
        (1, 3, 3, 3),
    ),
    "sum": (Sum((1,), (1, 50)), (1, 50), (1, 1)),
    "scale": (Scale(some(1, 5)), (1, 5), (1, 5)),
    "scale and shift": (
        Scale(some(1, 5), torch.full((1, 5), 1e-5).double()),
        (1, 5),
        (1, 5),
    ),
}  # operators, their shapes of input and output


def output_of(op: Affine, shape: tuple[int, ...], out: tuple[int, ...], box: Interval) -> Interval:
    graph = Graph((Node("x", Input(), (), shape), Node("y", op, (0,), out)), 1)
    return interval_bounds(prepare(graph, box.lower.dtype), box)[1]


def from_zero(shape: tuple[int, ...], largest: float) -> Interval:
    upper = torch.full((1, *shape), largest)
    return Interval(torch.zeros_like(upper), upper)


@pytest.mark.parametrize("name", POSITIVE)
def test_sums_of_what_is_not_negative_are_not_negative(name: str) -> None:
    op, shape, out = POSITIVE[name]
    found = output_of(op, shape, out, from_zero(shape, 1e6))
    shift = op.offset()
    least = 0.0 if shift is None else 0.99 * float(shift.min())
    assert bool((found.lower >= least).all())
    assert bool((found.lower.double() <= op.evaluate(torch.zeros(1, *shape).double())).all())


@pytest.mark.parametrize("negative", [-1.0, -0.1 * tiny(torch.float32), -1e-60])
def test_a_negative_weight_is_heeded_even_where_it_is_dropped(negative: float) -> None:
    weight = torch.tensor([[0.0, negative]], dtype=torch.float64)
    operators = Linear(weight), Scale(weight), Conv(weight.reshape(1, 2, 1, 1).expand(1, 2, 2, 2), WINDOW)
    places = ((1, 2), (1, 1)), ((1, 2), (1, 2)), ((1, 2, 4, 4), (1, 1, 3, 3))
    for op, (shape, out) in zip(operators, places, strict=True):
        box = from_zero(shape, 1e6)
        found = output_of(op, shape, out, box)
        assert bool((found.lower.double() <= op.evaluate(box.upper.double())).all()), op


def test_a_negative_argument_is_heeded() -> None:
    box = Interval(torch.tensor([[0.0, -1e-3]]), torch.tensor([[1e3, 1e3]]))
    found = output_of(Linear(torch.ones(1, 2, dtype=torch.float64)), (1, 2), (1, 1), box)
    assert found.lower.item() <= -1e-3


@pytest.mark.parametrize(("first", "second"), [((0, 1e6), (0, 1e-3)), ((-1e6, 0), (-1e-3, 0)), ((0, 2), (-1, 0))])
def test_products_keep_their_sign(first: tuple[float, float], second: tuple[float, float]) -> None:
    x, y = (Interval(*torch.tensor([ends]).T.unsqueeze(1)) for ends in (first, second))
    found = Multiply().interval(x, y)
    assert (found.lower.item() >= 0) == (first[0] * second[1] >= 0 and first[1] * second[0] >= 0)
    for a in first:
        for b in second:
            assert found.lower.item() <= a * b <= found.upper.item()


def of_one(tmp_path: Path, nodes: list[onnx.NodeProto], size: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of a network that reads `size` numbers, each from `-end` to `end`."""
    numbers = {"eps": 1e-3, "zero": 0.0, "two": 2.0, "minus_half": -0.5}
    constants = {name: np.array(value, dtype=np.float32) for name, value in numbers.items()}
    constants |= {"scale": np.ones(size, dtype=np.float32), "axis": np.array([1])}
    network = load_nodes(tmp_path, nodes, [1, size], constants=constants, opset=17)
    ((lower, upper),) = bounds(network, Box((Fraction(-end),) * size, (Fraction(end),) * size))
    return lower, upper


def test_a_layer_normalization_over_a_large_box_is_bounded(tmp_path: Path) -> None:
    lower, upper = of_one(tmp_path, [node("LayerNormalization", ("x", "scale"), ("y",))], 8, 50)
    assert (lower >= -2.65).all() and (upper <= 2.65).all()  # the square root of 7


def pieces(numerator: str = "d", shift: str = "eps", axis: int = 1) -> list[onnx.NodeProto]:
    """A layer normalisation as exported before opset 17: x less its mean, over the root of the mean of squares."""
    return [
        node("ReduceMean", ("x",), ("mean",), axes=[1]),
        node("Sub", ("x", "mean"), ("d",)),
        node("Add", ("d", "scale"), ("other",)),
        node("Pow", ("d", "two"), ("squares",)),
        node("ReduceMean", ("squares",), ("variance",), axes=[axis]),
        node("Add", ("variance", shift), ("safe",)),
        node("Sqrt", ("safe",), ("root",)),
        node("Div", (numerator, "root"), ("y",)),
    ]


def test_a_layer_normalization_in_pieces_is_bounded_as_well(tmp_path: Path) -> None:
    lower, upper = of_one(tmp_path, pieces(), 8, 50)
    assert (lower >= -2.83).all() and (upper <= 2.83).all()  # the square root of 8


@pytest.mark.parametrize("change", [{"numerator": "other"}, {"shift": "zero"}, {"axis": 0}], ids=str)
def test_other_quotients_are_not_taken_for_normalisations(tmp_path: Path, change: dict[str, Any]) -> None:
    """Another numerator, a divisor that may be 0, and squares of one number alone, which are no smaller than it: only
    the last one has a bound, which is 1."""
    lower, upper = of_one(tmp_path, pieces(**change), 8, 50)
    assert (lower <= -50 / 8).all() != ("axis" in change)
    assert "axis" not in change or ((lower >= -1.01).all() and (upper <= 1.01).all())


QUOTIENTS: dict[str, tuple[list[onnx.NodeProto], float]] = {
    "by a norm": (
        [
            node("ReduceL2", ("x",), ("norm",), axes=[1]),
            node("Max", ("norm", "eps"), ("safe",)),
            node("Div", ("x", "safe"), ("y",)),
        ],
        1.0,
    ),
    "times an inverse": (
        [
            node("Mul", ("x", "x"), ("squares",)),
            node("ReduceSum", ("squares", "axis"), ("total",)),
            node("Mul", ("total", "two"), ("twice",)),
            node("Add", ("twice", "eps"), ("safe",)),
            node("Sqrt", ("safe",), ("root",)),
            node("Reciprocal", ("root",), ("inverse",)),
            node("Mul", ("inverse", "two"), ("scaled",)),
            node("Mul", ("scaled", "x"), ("y",)),
        ],
        2**0.5,
    ),
    "twice the norm, and more": (
        [
            node("ReduceL2", ("x",), ("norm",), axes=[1]),
            node("Mul", ("norm", "two"), ("twice",)),
            node("Add", ("twice", "eps"), ("safe",)),
            node("Div", ("x", "safe"), ("y",)),
        ],
        0.5,
    ),
    "a power": (
        [
            node("Pow", ("x", "two"), ("squares",)),
            node("ReduceSum", ("squares", "axis"), ("total",)),
            node("Add", ("total", "eps"), ("safe",)),
            node("Pow", ("safe", "minus_half"), ("inverse",)),
            node("Mul", ("x", "inverse"), ("y",)),
        ],
        1.0,
    ),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_quotients_by_norms_are_bounded_and_no_better_than_they_are(tmp_path: Path, name: str) -> None:
    nodes, limit = QUOTIENTS[name]
    lower, upper = of_one(tmp_path, nodes, 4, 1000)
    assert (upper <= limit * 1.001).all() and (lower >= -limit * 1.001).all()
    reached = limit * 1000 / np.sqrt(1000**2 + 1)  # where the others are 0
    assert (upper >= reached * 0.999).all() and (lower <= -reached * 0.999).all()


@pytest.mark.parametrize("factors", [(1e38,) * 9, (1e-30,) * 12, (1e-38, 1e-38, 1e-38, 1e38, 1e38)], ids=len)
def test_factors_whose_product_is_no_ordinary_number(tmp_path: Path, factors: tuple[float, ...]) -> None:
    """x over the root of  f x^2 + eps,  times an f that is so large that the quotient is not near to 0."""
    nodes, last = [node("Mul", ("x", "x"), ("z0",))], "z0"
    constants = {f"f{k}": np.array(factor, dtype=np.float32) for k, factor in enumerate(factors)}
    for k in range(len(factors)):
        nodes.append(node("Mul", (last, f"f{k}"), (f"z{k + 1}",)))
        last = f"z{k + 1}"
    nodes += [node("Add", (last, "eps"), ("safe",)), node("Sqrt", ("safe",), ("root",))]
    nodes += [node("Div", ("x", "root"), ("y",))]
    constants["eps"] = np.array(1e-3, dtype=np.float32)
    graph = load_nodes(tmp_path, nodes, [1, 1], constants=constants, opset=17).graph
    x = torch.tensor([[1e-160], [1e-10], [1.0]], dtype=torch.float64)
    values = graph.evaluate_all(x)
    for limited in (each for each in graph.nodes if isinstance(each.op, Clip)):
        assert limited.op.maximum >= float(values[limited.inputs[0]].abs().max())  # type: ignore[attr-defined]


def test_a_negative_epsilon_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="negative"):
        of_one(tmp_path, [node("LayerNormalization", ("x", "scale"), ("y",), epsilon=-1e-3)], 8, 1)


def test_what_may_be_undefined_has_infinite_bounds(tmp_path: Path) -> None:
    lower, upper = of_one(tmp_path, [node("Div", ("scale", "x"), ("y",))], 2, 1)
    assert np.isneginf(lower).all() and np.isposinf(upper).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_sign_of_what_is_unknown_is_unknown(tmp_path: Path, method: str) -> None:
    """The bound of a divisor crosses 0, and differences of infinite numbers are none."""
    nodes = [
        node("Mul", ("x", "x"), ("square",)),
        node("Sub", ("square", "x"), ("less",)),
        node("Add", ("less", "shift"), ("divisor",)),
        node("Reciprocal", ("divisor",), ("large",)),
        node("Mul", ("large", "share"), ("part",)),
        node("Sub", ("part", "x"), ("z",)),
        node("Sign", ("z",), ("y",)),
    ]
    constants = {"shift": np.float32([[0.3]]), "share": np.float32([[1e-3]])}
    network = load_nodes(tmp_path, nodes, [1, 1], constants=constants)
    ((lower, upper),) = bounds(network, Box((Fraction(-1),), (Fraction(1),)), method)
    values = [float(network.run(np.float32([[x]])).item()) for x in (-1.0, 1.0)]
    assert values == [1.0, -1.0] and lower.item() == -1.0 and upper.item() == 1.0


@pytest.mark.parametrize("ends", [(torch.nan, torch.nan), (torch.nan, 2.0), (-2.0, torch.nan), (-torch.inf, torch.nan)])
def test_the_sign_of_no_number(ends: tuple[float, float]) -> None:
    box = Interval(*torch.tensor([ends]).T.unsqueeze(1))
    found = Sign().interval(box)
    assert bool(Sign().unstable(box).all()) and (found.lower.item(), found.upper.item()) == (-1.0, 1.0)


def test_a_clip_beyond_single_precision(tmp_path: Path) -> None:
    constants = {"low": np.float64(-1e300), "high": np.float64(0.5)}
    nodes = [node("Clip", ("x", "low", "high"), ("y",))]
    network = load_nodes(tmp_path, nodes, [1, 1], constants=constants, kind=TensorProto.DOUBLE)
    ((lower, upper),) = bounds(network, Box((Fraction(-1),), (Fraction(1),)))
    assert lower.item() == pytest.approx(-1) and upper.item() == pytest.approx(0.5)
    with pytest.raises(UnsupportedError, match="range"):
        Clip(1e300, 1e301).to(torch.float32, "cpu")
