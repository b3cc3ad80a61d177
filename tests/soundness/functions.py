"""Functions of operators in arithmetic of many digits, written from their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath  # type: ignore[import-untyped]

from verifier.core.operator import Op
from verifier.ops import (
    Atan,
    Ceil,
    Cos,
    Elu,
    Erf,
    Exp,
    Floor,
    Gelu,
    HardSwish,
    IsNonzero,
    Log,
    LogRatio,
    LogSumExp,
    Mish,
    Positive,
    Power,
    Reciprocal,
    Round,
    Share,
    Shrink,
    Silu,
    Sin,
    Softplus,
    Softsign,
    Sqrt,
    Tan,
    ThresholdedRelu,
    Truncate,
)

PRECISION = 320  # bits; far below any bound's rounding

Number = Any


def _softplus(x: Number) -> Number:
    return mpmath.log1p(mpmath.exp(x)) if x < 50 else x + mpmath.log1p(mpmath.exp(-x))


def _elu(op: Elu, x: Number) -> Number:
    return op.outer * (x if x > 0 else mpmath.mpf(op.alpha) * mpmath.expm1(x / mpmath.mpf(op.width)))


def _gelu(op: Gelu, x: Number) -> Number:
    if not op.approximate:
        return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x / (1 + mpmath.exp(-2 * inner))


def _shrink(op: Shrink, x: Number) -> Number:
    if abs(x) <= op.threshold:
        return mpmath.mpf(0)
    return x - op.bias if x > 0 else x + op.bias


def _truncate(op: Truncate, x: Number) -> Number:
    return mpmath.floor(x) if x > 0 else mpmath.ceil(x)


def _log_ratio(op: LogRatio, x: Number, y: Number) -> Number:
    if x == 0 or y == 0:
        return mpmath.mpf(760 * ((x > 0) - (y > 0)))
    return min(max(mpmath.mpf(op.exponent) * (mpmath.log(x) - mpmath.log(y)), -760), 760)


FUNCTIONS: dict[type[Op], Callable[..., Number]] = {
    Exp: lambda op, x: mpmath.exp(x),
    Log: lambda op, x: mpmath.log(x),
    Sqrt: lambda op, x: mpmath.sqrt(x),
    Reciprocal: lambda op, x: 1 / x,
    Power: lambda op, x: x ** (int(op.exponent) if op.exponent == int(op.exponent) else mpmath.mpf(op.exponent)),
    Sin: lambda op, x: mpmath.sin(x),
    Cos: lambda op, x: mpmath.cos(x),
    Tan: lambda op, x: mpmath.tan(x),
    Atan: lambda op, x: mpmath.atan(x),
    Erf: lambda op, x: mpmath.erf(x),
    Softplus: lambda op, x: _softplus(x),
    Softsign: lambda op, x: x / (1 + abs(x)),
    Elu: _elu,
    Gelu: _gelu,
    Silu: lambda op, x: x / (1 + mpmath.exp(-x)),
    Mish: lambda op, x: x * mpmath.tanh(_softplus(x)),
    HardSwish: lambda op, x: x * min(max(x / 6 + mpmath.mpf(1) / 2, 0), 1),
    ThresholdedRelu: lambda op, x: x if x > op.threshold else mpmath.mpf(0),
    Shrink: _shrink,
    Floor: lambda op, x: mpmath.floor(x),
    Ceil: lambda op, x: mpmath.ceil(x),
    Round: lambda op, x: mpmath.nint(x),
    Truncate: _truncate,
    IsNonzero: lambda op, x: mpmath.mpf(abs(x) > op.margin),
    Positive: lambda op, x: mpmath.mpf(x > 0 or (x == 0 and not op.strict)),
    LogRatio: _log_ratio,
    Share: lambda op, x, total: mpmath.exp(x),
    LogSumExp: lambda op, *x: max(x) + mpmath.log(sum(mpmath.exp(v - max(x)) for v in x)),
}
