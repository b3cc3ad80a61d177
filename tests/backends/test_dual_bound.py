"""What multipliers prove holds in exact arithmetic, whatever they are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from verifier.backends.dual_bound import certain_bound
from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import LinearProgram, LpStatus


def random_program(seed: int, scale: float = 1.0) -> tuple[LinearProgram, np.ndarray]:
    """A program and a point of it, all rows near to it."""
    generator = np.random.default_rng(seed)
    rows, columns = int(generator.integers(1, 12)), int(generator.integers(1, 12))
    matrix = generator.normal(size=(rows, columns)) * scale ** generator.uniform(-1, 1, (rows, columns))
    lower = generator.normal(size=columns)
    upper = lower + generator.exponential(size=columns) * generator.integers(0, 2, columns)
    point = np.clip(generator.uniform(lower, upper), lower, upper)
    value = np.array([float(exact(row, point)) for row in matrix])
    gap = generator.exponential(size=(2, rows)) * generator.integers(0, 2, (2, rows)) + 1e-9 * np.abs(value)
    low = np.where(generator.random(rows) < 0.3, -np.inf, value - gap[0])
    high = np.where(generator.random(rows) < 0.3, np.inf, value + gap[1])
    return LinearProgram(generator.normal(size=columns), matrix, low, high, lower, upper), point


def exact(row: np.ndarray, point: np.ndarray) -> Fraction:
    return sum((Fraction(a) * Fraction(v) for a, v in zip(row.tolist(), point.tolist(), strict=True)), Fraction(0))


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_no_multipliers_prove_more_than_holds(scale: float) -> None:
    for seed in range(100):
        program, point = random_program(seed, scale)
        generator = np.random.default_rng(seed)
        for size in (0.0, 1.0, 1e8):
            multipliers = generator.normal(size=len(program.low)) * size
            assert Fraction(certain_bound(program, multipliers)) <= exact(program.cost, point)
            assert certain_bound(program, multipliers, costless=True) <= 0


def test_the_best_multipliers_prove_nearly_all() -> None:
    for seed in range(60):
        program, _ = random_program(seed)
        result = HighsSolver(program).minimise(float("inf"), 10.0)
        assert result.status is LpStatus.OPTIMAL
        assert certain_bound(program, result.multipliers) == pytest.approx(result.value, abs=1e-5)


def test_a_ray_proves_that_nothing_is_feasible() -> None:
    for seed in range(60):
        program, _ = random_program(seed)
        least = np.minimum(program.matrix[0] * program.lower, program.matrix[0] * program.upper).sum()
        high = program.high.copy()
        high[0] = least - 0.01 * (1 + abs(least))
        program = LinearProgram(
            program.cost, program.matrix, np.full_like(high, -np.inf), high, program.lower, program.upper
        )
        result = HighsSolver(program).minimise(float("inf"), 10.0)
        assert result.status is LpStatus.INFEASIBLE
        assert certain_bound(program, result.multipliers, costless=True) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_multipliers_that_are_no_numbers_count_for_nothing(value: float) -> None:
    program, point = random_program(5)
    bound = certain_bound(program, np.full(len(program.low), value))
    assert not bound > exact(program.cost, point)
