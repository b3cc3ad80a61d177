"""Takes a constant that is added behind a dense layer or a convolution into its bias.

Only where the layer has no bias yet, so that no constant is rounded, and where nothing else reads the layer.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from verifier.core.graph import Graph, Node
from verifier.frontend.simplify.rewriting import rewrite
from verifier.ops import Conv, ConvTranspose, Linear, Scale


def absorb_shifts(graph: Graph) -> Graph:
    return rewrite(graph, _absorb)


def _absorb(nodes: list[Node], node: Node, graph: Graph, position: int) -> Node | int:
    if not (isinstance(node.op, Scale) and node.op.scale is None and node.op.shift is not None):
        return node
    layer, source = nodes[node.inputs[0]], graph.nodes[position].inputs[0]
    if not isinstance(layer.op, (Linear, Conv, ConvTranspose)) or layer.op.bias is not None:
        return node
    if len(graph.consumers[source]) > 1 or source == graph.output:
        return node
    axis = len(layer.shape) - 1 if isinstance(layer.op, Linear) else 1
    bias = _as_vector(node.op.shift, layer.shape, axis)
    if bias is None:
        return node
    return replace(node, op=replace(layer.op, bias=bias), inputs=layer.inputs, origin=layer.origin)


def _as_vector(shift: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """`shift` as a vector over `axis`, if that is all it varies along."""
    padded = shift.reshape(*(1,) * (len(shape) - shift.dim()), *shift.shape)
    if any(size != 1 for place, size in enumerate(padded.shape) if place != axis and shape[place] != 1):
        return None
    return padded.reshape(-1).expand(shape[axis]).contiguous()
