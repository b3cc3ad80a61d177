"""Small ONNX models for the tests, built on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from verifier.frontend.network import Network, load

IR_VERSION = 8


def build(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str | None],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    output_kind: int | None = None,
) -> onnx.ModelProto:
    """A model from input 'x' of `shape` to output 'y'; `constants` become initializers."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", output_kind or kind, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def load_nodes(
    folder: Path, nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str | None], **more: Any
) -> Network:
    return load(save(build(nodes, shape, **more), folder))


def node(
    name: str, inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",), **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(name, list(inputs), list(outputs), name=f"the_{name}_of_{outputs[0]}", **attributes)
