"""The same for operators that stand for whole computations: recurrence, Einsum, quantization, attention."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.frontend.onnx_cases import Case, normal

RECURRENT = [
    *(
        Case(name, (4, 1, 3), ("x", normal(d, gates * 2, 3), normal(d, gates * 2, 2), *extra), attributes, (14, 22),
             outputs=outputs)
        for name, gates in (("RNN", 1), ("LSTM", 4), ("GRU", 3))
        for d, direction in ((1, "forward"), (1, "reverse"), (2, "bidirectional"))
        for outputs in (("y",), ("all", "y"))
        for extra in ((), (normal(d, 2 * gates * 2), None, normal(d, 1, 2)))
        for attributes in (
            {"hidden_size": 2, "direction": direction},
            *([{"hidden_size": 2, "direction": direction, "linear_before_reset": 1}] if name == "GRU" else []),
        )
    ),
    Case("LSTM", (3, 2, 3), ("x", normal(1, 8, 3), normal(1, 8, 2), None, np.array([3, 3], np.int32), normal(1, 2, 2),
                             normal(1, 2, 2)), {"hidden_size": 2}, outputs=("a", "b", "y")),
    Case("GRU", (3, 2, 3), ("x", normal(1, 6, 3), normal(1, 6, 2)), {"hidden_size": 2, "activations":
                                                                    ["Relu", "Softsign"]}),
]  # fmt: skip

EINSUM = [
    Case("Einsum", shape, inputs, {"equation": equation}, (12, 22))
    for equation, shape, inputs in (
        ("ij->ji", (3, 4), ("x",)),
        ("bij->b", (2, 3, 4), ("x",)),
        ("ii->i", (3, 3), ("x",)),
        ("ii", (3, 3), ("x",)),
        ("bii,bi->bi", (2, 3, 3), ("x", normal(2, 3))),
        ("ij,jk", (3, 4), ("x", normal(4, 2))),
        ("ij,jk->ki", (3, 4), (normal(2, 3), "x")),
        ("bij,bjk->bik", (2, 3, 4), ("x", normal(2, 4, 2))),
        ("bhid,bhjd->bhij", (1, 2, 3, 2), ("x", "x")),
        ("bhij,bjhd->bihd", (1, 2, 3, 3), ("x", normal(1, 3, 2, 2))),
        ("i,j->ij", (3,), ("x", normal(4))),
        ("i,i->", (3,), ("x", "x")),
        ("...ij,...j->...i", (2, 3, 4), ("x", normal(2, 4))),
        ("...ij,jk", (2, 3, 4), ("x", normal(4, 2))),
        ("ij,jk,kl->il", (3, 4), ("x", normal(4, 2), normal(2, 3))),
        ("ij,kj,kl->il", (3, 4), (normal(2, 4), normal(3, 4), "x")),
        (" b c h w , c -> b h w ", (1, 2, 3, 2), ("x", normal(2))),
    )
]

QUANTIZED = [
    *(
        Case("QuantizeLinear", (2, 3, 4), ("x", *parameters), attributes, opsets, kind_of_output=kind)
        for parameters, attributes, opsets, kind in (
            ((np.float32(0.05),), {}, (13, 21), TensorProto.UINT8),
            ((np.float32(0.02), np.int8(3)), {}, (10, 13, 19), TensorProto.INT8),
            ((np.float32(0.01), np.uint8(120)), {}, (13,), TensorProto.UINT8),
            ((np.float32([0.02, 0.3, 0.01]), np.array([3, -5, 0], np.int8)), {"axis": 1}, (13,), TensorProto.INT8),
            ((np.float32([0.02, 0.3]), np.array([3, 250], np.uint8)), {"axis": -3}, (13,), TensorProto.UINT8),
            ((np.float32(0.001), np.uint16(30000)), {}, (21,), TensorProto.UINT16),
        )
    ),
]

ATTENTION = [
    Case("Attention", (1, 2, 3, 4), inputs, attributes, (23, 24))
    for inputs, attributes in (
        (("x", "x", "x"), {}),
        (("x", normal(1, 2, 5, 4), normal(1, 2, 5, 3)), {"scale": 0.3}),
        (("x", normal(1, 1, 5, 4), normal(1, 1, 5, 3), normal(3, 5)), {"softcap": 2.0}),
    )
] + [
    Case("Attention", (1, 3, 4), ("x", "x", normal(1, 3, 6)), {"q_num_heads": 2, "kv_num_heads": 2}, (23,)),
    Case("Attention", (1, 3, 8), ("x", normal(1, 5, 4), normal(1, 5, 4)), {"q_num_heads": 4, "kv_num_heads": 2}, (23,)),
]
