"""The bound that multipliers of a linear program's rows prove, in floating point with every rounding accounted for.

For any multipliers m, every feasible v has  cost . v >= sum_i m_i (low_i if m_i > 0 else high_i) + (cost - m A) . v,
and the last term is at least its minimum over the columns' box (Neumaier, Shcherbina 2004, Safe bounds in linear and
mixed-integer programming). Nothing is asked of the multipliers, so a solver's tolerances do no harm.
"""

from __future__ import annotations

import numpy as np

from verifier.backends.protocol import LinearProgram

UNIT = float(np.finfo(np.float64).eps) / 2
TINY = float(np.finfo(np.float64).tiny)
SAFETY = 1.01  # covers the rounding of the error's own arithmetic


def certain_bound(program: LinearProgram, multipliers: np.ndarray, costless: bool = False) -> float:
    """At most the least cost, or with `costless` at most 0 unless the program is infeasible. Not a number proves
    nothing."""
    cost = np.zeros_like(program.cost) if costless else program.cost
    ends = np.where(multipliers > 0, program.low, program.high)
    used = np.isfinite(ends) & np.isfinite(multipliers) & (multipliers != 0)
    matrix, weights = program.matrix[used], multipliers[used]  # most rows are slack
    rows, columns = matrix.shape
    gains = weights * ends[used]
    rest = cost - weights @ matrix
    largest = np.maximum(np.abs(program.lower), np.abs(program.upper))
    rest_error = gamma(rows + 3) * (np.abs(cost) + np.abs(weights) @ np.abs(matrix))
    minima = np.minimum(rest * program.lower, rest * program.upper)
    size = np.abs(gains).sum() + np.abs(rest) @ largest
    error = gamma(rows + columns + 4) * size + rest_error @ largest + TINY * (rows + 2) * (columns + largest.sum() + 2)
    return float(gains.sum() + minima.sum() - SAFETY * error)


def gamma(count: int) -> float:
    """Relative error of a sum of `count` products in double precision, in any order (Higham, lemma 3.1)."""
    return count * UNIT / (1 - count * UNIT)
