"""ONNX message to `Graph`: constants folded, shapes static, every operator lowered to the canonical ones.

An ONNX tensor is either known (it does not depend on the input) or a node. Nodes are translated in the file's order,
which ONNX requires to be topological, by the handlers registered in `onnx_ops`.
"""

from __future__ import annotations

import onnx

from verifier.core.graph import Graph
from verifier.errors import ModelError, UnsupportedError, VerifierError
from verifier.frontend.onnx_file import FLOATS, one_line, to_array, type_name
from verifier.frontend.onnx_ops import NEWEST, OLDEST, Builder, Call, Known, Value, build, find

STANDARD_DOMAINS = ("", "ai.onnx")


def import_graph(model: onnx.ModelProto) -> Graph:
    """The graph of the one input and the one output of `model`, not simplified."""
    versions = _versions(model)
    _refuse_unknown(model.graph, versions)
    values: dict[str, Value | None] = {"": None}
    for initializer in model.graph.initializer:
        values[initializer.name] = Known(*to_array(initializer))
    info = single_input(model.graph)
    shape = tuple(dimension if isinstance(dimension, int) else 1 for dimension in input_shape(info))
    builder = Builder(info.name, shape, FLOATS[info.type.tensor_type.elem_type])
    values[info.name] = builder.input
    for node in _needed(model.graph):
        results = _translate(node, versions, builder, values)
        values.update((name, result) for name, result in zip(node.output, results, strict=False) if name)
    name = single_output(model.graph).name
    if name not in values:
        raise ModelError(f"the output '{name}' is computed by no node")
    output = values[name]
    assert output is not None
    return Graph(tuple(builder.nodes), builder.materialise(output, name).position)


def single_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """The one input that is not a weight."""
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [info for info in graph.input if info.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(f"'{info.name}'" for info in inputs)
        raise UnsupportedError(f"the network has {len(inputs)} inputs ({names or 'none'}); exactly one is supported")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in FLOATS:
        raise UnsupportedError(f"input '{inputs[0].name}' has type {type_name(kind)}; convert the network to float32")
    return inputs[0]


def single_output(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    if len(graph.output) != 1:
        names = ", ".join(f"'{info.name}'" for info in graph.output)
        raise UnsupportedError(f"the network has {len(graph.output)} outputs ({names}); exactly one is supported")
    return graph.output[0]


def input_shape(info: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """The declared shape; a leading dimension without a size stands as a string, others are refused."""
    if not info.type.tensor_type.HasField("shape"):
        raise UnsupportedError(f"input '{info.name}' has no declared shape; export the network with a fixed one")
    shape: list[int | str] = []
    for place, dimension in enumerate(info.type.tensor_type.shape.dim):
        if dimension.HasField("dim_value") and dimension.dim_value > 0:
            shape.append(dimension.dim_value)
        elif place == 0:
            shape.append(dimension.dim_param or "batch")
        else:
            raise UnsupportedError(
                f"dimension {place} of input '{info.name}' has no fixed size"
                f" ('{dimension.dim_param or dimension.dim_value}'); export the network with a fixed input shape"
            )
    return tuple(shape)


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def _versions(model: onnx.ModelProto) -> dict[str, int]:
    version = opset(model)
    if not OLDEST <= version <= NEWEST:
        raise UnsupportedError(
            f"the network uses opset {version}; {OLDEST} to {NEWEST} are supported (onnx.version_converter translates)"
        )
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return {**versions, **dict.fromkeys(STANDARD_DOMAINS, version)}


def _refuse_unknown(graph: onnx.GraphProto, versions: dict[str, int]) -> None:
    """All operators that are not supported in one message."""
    unknown: dict[str, list[str]] = {}
    for node in graph.node:
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        if find(domain, node.op_type, versions.get(node.domain, 0)) is None:
            label = f"{domain}:{node.op_type}" if domain else node.op_type
            unknown.setdefault(label, []).append(_label(node))
    if unknown:
        listed = "; ".join(f"{name} ({len(where)} times, first at {where[0]})" for name, where in unknown.items())
        raise UnsupportedError(f"operators that are not supported: {listed}")


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the output depends on, in the file's order."""
    wanted, needed = {info.name for info in graph.output}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            needed.append(node)
    return needed[::-1]


def _label(node: onnx.NodeProto) -> str:
    output = node.output[0] if node.output else "?"
    return f"node '{node.name}' (tensor '{output}')" if node.name else f"the node of tensor '{output}'"


def _translate(
    node: onnx.NodeProto, versions: dict[str, int], builder: Builder, values: dict[str, Value | None]
) -> list[Value]:
    """The node's outputs; every failure names the node."""
    domain = "" if node.domain in STANDARD_DOMAINS else node.domain
    where = f"{node.op_type} {_label(node)}"
    for name in node.input:
        if name not in values:
            raise ModelError(f"{where} reads '{name}', which nothing before it computes")
    call = Call(node, versions[node.domain], builder, tuple(values[name] for name in node.input))
    handler = find(domain, node.op_type, call.version)
    assert handler is not None
    try:
        results = build(handler, call)
    except VerifierError as fault:
        raise type(fault)(f"{where}: {fault}") from None
    except Exception as fault:
        shapes = [None if value is None else list(value.shape) for value in call.inputs]
        raise ModelError(f"{where} cannot be built from inputs of shapes {shapes}: {one_line(fault)}") from fault
    call.finish(results)
    return results
