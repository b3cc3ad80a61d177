"""Gemm and MatMul: Linear where one factor is constant."""

from __future__ import annotations

import numpy as np

from verifier.frontend.onnx_ops.lowering import broadcast, permute, positions, reshape, scale, select
from verifier.frontend.onnx_ops.registry import Call, operator, tensor
from verifier.frontend.onnx_ops.values import Known, Value, Variable
from verifier.ops import Add, Conv, Linear, MatMul, Multiply, Sum
from verifier.ops.window import Window

MOST_PRODUCTS = 1 << 22


@operator("Gemm")
def gemm(call: Call) -> Value:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    left, right = (_oriented(call, index, name) for index, name in ((0, "transA"), (1, "transB")))
    extra = call.value(2) if call.has(2) else None
    if isinstance(left, Variable) and isinstance(right, Known):
        if right.array.ndim != 2:
            raise ValueError("the second factor is not a matrix")
        bias = None
        if isinstance(extra, Known) and extra.array.size in (1, right.shape[1]) and extra.shape[:-1] in ((), (1,)):
            bias, extra = tensor(np.broadcast_to(beta * extra.array.reshape(-1), right.shape[1])), None
        product = call.emit(Linear(tensor(alpha * right.array.T), bias), left)
    else:
        product = scaled(call, matmul_values(call, left, right), alpha)
    if extra is None:
        return product
    if isinstance(extra, Known):
        return scale(call, product, None, beta * extra.array)
    return call.emit(Add((1, 1)), product, broadcast(call, scaled(call, extra, beta), product.shape))


def _oriented(call: Call, index: int, name: str) -> Value:
    value = call.value(index)
    if not call.attribute(name, 0):
        return value
    return Known(value.array.T, value.dtype) if isinstance(value, Known) else permute(call, value, (1, 0))


def scaled(call: Call, value: Variable, factor: float) -> Variable:
    return value if factor == 1 else scale(call, value, factor)


@operator("MatMul")
def matmul(call: Call) -> Value:
    return matmul_values(call, call.value(0), call.value(1))


def matmul_values(call: Call, left: Value, right: Value) -> Variable:
    """numpy's matmul of two values, vectors and leading axes included."""
    if not left.shape or not right.shape:
        raise ValueError("a factor is a scalar")
    vector_left, vector_right = len(left.shape) == 1, len(right.shape) == 1
    left = _with_shape(call, left, (1, *left.shape)) if vector_left else left
    right = _with_shape(call, right, (*right.shape, 1)) if vector_right else right
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(f"the inner sizes {left.shape[-1]} and {right.shape[-2]} differ")
    if isinstance(left, Variable) and isinstance(right, Known):
        product = _by_constant(call, left, right.array)
    elif isinstance(left, Known) and isinstance(right, Variable):
        turned = _by_constant(call, _transposed(call, right), np.swapaxes(left.array, -1, -2))
        product = _transposed(call, turned)
    else:
        product = _both(call, call.materialise(left), call.materialise(right))
    shape = list(product.shape)
    if vector_right:
        del shape[-1]
    if vector_left:
        del shape[-1 if vector_right else -2]
    return reshape(call, product, shape)


def _with_shape(call: Call, value: Value, shape: tuple[int, ...]) -> Value:
    return Known(value.array.reshape(shape), value.dtype) if isinstance(value, Known) else reshape(call, value, shape)


def _transposed(call: Call, value: Variable) -> Variable:
    rank = len(value.shape)
    return permute(call, value, (*range(rank - 2), rank - 1, rank - 2))


def _by_constant(call: Call, left: Variable, matrix: np.ndarray) -> Variable:
    """`left` `[*, m, k]` times `matrix` `[*, k, n]`; with several matrices, a convolution with one group for each."""
    leading = np.broadcast_shapes(left.shape[:-2], matrix.shape[:-2])
    rows, inner, columns = *left.shape[-2:], matrix.shape[-1]
    if all(size == 1 for size in matrix.shape[:-2]):
        product = call.emit(Linear(tensor(matrix.reshape(inner, columns).T)), left)
        return reshape(call, product, (*leading, rows, columns))
    groups = int(np.prod(leading, dtype=np.int64))
    stacked = _transposed(call, broadcast(call, left, (*leading, rows, inner)))
    channels = reshape(call, stacked, (1, groups * inner, rows))
    matrices = np.broadcast_to(matrix, (*leading, inner, columns)).reshape(groups, inner, columns)
    weight = tensor(matrices.swapaxes(1, 2).reshape(groups * columns, inner, 1))
    window = Window((rows,), (rows,), (1,), (1,), (1,), (0,), groups)
    product = call.emit(Conv(weight, window), channels, shape=(1, groups * columns, rows))
    return _transposed(call, reshape(call, product, (*leading, columns, rows)))


def _both(call: Call, left: Variable, right: Variable) -> Variable:
    """As products of elements `[*, m, n, k]` and their sums where these are not too many: they have bounds."""
    leading = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    rows, inner, columns = *left.shape[-2:], right.shape[-1]
    product = (*leading, rows, columns, inner)
    if np.prod(product, dtype=np.int64) > MOST_PRODUCTS:
        left = broadcast(call, left, (*leading, rows, inner))
        right = broadcast(call, right, (*leading, inner, columns))
        return call.emit(MatMul(), left, right, shape=product[:-1])
    first = np.broadcast_to(positions(left.shape)[..., :, None, :], product)
    second = np.broadcast_to(np.swapaxes(positions(right.shape), -1, -2)[..., None, :, :], product)
    terms = call.emit(Multiply(), select(call, left, first), select(call, right, second))
    return reshape(call, call.emit(Sum((len(product) - 1,), product), terms), product[:-1])
