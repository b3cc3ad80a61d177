"""A row for every operator: an instance of it, how it stands in a small network, and ONNX nodes that lead to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto

from tests.frontend.onnx_models import node
from tests.soundness.graphs import Builder
from verifier import ops
from verifier.core.graph import Graph
from verifier.core.operator import Op
from verifier.ops.window import Window

ABOVE_0, AT_LEAST_0 = ops.Clip(0.0625, np.inf), ops.Relu()
AT_MOST_0, AT_MOST_60 = ops.Clip(-np.inf, 0.0), ops.Clip(-np.inf, 60.0)
PLACES = {"first": np.array([0]), "two": np.array([2]), "axis": np.array([0]), "last": np.array([-1])}


@dataclass(frozen=True)
class Row:
    """`op` reads arguments of `shapes` and gives `result`; `before`: what keeps an argument where the operator is
    defined. `nodes`: ONNX nodes from x, of shape `given`, to y, with `constants`; none where the importer never makes
    the operator. `opset`, `kind`: theirs, and the element type of y."""

    op: Op
    nodes: tuple[NodeProto, ...]
    shapes: tuple[tuple[int, ...], ...] = ((1, 2),)
    result: tuple[int, ...] = (1, 2)
    before: tuple[Op | None, ...] = (None,)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    given: tuple[int, ...] = (1, 3)
    opset: int = 20
    kind: int = TensorProto.FLOAT

    def graph(self, seed: int, inputs: int = 3) -> tuple[Graph, int]:
        """Dense layers before each argument and behind the result; and where the operator stands."""
        b = Builder(1, inputs, seed=seed)
        arguments = []
        for shape, before in zip(self.shapes, self.before, strict=True):
            size = int(np.prod(shape))
            z = b.dense(0, size, bias=0.25)
            z = z if before is None else b.same(before, z)
            arguments.append(b.add(ops.Reshape((1, size), shape), [z], shape))
        position, size = b.add(self.op, arguments, self.result), int(np.prod(self.result))
        b.dense(b.add(ops.Reshape(self.result, (1, size)), [position], (1, size)), 2)
        return b.graph(), position


def one(op: Op, name: str = "", before: Op | None = None, opset: int = 20, **attributes: Any) -> Row:
    """An operator of one argument that ONNX has under this name."""
    return Row(op, (node(name or op.name, **attributes),), before=(before,), opset=opset)


def several(op: Op, *nodes: NodeProto, before: tuple[Op | None, ...] = (None, None), **more: Any) -> Row:
    return Row(op, nodes, shapes=((1, 2),) * len(before), before=before, **more)


def affine(op: Op, shapes: tuple[tuple[int, ...], ...], result: tuple[int, ...], *nodes: NodeProto, **more: Any) -> Row:
    return Row(op, nodes, shapes, result, (None,) * len(shapes), **more)


def evaluated(op: Op, *nodes: NodeProto, **more: Any) -> Row:
    return Row(op, nodes, **more)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(weights(*shape)).double()


WINDOW = Window((3, 4), (2, 3), (2, 2), (1, 1), (1, 1), (0, 0))
THREE = np.float32(3)
TO_BOOLEAN = {"kind": TensorProto.BOOL}

AFFINE = [
    affine(ops.Linear(tensor(2, 3), tensor(2)), ((1, 3),), (1, 2), node("MatMul", ("x", "w")),
           constants={"w": weights(3, 2)}),
    affine(ops.Conv(tensor(2, 1, 2, 2), WINDOW, tensor(2)), ((1, 1, 3, 4),), (1, 2, 2, 3), node("Conv", ("x", "w")),
           constants={"w": weights(2, 1, 2, 2)}, given=(1, 1, 3, 4)),
    affine(ops.ConvTranspose(tensor(2, 1, 2, 2), WINDOW, tensor(1)), ((1, 2, 2, 3),), (1, 1, 3, 4),
           node("ConvTranspose", ("x", "w")), constants={"w": weights(2, 1, 2, 2)}, given=(1, 2, 2, 3)),
    affine(ops.Reshape((1, 4), (2, 2)), ((1, 4),), (2, 2), node("Reshape", ("x", "s")),
           constants={"s": np.array([3, 1])}),
    affine(ops.Permute((1, 0)), ((2, 3),), (3, 2), node("Transpose"), given=(2, 3)),
    affine(ops.Select(torch.tensor([[2, 0], [-1, 2]]), (1, 3)), ((1, 3),), (2, 2),
           node("Gather", ("x", "i"), axis=1), constants={"i": np.array([2, 0, 0])}),
    affine(ops.Crop((0, 1), (1, 2), (2, 3)), ((2, 3),), (1, 2)),
    affine(ops.Add((1, -1)), ((1, 2), (1, 2)), (1, 2), node("Neg", ("x",), ("z",)), node("Sum", ("x", "z"))),
    affine(ops.Scale(tensor(2), tensor(2)), ((1, 2),), (1, 2), node("Mul", ("x", "w")), constants={"w": weights(3)}),
    affine(ops.Concat(1, (2, 1)), ((1, 2), (1, 1)), (1, 3), node("Concat", ("x", "x"), axis=1)),
    affine(ops.Sum((1,), (1, 3)), ((1, 3),), (1, 1), node("ReduceSum", ("x", "last")), constants=PLACES),
]  # fmt: skip

PIECEWISE = [
    one(ops.Relu()),
    one(ops.LeakyRelu(torch.tensor([0.3], dtype=torch.float64)), alpha=0.3),
    one(ops.Abs()),
    one(ops.Clip(-0.3, 1.1), opset=6 + 2, min=-0.3, max=1.1),
    one(ops.Sign()),
    several(ops.Maximum(), node("Neg", ("x",), ("z",)), node("Max", ("x", "z"))),
    several(ops.Minimum(), node("Neg", ("x",), ("z",)), node("Min", ("x", "z")), before=(None, None, None)),
]

STEPS = [
    *(one(ops.Floor()), one(ops.Ceil()), one(ops.Round())),
    Row(ops.Truncate(-(2.0**31), 2.0**31 - 1), (node("Cast", to=TensorProto.INT32),), kind=TensorProto.INT32),
    one(ops.ThresholdedRelu(0.7), alpha=0.7),
    one(ops.Shrink(0.3, -0.2), lambd=0.3, bias=-0.2),
    Row(ops.IsNonzero(), (node("Cast", to=TensorProto.BOOL),), **TO_BOOLEAN),
    Row(ops.Positive(), (node("Greater", ("x", "c")),), constants={"c": np.float32(0.5)}, **TO_BOOLEAN),
]

SMOOTH = [
    *(
        one(ops.Sigmoid()),
        one(ops.Tanh()),
        one(ops.Exp(), before=AT_MOST_60),
        one(ops.Sin()),
        one(ops.Cos()),
        one(ops.Atan()),
    ),
    *(one(ops.Erf()), one(ops.Softplus()), one(ops.Softsign()), one(ops.Mish()), one(ops.HardSwish())),
    *(one(ops.Log(), before=ABOVE_0), one(ops.Sqrt(), before=ABOVE_0), one(ops.Reciprocal(), before=ABOVE_0)),
    Row(ops.Power(3.0), (node("Pow", ("x", "p")),), constants={"p": THREE}),
    one(ops.Tan(), before=ops.Clip(-1.5, 1.5)),
    one(ops.Elu(0.7), alpha=0.7),
    one(ops.Gelu(True), approximate="tanh"),
    Row(ops.Silu(), (node("Sigmoid", ("x",), ("z",)), node("Mul", ("x", "z")))),
]

SHARES = (
    node("Relu", ("x",), ("z",)),
    node("ReduceSum", ("z", "last"), ("t",)),
    node("Div", ("z", "t")),
)
PRODUCTS = [
    several(ops.Multiply(), node("Neg", ("x",), ("z",)), node("Mul", ("x", "z"))),
    several(ops.LogSumExp(), node("ReduceLogSumExp", ("x", "last")), before=(None, None, None), constants=PLACES),
    several(ops.LogRatio(2.0), *SHARES, before=(AT_LEAST_0, ABOVE_0), constants=PLACES),
    several(ops.Share(), *SHARES, before=(AT_MOST_0, ABOVE_0), constants=PLACES),
    several(ops.Where(), node("Greater", ("x", "c"), ("z",)), node("Where", ("z", "x", "c")),
            before=(ops.Positive(), None, None), constants={"c": THREE}),
]  # fmt: skip

WHOLE = node("Cast", ("x",), ("i",), to=TensorProto.INT64)
START = (node("Gather", ("x", "first"), ("f",)), node("Cast", ("f",), ("s",), to=TensorProto.INT64))
END = (*START, node("Add", ("s", "two"), ("e",)))
MANY = {"given": (1, 6), "constants": PLACES}
EVALUATED = [
    evaluated(ops.Divide(), WHOLE, node("Div", ("i", "two")), constants=PLACES, kind=TensorProto.INT64),
    evaluated(ops.Remainder(True), node("Mod", ("x", "p"), fmod=1), constants={"p": THREE}),
    evaluated(ops.VariablePower(), node("Exp", ("x",), ("e",)), node("Pow", ("e", "x"))),
    evaluated(ops.MatMul(), node("Transpose", ("x",), ("t",)), node("MatMul", ("t", "x")), given=(1, 2049)),
    evaluated(ops.Softmax(1), node("Softmax", axis=1), given=(1, 1025)),
    evaluated(ops.ArgMax(1), node("ArgMax", axis=1), given=(1, 65), kind=TensorProto.INT64),
    evaluated(ops.Gather(0), *START, node("Gather", ("x", "s")), given=(6,), constants=PLACES),
    evaluated(ops.Slice(0, 2, 1), *END, node("Slice", ("x", "s", "e", "axis")), given=(6,), constants=PLACES),
    evaluated(ops.Range(2), *END, node("Squeeze", ("s",), ("a",)), node("Squeeze", ("e",), ("b",)),
              node("Range", ("a", "b", "one")), given=(6,), constants={**PLACES, "one": np.array(1)},
              kind=TensorProto.INT64),
    evaluated(ops.ScatterND(), *START, node("Unsqueeze", ("s", "last"), ("i",)), node("ScatterND", ("x", "i", "f")),
              given=(6,), constants=PLACES),
]  # fmt: skip

UNCERTAIN = [Row(ops.Near(tensor(2).abs() / 2**14), ())]

ROWS: dict[str, Row] = {
    row.op.name: row for row in itertools.chain(AFFINE, PIECEWISE, STEPS, SMOOTH, PRODUCTS, EVALUATED, UNCERTAIN)
}


def defined_operators(kind: type[Op] = Op) -> Iterator[type[Op]]:
    """All classes of operators in `verifier.ops` that can be made, registered or not."""
    for child in kind.__subclasses__():
        yield from defined_operators(child)
        abstract = getattr(child, "__abstractmethods__", None) or child.__name__.startswith("_")
        if child.__module__.startswith("verifier.ops.") and not abstract:
            yield child
