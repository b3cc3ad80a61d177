"""A network file: what was read, the graph made of it, and the original under onnxruntime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from verifier.core.graph import Graph
from verifier.errors import ModelError, VerifierError
from verifier.frontend.onnx_file import FLOATS, one_line, parse, read_bytes
from verifier.frontend.onnx_import import import_graph, input_shape, opset, single_input, single_output
from verifier.frontend.simplify import simplify

THREADS = 2


@dataclass(frozen=True, eq=False)
class Network:
    """`content`: the unpacked file, external weights included; `sha256` is its hash. `graph` has constants in float64.

    `input_shape` is the declared shape with a leading dimension of unknown size (`batched`) taken as 1; `input_dtype`
    is the type that the file declares.
    """

    path: Path
    content: bytes
    sha256: str
    graph: Graph
    input_name: str
    input_shape: tuple[int, ...]
    input_dtype: np.dtype
    output_name: str
    opset: int
    batched: bool

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.graph.output_shape

    def run(self, x: np.ndarray) -> np.ndarray:
        """onnxruntime on the CPU, on the original file: `x` `[points, *input_shape]` to `[points, *output_shape]`.

        Points go together where the file leaves the leading dimension open, else one after another. The rounding of a
        point may depend on its company: whatever counts as a witness is run alone.
        """
        points = np.ascontiguousarray(x.reshape(-1, *self.input_shape), dtype=self.input_dtype)
        if self.batched and len(points) > 1:
            together = self._run(points.reshape(-1, *self.input_shape[1:]))
            if together.shape == (len(points), *self.output_shape[1:]):
                return together.reshape(len(points), *self.output_shape)
        return np.stack([self._run(point).reshape(self.output_shape) for point in points])

    def _run(self, point: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._session.run([self.output_name], {self.input_name: point})[0])
        except Exception as fault:
            raise ModelError(f"onnxruntime cannot run '{self.path}': {one_line(fault)}") from None

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
        except Exception as fault:
            raise ModelError(f"onnxruntime cannot load '{self.path}': {one_line(fault)}") from None


def load(path: str | Path) -> Network:
    """Reads and imports the network; every failure is one sentence that names the file."""
    file, content = read_bytes(Path(path))
    model, content = parse(file, content)
    try:
        graph = simplify(import_graph(model))
        info = single_input(model.graph)
    except VerifierError as fault:
        sentence = " ".join(str(fault).splitlines())  # names in a file may hold anything
        raise type(fault)(f"{file}: {sentence}") from fault.__cause__
    return Network(
        path=file,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        graph=graph,
        input_name=info.name,
        input_shape=graph.input_shape,
        input_dtype=FLOATS[info.type.tensor_type.elem_type],
        output_name=single_output(model.graph).name,
        opset=opset(model),
        batched=_leading_is_open(info),
    )


def _leading_is_open(info: onnx.ValueInfoProto) -> bool:
    shape = input_shape(info)
    return bool(shape) and isinstance(shape[0], str)
