"""Einsum: diagonals and sums of single factors, then products of two at a time, as products of matrices."""

from __future__ import annotations

from collections import Counter

import numpy as np

from verifier.errors import ModelError
from verifier.frontend.onnx_ops.dense import matmul_values
from verifier.frontend.onnx_ops.lowering import move, permute, reshape
from verifier.frontend.onnx_ops.reductions import add_up
from verifier.frontend.onnx_ops.registry import Call, operator
from verifier.frontend.onnx_ops.values import Known, Value, Variable

SPARE = [chr(code) for code in range(0x100, 0x140)]  # letters for the axes of an ellipsis
Factor = tuple[Value, str]
"""A tensor and the letters of its axes."""


@operator("Einsum", since=12)
def einsum(call: Call) -> Value:
    values = [call.value(index) for index in range(len(call.inputs))]
    terms, output = _letters(call.attribute("equation", ""), [len(value.shape) for value in values])
    factors = [_diagonal(call, value, term) for value, term in zip(values, terms, strict=True)]
    factors = [_summed(call, f, output + "".join(t for _, t in factors[:i] + factors[i + 1 :]))
               for i, f in enumerate(factors)]  # fmt: skip
    while len(factors) > 1:
        kept = output + "".join(term for _, term in factors[2:])
        factors = [_product(call, factors[0], factors[1], kept), *factors[2:]]
    value, term = factors[0]
    return _arranged(call, value, [term.index(letter) for letter in output], [])


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each input and of the output, one for each axis."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ModelError(f"its equation '{equation}' does not fit {len(ranks)} inputs")
    missing = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    wide = "".join(SPARE[: max((n for n, term in zip(missing, terms, strict=True) if "..." in term), default=0)])
    full = [term.replace("...", wide[len(wide) - n :]) for n, term in zip(missing, terms, strict=True)]
    if [len(term) for term in full] != ranks:
        raise ModelError(f"its equation '{equation}' does not fit inputs with {ranks} axes")
    if not arrow:
        once = sorted(letter for letter, count in Counter("".join(terms).replace(".", "")).items() if count == 1)
        return full, wide + "".join(once)
    return full, output.replace("...", wide)


def _diagonal(call: Call, value: Value, term: str) -> Factor:
    """Where a letter stands twice, the elements whose positions on both axes agree."""
    unique = "".join(dict.fromkeys(term))
    if unique == term:
        return value, term
    axes, kept = [unique.index(letter) for letter in term], list(range(len(unique)))
    return move(call, value, lambda array: np.einsum(array, axes, kept)), unique


def _summed(call: Call, factor: Factor, wanted: str) -> Factor:
    """Without the axes that nothing else names."""
    value, term = factor
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in wanted)
    if not axes:
        return factor
    rest = "".join(letter for letter in term if letter in wanted)
    if isinstance(value, Known):
        return Known(value.array.sum(axes), value.dtype), rest
    sizes = [size for axis, size in enumerate(value.shape) if axis not in axes]
    return reshape(call, add_up(call, value, axes), sizes), rest


def _product(call: Call, left: Factor, right: Factor, wanted: str) -> Factor:
    """Sums over the letters that both have and that are not `wanted`."""
    (first, a), (second, b) = left, right
    batch, inner = ([x for x in a if x in b and (x in wanted) == keep] for keep in (True, False))
    rows, columns = [x for x in a if x not in b], [x for x in b if x not in a]
    sizes = dict(zip(a + b, first.shape + second.shape, strict=True))
    laid = [
        _arranged(call, value, [term.index(x) for group in groups for x in group], _sizes(sizes, groups, len(batch)))
        for value, term, groups in ((first, a, (batch, rows, inner)), (second, b, (batch, inner, columns)))
    ]
    letters = "".join(batch + rows + columns)
    shape = [sizes[x] for x in letters]
    if isinstance(laid[0], Known) and isinstance(laid[1], Known):
        return Known((laid[0].array @ laid[1].array).reshape(shape), first.dtype), letters
    return reshape(call, matmul_values(call, *laid), shape), letters


def _sizes(sizes: dict[str, int], groups: tuple[list[str], ...], batch: int) -> list[int]:
    """The shape `[*batch, m, n]`: the first group axis by axis, each other one as a single axis."""
    merged = [int(np.prod([sizes[x] for x in group], dtype=np.int64)) for group in groups[1:]]
    return [sizes[x] for x in groups[0][:batch]] + merged


def _arranged(call: Call, value: Value, axes: list[int], shape: list[int]) -> Value:
    """The axes in another order, then `shape` if there is one."""
    if isinstance(value, Known):
        array = value.array.transpose(axes)
        return Known(array.reshape(shape) if shape else array, value.dtype)
    moved: Variable = permute(call, value, axes)
    return reshape(call, moved, shape) if shape else moved
