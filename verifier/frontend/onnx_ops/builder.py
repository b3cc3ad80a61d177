"""The graph under construction: a growing list of nodes, and samples for shapes that depend on values."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.operator import Elementwise, Op
from verifier.errors import ModelError, UnsupportedError
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Concat, Linear, Permute, Reshape, Scale, Select

SAMPLES = 3


class Builder:
    """Appends nodes; their shapes are found by evaluating the new operator alone on zeros, unless it is given."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.nodes = [Node(name, Input(), (), shape)]
        self.input = Variable(0, shape, dtype)
        self._samples: dict[int, Tensor] = {}

    def emit(
        self, op: Op, *inputs: Variable, name: str, origin: str, dtype: np.dtype, shape: tuple[int, ...] | None = None
    ) -> Variable:
        _check_constants(op)
        if shape is None:
            shape = _shape(op, *inputs)
        self.nodes.append(Node(name, op, tuple(value.position for value in inputs), shape, origin))
        return Variable(len(self.nodes) - 1, shape, dtype)

    def materialise(self, value: Value, name: str) -> Variable:
        """A known tensor as a node."""
        if isinstance(value, Variable):
            return value
        tensor = torch.from_numpy(np.array(value.array, dtype=np.float64))
        return self.emit(Constant(tensor), name=name, origin="Constant", dtype=value.dtype, shape=value.shape)

    def rename(self, first: int, position: int, name: str) -> None:
        """Gives the node the name of the ONNX tensor it computes, if it is one of those from `first` on."""
        if position >= first:
            self.nodes[position] = replace(self.nodes[position], name=name)

    def sample(self, value: Value) -> np.ndarray:
        """What the tensor holds for a few inputs, `[samples, *shape]`: only for shapes that depend on values."""
        if isinstance(value, Known):
            return np.broadcast_to(value.array, (SAMPLES, *value.shape))
        if value.position not in self._samples:
            generator = torch.Generator().manual_seed(0)
            x = torch.rand(SAMPLES, *self.input.shape, dtype=torch.float64, generator=generator)
            self._samples = Graph(tuple(self.nodes), value.position).evaluate_all(x)
        return self._samples[value.position].numpy()

    def common(self, values: np.ndarray, what: str) -> int:
        """The one integer that all samples agree on."""
        if not (np.isfinite(values).all() and (values == values.flat[0]).all()):
            raise UnsupportedError(f"{what} depends on the input; only tensors of a fixed shape are supported")
        return int(values.flat[0])


def _check_constants(op: Op) -> None:
    """Weights must be numbers. (Limits of Clip are no tensors, and may be infinite.)"""
    for field in dataclasses.fields(op):  # type: ignore[arg-type]
        value = getattr(op, field.name)
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError("its constants hold NaN or infinity; the file is damaged, or training diverged")


def _shape(op: Op, *inputs: Variable) -> tuple[int, ...]:
    if isinstance(op, (Elementwise, Scale)):
        return inputs[0].shape
    if isinstance(op, Reshape):
        return op.shape
    if isinstance(op, Select):
        return tuple(op.index.shape)
    if isinstance(op, Permute):
        return tuple(inputs[0].shape[axis] for axis in op.axes)
    if isinstance(op, Linear):
        return (*inputs[0].shape[:-1], op.weight.shape[0])
    if isinstance(op, Concat):
        shape = list(inputs[0].shape)
        shape[op.axis] = sum(op.sizes)
        return tuple(shape)
    result = op.evaluate(*(torch.zeros(1, *value.shape, dtype=torch.float64) for value in inputs))
    return tuple(result.shape[1:])
