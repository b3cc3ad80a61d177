"""Merges and drops operators that only move data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from verifier.core.graph import Graph, Node
from verifier.core.operator import Op
from verifier.frontend.simplify.rewriting import rewrite
from verifier.ops import Add, Concat, Permute, Reshape, Scale, Select


def merge_moves(graph: Graph) -> Graph:
    return rewrite(graph, _merge)


def _merge(nodes: list[Node], node: Node, graph: Graph, position: int) -> Node | int:
    if not node.inputs:
        return node
    source = nodes[node.inputs[0]]
    if _does_nothing(node, source):
        return node.inputs[0]
    merged = _composed(source, node) if len(graph.consumers[graph.nodes[position].inputs[0]]) == 1 else None
    return node if merged is None else replace(node, op=merged, inputs=source.inputs)


def _does_nothing(node: Node, source: Node) -> bool:
    op = node.op
    if node.shape != source.shape:
        return False
    if isinstance(op, (Add, Concat)):
        return len(node.inputs) == 1 and (isinstance(op, Concat) or op.signs == (1,))
    if isinstance(op, Scale):
        return op.scale is None and (op.shift is None or not bool(op.shift.any()))
    if isinstance(op, Permute):
        return list(op.axes) == list(range(len(op.axes)))
    if isinstance(op, Select):
        return torch.equal(op.index.flatten(), torch.arange(op.index.numel(), device=op.index.device))
    return isinstance(op, Reshape)


def _composed(first: Node, second: Node) -> Op | None:
    """One operator for two moves in a row, None where they are not both moves."""
    if not all(isinstance(node.op, (Reshape, Permute, Select)) for node in (first, second)):
        return None
    if isinstance(first.op, Reshape) and isinstance(second.op, Reshape):
        return Reshape(first.op.source, second.op.shape)
    if isinstance(first.op, Permute) and isinstance(second.op, Permute):
        return Permute(tuple(first.op.axes[axis] for axis in second.op.axes))
    if isinstance(first.op, Reshape) and isinstance(second.op, Select):
        return Select(second.op.index, first.op.source)
    if isinstance(first.op, Select):
        return Select(_moved(first.op.index, second.op), first.op.source)
    return None


def _moved(index: Tensor, op: Op) -> Tensor:
    """`index` `[*shape]` as the operator rearranges it."""
    if isinstance(op, Reshape):
        return index.reshape(op.shape)
    if isinstance(op, Permute):
        return index.permute(op.axes).contiguous()
    assert isinstance(op, Select)
    flat = index.flatten()[op.index.clamp(min=0)]
    return torch.where(op.index < 0, op.index, flat)
