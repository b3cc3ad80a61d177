"""Attention: scores of queries and keys, their softmax, and the values mixed by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verifier.errors import UnsupportedError
from verifier.frontend.onnx_ops.dense import matmul_values
from verifier.frontend.onnx_ops.lowering import broadcast, move, permute, reshape, scale
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.selection import shares
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Add, Tanh


@operator("Attention", since=23)
def attention(call: Call) -> Value:
    """Queries, keys, values `[batch, heads, places, size]`, or `[batch, places, heads * size]` with the numbers of
    heads as attributes. Several heads of queries may share one of the keys and values."""
    _check(call)
    flat = len(call.value(0).shape) == 3
    count = call.attribute("q_num_heads", 0) if flat else call.value(0).shape[1]
    query = _by_heads(call, 0, "q_num_heads")
    key, value = (_repeated(call, _by_heads(call, index, "kv_num_heads"), count) for index in (1, 2))
    scores = scale(call, matmul_values(call, query, _moved(call, key, (0, 1, 3, 2))), _factor(call, query))
    if cap := call.attribute("softcap", 0.0):
        scores = scale(call, call.emit(Tanh(), scale(call, scores, 1 / cap)), cap)
    if call.has(3):
        scores = _masked(call, scores, call.value(3))
    mixed = matmul_values(call, shares(call, scores, 3, logarithm=False), value)
    if not flat:
        return mixed
    batch, heads, places, size = mixed.shape
    return reshape(call, permute(call, mixed, (0, 2, 1, 3)), (batch, places, heads * size))


def _check(call: Call) -> None:
    if call.has(4) or call.has(5) or len(call.node.output) > 1:
        raise UnsupportedError("keys and values of earlier calls are not supported")
    if call.attribute("is_causal", 0) or (call.has(3) and call.value(3).dtype.kind == "b"):
        raise UnsupportedError("masks that leave places out are not supported")


def _by_heads(call: Call, index: int, attribute: str) -> Value:
    """`[batch, heads, places, size]`."""
    given = call.value(index)
    if len(given.shape) == 4:
        return given
    batch, places, width = given.shape
    heads = call.attribute(attribute, 1)
    shape = (batch, places, heads, width // heads)
    return _moved(call, move(call, given, lambda array: array.reshape(shape)), (0, 2, 1, 3))


def _moved(call: Call, value: Value, axes: Sequence[int]) -> Value:
    if isinstance(value, Known):
        return Known(value.array.transpose(axes), value.dtype)
    return permute(call, value, axes)


def _repeated(call: Call, value: Value, heads: int) -> Value:
    return move(call, value, lambda array: np.repeat(array, heads // array.shape[1], 1))


def _factor(call: Call, query: Value) -> float:
    return float(call.attribute("scale", query.shape[-1] ** -0.5))


def _masked(call: Call, scores: Variable, mask: Value) -> Variable:
    """A mask of numbers is added."""
    if isinstance(mask, Known):
        return scale(call, scores, None, mask.array)
    return call.emit(Add((1, 1)), scores, broadcast(call, mask, scores.shape))
