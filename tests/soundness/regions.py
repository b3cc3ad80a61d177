"""An independent decision procedure for tiny ReLU networks: every activation region, one linear program each."""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

Conjunction = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows `c . y + d . x <= b`: `c` `[rows, outputs]`, `d` `[rows, inputs]`, `b` `[rows]`."""


@dataclass(frozen=True)
class Layers:
    """`weights[k]` `[out, in]`, `biases[k]` `[out]`; a Relu after each but the last."""

    weights: list[np.ndarray]
    biases: list[np.ndarray]

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight.T + bias, 0)
        return x @ self.weights[-1].T + self.biases[-1]


def least_margin(layers: Layers, lower: np.ndarray, upper: np.ndarray, disjuncts: list[Conjunction]) -> float:
    """min over x in the box and over disjuncts of max over rows of `c . y + d . x - b`: at most 0 iff x violates."""
    best = np.inf
    for rows, limits, weight, bias in _regions(layers, lower, upper):
        for c, d, b in disjuncts:
            # over (x, t): least t with  (c W + d) x - t <= b - c bias
            slope = np.hstack([c @ weight + d, -np.ones((len(b), 1))])
            region = np.hstack([rows, np.zeros((len(rows), 1))])
            value = _solve(np.vstack([region, slope]), np.concatenate([limits, b - c @ bias]), lower, upper)
            best = min(best, value)
    return best


def _regions(
    layers: Layers, lower: np.ndarray, upper: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """For each activation pattern that occurs (boundaries may occur twice): `rows x <= limits` and the output's map."""
    size = len(lower)
    found = [(np.zeros((0, size)), np.zeros(0), np.eye(size), np.zeros(size))]
    for weight, bias in zip(layers.weights[:-1], layers.biases[:-1], strict=True):
        grown = []
        for rows, limits, so_far, offset in found:
            z, z0 = weight @ so_far, weight @ offset + bias
            patterns = [(rows, limits, np.zeros(0))]
            for neuron in range(len(bias)):
                split = []
                for r, limit, signs in patterns:
                    for sign in (0.0, 1.0):  # off: z x + z0 <= 0, on: >= 0
                        side = 1 - 2 * sign
                        r2, l2 = np.vstack([r, side * z[neuron]]), np.append(limit, -side * z0[neuron])
                        if (
                            _solve(np.hstack([r2, np.zeros((len(r2), 1))]), l2, lower, upper, feasible_only=True)
                            < np.inf
                        ):
                            split.append((r2, l2, np.append(signs, sign)))
                patterns = split
            grown += [(r, limit, signs[:, None] * z, signs * z0) for r, limit, signs in patterns]
        found = grown
    last, constant = layers.weights[-1], layers.biases[-1]
    return [(rows, limits, last @ so_far, last @ offset + constant) for rows, limits, so_far, offset in found]


def _solve(
    matrix: np.ndarray, limits: np.ndarray, lower: np.ndarray, upper: np.ndarray, feasible_only: bool = False
) -> float:
    """Least last variable with `matrix v <= limits`, the others in the box; infinite where there is none."""
    rows, columns = matrix.shape
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = columns, rows
    model.col_cost_ = np.zeros(columns) if feasible_only else np.eye(columns)[-1]
    model.col_lower_ = np.append(lower, 0.0 if feasible_only else -1e6)
    model.col_upper_ = np.append(upper, 0.0 if feasible_only else 1e6)
    model.row_lower_, model.row_upper_ = np.full(rows, -highspy.kHighsInf), limits
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.arange(rows + 1, dtype=np.int32) * columns
    model.a_matrix_.index_ = np.tile(np.arange(columns, dtype=np.int32), rows)
    model.a_matrix_.value_ = matrix.ravel()
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("presolve", "off")
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        assert solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible, solver.getModelStatus()
        return np.inf
    return float(solver.getInfo().objective_function_value)
