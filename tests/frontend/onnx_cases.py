"""One node behind the input, with its opsets and attributes: the cases in which our operators meet onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

RANDOM = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@dataclass
class Case:
    """`inputs`: 'x' or constants, in order. `positive`: the operator wants positive inputs."""

    name: str
    shape: tuple[int, ...] = (1, 3, 4)
    inputs: tuple[Any, ...] = ("x",)
    attributes: dict[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (13,)
    positive: bool = False
    outputs: tuple[str, ...] = ("y",)
    kind_of_output: int = 0

    @property
    def kind(self) -> int:
        """Element type of the output."""
        if self.kind_of_output:
            return self.kind_of_output
        if self.name in ("ArgMax", "ArgMin"):
            return TensorProto.INT64
        if self.name in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not"):
            return TensorProto.BOOL
        return int(self.attributes["to"]) if self.name == "Cast" else int(TensorProto.FLOAT)


def unary(*names: str, opsets: tuple[int, ...] = (9, 13, 20), **more: Any) -> list[Case]:
    return [Case(name, opsets=opsets, **more) for name in names]


def both_ways(name: str, constant: np.ndarray, **more: Any) -> list[Case]:
    sides = (("x", constant), (constant, "x"), ("x", "x"))
    return [Case(name, inputs=inputs, **more) for inputs in sides]


ELEMENTWISE = [
    *unary("Relu", "Abs", "Sign", "Sigmoid", "Tanh", "Exp", "Sin", "Cos", "Tan", "Atan", "Erf", "Neg", "Identity"),
    *unary("Softplus", "Softsign", "Floor", "Ceil", "Selu", "Elu", "LeakyRelu", "HardSigmoid", "Flatten", "Dropout"),
    *unary("Log", "Sqrt", "Reciprocal", positive=True),
    *unary("Round", opsets=(11, 20)),
    *unary("ThresholdedRelu", "Shrink", opsets=(10, 20)),
    *unary("Mish", opsets=(18,)),
    *unary("HardSwish", opsets=(14,)),
    *unary("Swish", opsets=(24,)),
    *unary("Swish", opsets=(24,), attributes={"alpha": -1.3}),
    *unary("Hardmax", opsets=(13,)),
    *unary("Hardmax", attributes={"axis": 1}, shape=(2, 3, 4), opsets=(13,)),
    *unary("Celu", opsets=(12,), attributes={"alpha": 2.0}),
    *unary("Gelu", opsets=(20,)),
    *unary("Gelu", opsets=(20,), attributes={"approximate": "tanh"}),
    *unary("Elu", "LeakyRelu", "ThresholdedRelu", attributes={"alpha": 0.3}, opsets=(13,)),
    *unary("LeakyRelu", attributes={"alpha": -0.7}, opsets=(16,)),
    *unary("Selu", attributes={"alpha": 1.5, "gamma": 0.5}),
    *unary("HardSigmoid", attributes={"alpha": 0.4, "beta": 0.1}),
    *unary("Shrink", attributes={"lambd": 0.2, "bias": 0.1}, opsets=(13,)),
    Case("PRelu", inputs=("x", normal(3, 1)), opsets=(9, 16)),
    Case("Clip", attributes={"min": -0.2, "max": 0.3}, opsets=(8,)),
    Case("Clip", opsets=(8, 13)),
    Case("Clip", inputs=("x", np.float32(-0.2), np.float32(0.4)), opsets=(11, 13)),
    Case("Clip", inputs=("x", np.float32(0.1)), opsets=(11,)),
    Case("Cast", attributes={"to": TensorProto.INT32}),
    Case("Cast", attributes={"to": TensorProto.BOOL}),
    Case("Cast", attributes={"to": TensorProto.DOUBLE}),
    Case("Not", inputs=(np.array([True, False]),), shape=(2,)),
    *(
        Case(name, attributes={} if axis is None else {"axis": axis}, opsets=opsets, shape=(2, 3, 4))
        for name in ("Softmax", "LogSoftmax")
        for axis, opsets in ((None, (9, 13)), (2, (9, 13)), (0, (11, 13)), (-1, (11, 13)))
    ),
    *(
        Case(name, attributes={"axis": axis, "keepdims": keep}, shape=(2, 3, 4))
        for name in ("ArgMax", "ArgMin")
        for axis, keep in ((0, 1), (1, 0), (-1, 1))
    ),
]

ARITHMETIC = [
    *(
        case
        for name in ("Add", "Sub", "Mul", "Div")
        for case in both_ways(name, 0.5 + np.abs(normal(2, 1, 4)), positive=True)
    ),
    *(case for name in ("Add", "Sub", "Mul") for case in both_ways(name, normal(1, 4), opsets=(8, 14))),
    *(case for name in ("Max", "Min") for case in both_ways(name, np.float32(0.3), opsets=(8, 12))),
    *(
        Case(name, inputs=("x", normal(3, 1), normal(2, 1, 1), np.float32(0.1)))
        for name in ("Max", "Min", "Sum", "Mean")
    ),
    *(
        Case(name, inputs=("x", normal(3, 4)), opsets=(9, 13))
        for name in ("Equal", "Less", "Greater")
        if name != "Equal"
    ),
    *(Case(name, inputs=("x", normal(3, 4)), opsets=(12, 16)) for name in ("LessOrEqual", "GreaterOrEqual")),
    Case("Equal", inputs=("x", np.float32(0)), opsets=(11, 13)),
    *(Case("Pow", inputs=("x", np.float32(power)), positive=True) for power in (2.0, 3.0, 0.5, -1.0, 1.0, 1.7)),
    Case("Pow", inputs=("x", np.float32(2.0))),
    Case("Pow", inputs=(np.float32(2.0), "x")),
    Case("Pow", inputs=("x", np.array([1.0, 2.0, 3.0, 0.5], dtype=np.float32)), positive=True),
    Case("Mod", inputs=("x", np.float32(0.4)), attributes={"fmod": 1}),
    Case("Where", inputs=(normal(3, 4) > 0, "x", normal(1, 4)), opsets=(9, 16)),
    Case("Where", inputs=(normal(3, 4) > 0, normal(2, 1, 1), "x")),
    Case("Where", inputs=(normal(2, 1, 4) > 0, "x", "x")),
]

DENSE = [
    *(
        Case("Gemm", (3, 4), ("x", normal(*weight), *bias), {"transA": a, "transB": b, "alpha": 0.5, "beta": 1.5})
        for a, b, weight, rows in ((0, 0, (4, 2), 3), (0, 1, (2, 4), 3), (1, 0, (3, 2), 4), (1, 1, (2, 3), 4))
        for bias in ((), (normal(2),), (normal(rows, 1),), (normal(rows, 2),), (np.float32(2.0),), (normal(1, 2),))
    ),
    Case("Gemm", (3, 4), (normal(2, 3), "x", normal(2, 4))),
    Case("Gemm", (3, 3), ("x", "x", "x"), {"transB": 1, "beta": 0.3}),
    *(
        Case("MatMul", shape, inputs, opsets=(9, 13))
        for shape, inputs in (
            ((1, 4), ("x", normal(4, 3))),
            ((2, 3, 4), ("x", normal(4, 5))),
            ((2, 3, 4), ("x", normal(2, 4, 5))),
            ((3, 4), ("x", normal(2, 4, 5))),
            ((2, 3, 4), ("x", normal(1, 4, 5))),
            ((2, 1, 3, 4), ("x", normal(3, 4, 5))),
            ((4,), ("x", normal(4, 3))),
            ((3, 4), ("x", normal(4))),
            ((4,), ("x", normal(4))),
            ((4, 3), (normal(5, 4), "x")),
            ((2, 4, 3), (normal(5, 4), "x")),
            ((2, 4, 3), (normal(2, 5, 4), "x")),
            ((4, 3), (normal(4), "x")),
            ((4,), (normal(5, 4), "x")),
            ((2, 3, 3), ("x", "x")),
        )
    ),
]

CONVOLUTION = [
    *(
        Case("Conv", (1, 4, 7, 6), ("x", normal(6, 4 // groups, 3, 2), normal(6)), {"group": groups, **attributes})
        for groups in (1, 2)
        for attributes in (
            {},
            {"strides": [2, 3]},
            {"pads": [1, 1, 1, 1], "strides": [2, 2]},
            {"pads": [0, 2, 1, 0], "strides": [3, 2]},
            {"dilations": [2, 3], "pads": [2, 1, 2, 3]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
            {"auto_pad": "VALID"},
        )
    ),
    Case("Conv", (1, 2, 9), ("x", normal(3, 2, 4)), {"pads": [1, 2], "strides": [2]}),
    Case("Conv", (1, 2, 4, 5, 6), ("x", normal(3, 2, 2, 3, 2)), {"pads": [1, 0, 1, 0, 1, 1]}),
    Case("Conv", (2, 2, 5, 5), ("x", normal(3, 2, 3, 3))),
    *(
        Case(
            "ConvTranspose",
            (1, 4, 5, 4),
            ("x", normal(4, 6 // groups, 3, 2), normal(6)),
            {"group": groups, **attributes},
        )
        for groups in (1, 2)
        for attributes in (
            {},
            {"strides": [2, 3]},
            {"pads": [1, 1, 1, 1], "strides": [2, 2]},
            {"pads": [0, 1, 1, 0], "strides": [3, 2], "output_padding": [2, 1]},
            {"dilations": [2, 3], "strides": [2, 1]},
            {"output_shape": [10, 9], "strides": [2, 2]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        )
    ),
    Case("ConvTranspose", (1, 2, 5), ("x", normal(2, 3, 4)), {"strides": [2], "pads": [1, 0]}),
    *(
        Case(name, (1, 2, 7, 6), attributes={"kernel_shape": [3, 2], **attributes}, opsets=opsets)
        for name in ("MaxPool", "AveragePool")
        for attributes, opsets in (
            ({}, (8, 12, 19)),
            ({"strides": [2, 2]}, (8, 12)),
            ({"strides": [1, 1], "pads": [1, 1, 1, 0]}, (8, 12)),
            ({"strides": [2, 3], "pads": [1, 0, 2, 1], "ceil_mode": 1}, (12, 19)),
            ({"strides": [3, 2], "ceil_mode": 1}, (12,)),
            ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (12,)),
            ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (12,)),
        )
    ),
    Case("MaxPool", (1, 2, 7, 6), attributes={"kernel_shape": [3, 2], "dilations": [2, 2]}),
    Case("AveragePool", (1, 2, 7, 6), attributes={"kernel_shape": [2, 2], "dilations": [2, 3]}, opsets=(19,)),
    *(
        Case("AveragePool", (1, 2, 7, 6), attributes={"kernel_shape": [3, 3], "count_include_pad": 1, **attributes})
        for attributes in (
            {"pads": [1, 1, 1, 1]},
            {"pads": [1, 1, 1, 1], "strides": [2, 2]},
        )
    ),
    Case(
        "AveragePool",
        (1, 2, 8, 8),
        attributes={
            "kernel_shape": [3, 3],
            "count_include_pad": 1,
            "pads": [1, 1, 1, 1],
            "strides": [2, 2],
            "ceil_mode": 1,
        },
        opsets=(19,),
    ),
    Case("MaxPool", (1, 2, 9), attributes={"kernel_shape": [4], "pads": [1, 2]}),
    *(
        Case("LpPool", (1, 2, 7, 6), attributes={"kernel_shape": [3, 2], "p": p, **attributes}, opsets=(11, 18))
        for p in (1, 2, 3)
        for attributes in ({}, {"strides": [2, 1], "pads": [1, 0, 1, 1]}, {"auto_pad": "SAME_UPPER"})
    ),
    Case("LpPool", (1, 2, 7, 6), attributes={"kernel_shape": [2, 2], "dilations": [2, 3]}, opsets=(18,)),
    *(Case("GlobalLpPool", (1, 3, 4, 5), attributes={"p": p}) for p in (1, 2, 4)),
    Case("GlobalAveragePool", (1, 3, 4, 5)),
    Case("GlobalMaxPool", (1, 3, 4, 5)),
]

NORMALIZATION = [
    Case(
        "BatchNormalization",
        (1, 3, 2, 2),
        ("x", normal(3), normal(3), normal(3), np.abs(normal(3))),
        {"epsilon": 0.01},
        opsets=(8, 9, 14, 15),
    ),
    Case("BatchNormalization", (2, 3), ("x", normal(3), normal(3), normal(3), np.abs(normal(3)))),
    Case("InstanceNormalization", (1, 3, 4, 2), ("x", normal(3), normal(3)), {"epsilon": 0.01}),
    Case("LayerNormalization", (2, 3, 4), ("x", normal(4), normal(4)), {"epsilon": 0.01}, opsets=(17,)),
    Case("LayerNormalization", (2, 3, 4), ("x", normal(3, 4)), {"axis": 1}, opsets=(17,)),
    Case("GroupNormalization", (1, 4, 3, 2), ("x", normal(2), normal(2)), {"num_groups": 2}, opsets=(18,)),
    Case("GroupNormalization", (1, 4, 3, 2), ("x", normal(4), normal(4)), {"num_groups": 2}, opsets=(21,)),
    Case("RMSNormalization", (2, 3, 4), ("x", normal(4)), {"epsilon": 0.01}, opsets=(23,)),
    Case("RMSNormalization", (2, 3, 4), ("x", normal(3, 4)), {"axis": 1}, opsets=(23,)),
    *(
        Case("LRN", (1, 5, 2, 3), attributes={"size": size, "alpha": 0.7, "beta": 0.6, "bias": 1.5})
        for size in (1, 3, 4)
        if size % 2  # onnxruntime has odd sizes only
    ),
    *(Case("LpNormalization", (2, 3, 4), attributes={"p": p, "axis": axis}) for p in (1, 2) for axis in (1, -1)),
]

MOVEMENT = [
    *(Case("Reshape", (1, 3, 4), ("x", whole(*shape))) for shape in ((4, 3), (-1,), (0, 2, -1), (1, 0, 2, 2))),
    *(Case("Flatten", (2, 3, 4), attributes={"axis": axis}) for axis in (0, 1, 2, 3, -1)),
    Case("Squeeze", (1, 3, 1), attributes={"axes": [0]}, opsets=(9, 11)),
    Case("Squeeze", (1, 3, 1), ("x", whole(-1))),
    Case("Squeeze", (1, 3, 1), opsets=(9, 13)),
    Case("Unsqueeze", (3, 4), attributes={"axes": [0, 2]}, opsets=(9,)),
    Case("Unsqueeze", (3, 4), ("x", whole(0, -1))),
    Case("Transpose", (2, 3, 4)),
    Case("Transpose", (2, 3, 4), attributes={"perm": [1, 2, 0]}),
    *(Case("Concat", (2, 3), ("x", "x", normal(2, 3)), {"axis": axis}) for axis in (0, 1, -1)),
    Case("Split", (2, 6), attributes={"axis": 1, "split": [1, 5]}, opsets=(9,), outputs=("z", "y")),
    Case("Split", (2, 6), ("x", whole(1, 2, 3)), {"axis": -1}, outputs=("a", "y", "b")),
    Case("Split", (4, 6), ("x",), {"axis": 0}, outputs=("a", "y")),
    Case("Split", (1, 7), attributes={"axis": 1, "num_outputs": 3}, opsets=(18,), outputs=("a", "b", "y")),
    Case("Slice", (4, 5), attributes={"starts": [1, -3], "ends": [3, 100]}, opsets=(9,)),
    *(
        Case("Slice", (4, 5), ("x", whole(*starts), whole(*ends), whole(*axes), whole(*steps)), opsets=(10, 13))
        for starts, ends, axes, steps in (
            ((1,), (3,), (0,), (1,)),
            ((-2, 0), (2**62, -1), (1, 0), (1, 2)),
            ((-1,), (-(2**62),), (1,), (-1,)),
            ((3, 4), (0, 0), (0, 1), (-2, -3)),
        )
    ),
    *(
        Case("Gather", (4, 5), ("x", np.array(index)), {"axis": axis})
        for index, axis in ((2, 0), (-1, 1), ([[0, 3], [1, 1]], 1))
    ),
    Case("GatherElements", (3, 4), ("x", np.array([[0, 1], [3, -1]])), {"axis": 1}),
    Case("GatherND", (3, 4, 2), ("x", np.array([[0, 1], [2, -1]]))),
    Case("ScatterND", (4, 3), ("x", whole(1, 3).reshape(2, 1), normal(2, 3)), opsets=(11, 16)),
    Case("ScatterND", (4, 3), (normal(5, 4, 3), np.array([1]), "x")),
    Case("ScatterElements", (3, 4), ("x", np.array([[0, 3], [1, 2]]), normal(2, 2)), {"axis": 1}, opsets=(11, 16)),
    Case("GatherND", (2, 3, 4), ("x", whole(2, 0).reshape(2, 1)), {"batch_dims": 1}),
    Case("GatherND", (2, 2, 4), ("x", whole(2, 0, 1, 3).reshape(2, 2, 1)), {"batch_dims": 2}),
    *(
        Case("Trilu", (2, 3, 4), ("x", *shift), {"upper": upper}, (14,))
        for upper in (0, 1)
        for shift in ((), (np.array(1),), (np.array(-2),))
    ),
    Case("CastLike", (3, 4), ("x", np.float64([1.0])), opsets=(15,), kind_of_output=TensorProto.DOUBLE),
    Case("CastLike", (3, 4), ("x", np.array([1], np.int32)), opsets=(15,), kind_of_output=TensorProto.INT32),
    Case("Expand", (3, 1), ("x", whole(2, 1, 4))),
    Case("Tile", (2, 3), ("x", whole(2, 3))),
    Case("DepthToSpace", (1, 8, 2, 3), attributes={"blocksize": 2}),
    Case("DepthToSpace", (1, 8, 2, 3), attributes={"blocksize": 2, "mode": "CRD"}, opsets=(11,)),
    Case("SpaceToDepth", (1, 2, 4, 6), attributes={"blocksize": 2}),
    Case("Pad", (3, 4), attributes={"pads": [1, 0, 2, 1], "value": 0.5}, opsets=(9,)),
    *(
        Case("Pad", (3, 4), ("x", whole(1, 2, 2, 1)), {"mode": mode}, opsets=(11, 13))
        for mode in ("constant", "edge", "reflect")
    ),
    Case("Pad", (3, 4), ("x", whole(-1, 2, 1, -1), np.float32(1.5))),
    Case("Pad", (3, 4), ("x", whole(1, 2), np.float32(1.5), whole(1)), opsets=(18,)),
]

REDUCTIONS = [
    *(
        Case(
            f"Reduce{name}",
            (2, 3, 4),
            attributes={**({} if axes is None else {"axes": axes}), "keepdims": keep},
            opsets=(9, 11),
            positive=name == "LogSum",
        )
        for name in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
        for axes, keep in ((None, 1), ([1], 0), ([0, 2], 1), ([0, -1], 0))
        if name != "Sum" or axes is None or axes[-1] >= 0
    ),
    *(Case(f"Reduce{name}", (2, 3, 4), ("x", whole(1, -1)), opsets=(18,)) for name in ("Sum", "Mean", "Max", "Min")),
    Case("ReduceSum", (2, 3), ("x", whole(0)), {"keepdims": 0}),
    Case("ReduceSum", (2, 3), attributes={"noop_with_empty_axes": 1}),
    *(
        Case("CumSum", (3, 4), ("x", np.array(1)), {"exclusive": exclusive, "reverse": reverse}, opsets=(11, 14))
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
]

RESIZE = [
    *(
        Case(
            "Resize",
            (1, 2, 3, 4),
            ("x", np.zeros(0, np.float32), np.array([1, 1, *scales], np.float32)),
            {
                "mode": mode,
                "coordinate_transformation_mode": coordinates,
                **({"nearest_mode": nearest} if mode == "nearest" else {}),
            },
            opsets=(11, 13, 18),
        )
        for mode in ("nearest", "linear")
        for coordinates in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
        for nearest in (("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("",))
        for scales in ((2.0, 3.0), (0.5, 1.5))
    ),
    *(
        Case(
            "Resize",
            (1, 2, 6, 5),
            ("x", np.zeros(0, np.float32), np.array([1, 1, *scales], np.float32)),
            {"mode": "cubic", **attributes},
        )
        for scales in ((2.0, 3.0), (0.5, 1.5))
        for attributes in (
            {},
            {"cubic_coeff_a": -0.5},
            {"exclude_outside": 1},
            {"coordinate_transformation_mode": "align_corners"},
        )
    ),
    Case("Resize", (1, 2, 3, 4), ("x", None, None, whole(1, 2, 5, 9)), {"mode": "linear"}),
    Case("Resize", (1, 2, 3, 4), ("x", np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}, opsets=(10,)),
    Case("Upsample", (1, 2, 3, 4), ("x", np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest"}, opsets=(9,)),
    Case("Upsample", (1, 2, 3, 4), attributes={"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}, opsets=(8,)),
    Case("Upsample", (1, 2, 3, 4), attributes={"scales": [1.0, 1.0, 2.0, 2.0]}, opsets=(8,)),
]
