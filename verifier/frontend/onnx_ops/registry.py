"""The table from ONNX operators to what builds them, and the call that a builder receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from verifier.core.operator import Op
from verifier.errors import ModelError, UnsupportedError
from verifier.frontend.onnx_file import one_line, to_array
from verifier.frontend.onnx_ops.builder import Builder
from verifier.frontend.onnx_ops.values import Known, Value, Variable, known

OLDEST, NEWEST = 8, 24

Handler = Callable[["Call"], "Value | Sequence[Value]"]
_TABLE: dict[tuple[str, str, int], Handler] = {}
_TAKES_CONSTANTS: set[Handler] = set()


def operator(*names: str, since: int = 1, domain: str = "", constants: bool = False) -> Callable[[Handler], Handler]:
    """Registers the decorated function for these ONNX operators from opset `since` on.

    `constants`: it wants to be called even where all inputs are known; others are folded then.
    """

    def register(handler: Handler) -> Handler:
        for name in names:
            assert (domain, name, since) not in _TABLE, f"{name} is registered twice"
            _TABLE[domain, name, since] = handler
        if constants:
            _TAKES_CONSTANTS.add(handler)
        return handler

    return register


def find(domain: str, name: str, version: int) -> Handler | None:
    """The handler with the largest since-version up to `version`."""
    fitting = [since for where, what, since in _TABLE if where == domain and what == name and since <= version]
    return _TABLE[domain, name, max(fitting)] if fitting else None


def build(handler: Handler, call: Call) -> list[Value]:
    """The outputs of the node: folded where no input depends on the network's, else as `handler` lowers it."""
    if handler not in _TAKES_CONSTANTS and all(value is None or isinstance(value, Known) for value in call.inputs):
        return list(call.fold())
    result = handler(call)
    return [result] if isinstance(result, (Known, Variable)) else list(result)


def registered() -> tuple[tuple[str, str, int], ...]:
    """All (domain, operator, since-version), sorted."""
    return tuple(sorted(_TABLE))


class Call:
    """One ONNX node with its inputs, and the means to build what it computes."""

    def __init__(self, node: onnx.NodeProto, version: int, builder: Builder, inputs: tuple[Value | None, ...]) -> None:
        self.node, self.version, self.builder, self.inputs = node, version, builder, inputs
        self._attributes = {attribute.name: attribute for attribute in node.attribute}
        self._first = len(builder.nodes)

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise ModelError(f"input {index} is missing")
        return value

    def variable(self, index: int) -> Variable:
        """Input `index` as a node, made one if it is constant."""
        return self.materialise(self.value(index))

    def constant(self, index: int, what: str) -> np.ndarray:
        value = self.value(index)
        if isinstance(value, Variable):
            raise UnsupportedError(f"its {what} (input {index}) depend on the network's input; they must be constant")
        return value.array

    def integers(self, name: str, index: int | None = None, default: Sequence[int] | None = None) -> list[int] | None:
        """Integers that older opsets give as attribute `name` and newer ones as input `index`."""
        if index is not None and self.has(index):
            return [int(number) for number in self.constant(index, name).reshape(-1)]
        found = self.attribute(name, None)
        if found is None:
            return None if default is None else list(default)
        return [int(number) for number in np.atleast_1d(found)]

    def attribute(self, name: str, default: Any) -> Any:
        if name not in self._attributes:
            return default
        value = onnx.helper.get_attribute_value(self._attributes[name])
        if isinstance(value, onnx.TensorProto):
            return known(*to_array(value))
        return value.decode() if isinstance(value, bytes) else value

    def axis(self, rank: int, default: int | None) -> int:
        axis = self.attribute("axis", default)
        if axis is None:
            raise ModelError("attribute 'axis' is missing")
        return normalise(axis, rank)

    def materialise(self, value: Value) -> Variable:
        return self.builder.materialise(value, self._name())

    def emit(
        self, op: Op, *inputs: Variable, dtype: np.dtype | None = None, shape: tuple[int, ...] | None = None
    ) -> Variable:
        kind = inputs[0].dtype if dtype is None else dtype
        return self.builder.emit(
            op, *inputs, name=self._name(), origin=self.node.op_type, dtype=np.dtype(kind), shape=shape
        )

    def _name(self) -> str:
        return f"{self.node.output[0]}/{len(self.builder.nodes) - self._first}"

    def finish(self, results: Sequence[Value]) -> None:
        """Gives the nodes of the results the names of the node's outputs."""
        for name, result in zip(self.node.output, results, strict=False):
            if isinstance(result, Variable) and name:
                self.builder.rename(self._first, result.position, name)

    def fold(self) -> list[Known]:
        """The node's outputs, all inputs being known: computed by ONNX's reference, floats in float64."""
        from onnx.reference import ReferenceEvaluator

        arguments = {
            name: value.array
            for name, value in zip(self.node.input, self.inputs, strict=True)
            if isinstance(value, Known)
        }
        opset = onnx.helper.make_opsetid(self.node.domain, self.version)
        graph = onnx.GraphProto(node=[self.node], name="fold")
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in arguments)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.node.output if name)
        model = onnx.ModelProto(graph=graph, opset_import=[opset], ir_version=8)
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(model).run(None, arguments)
        except Exception as fault:
            raise UnsupportedError(f"its constant inputs cannot be evaluated: {one_line(fault)}") from None
        floats = [value.dtype for value in self.inputs if isinstance(value, Known) and value.dtype.kind == "f"]
        declared = floats[0] if floats else np.dtype(np.float32)
        arrays = [np.asarray(result) for result in results]
        return [known(array, declared if array.dtype.kind == "f" else None) for array in arrays]


def normalise(axis: int, rank: int) -> int:
    """A non-negative axis."""
    if not -rank <= axis < max(rank, 1):
        raise ModelError(f"axis {axis} is outside of a tensor with {rank} axes")
    return axis + rank if axis < 0 else axis


def tensor(array: np.ndarray) -> Tensor:
    """A constant of an operator: float64 for numbers."""
    return torch.from_numpy(np.array(array, dtype=np.float64))
