"""Traps other verifiers fell into: bounds that are no numbers, ties, empty and point boxes, stuck leaves, pools."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.frontend.onnx_models import load_nodes, node
from tests.soundness.exact import fractions
from verifier.bounding.backward import LinearForm
from verifier.bounding.engine import METHODS, Effort, output_interval
from verifier.bounding.program import prepare
from verifier.core.events import Event, Notice
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.problem import build_problem
from verifier.core.query import Query
from verifier.core.verdict import Status, Verdict
from verifier.frontend.network import Network
from verifier.frontend.vnnlib import parse_property
from verifier.ops import Linear, Relu
from verifier.pipeline import bounds, verify
from verifier.search.rows import Rows, clip, combine, refuted
from verifier.settings import AttackSettings, Settings

SETTINGS = Settings(timeout=20.0, device="cpu", attack=AttackSettings(restarts=8, steps=20, seconds=1.0))
SHORT = Settings(timeout=1.0, device="cpu", attack=AttackSettings(restarts=4, steps=5, seconds=0.2))
FLOAT64 = torch.float64


def ask(inputs: int, outputs: int, body: str) -> Query:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{j}" for j in range(outputs)]
    return parse_property("".join(f"(declare-const {name} Real)" for name in names) + body, "test")


def box(*ends: tuple[str, str]) -> str:
    return "".join(f"(assert (and (>= X_{i} {low}) (<= X_{i} {high})))" for i, (low, high) in enumerate(ends))


def answer(network: Network, body: str, outputs: int = 1) -> Verdict:
    return verify(network, ask(network.graph.nodes[0].size, outputs, body), SETTINGS)


def dense(folder: Path, *layers: list[list[float]]) -> Network:
    """Weights `[out][in]`, a Relu after each layer but the last."""
    nodes, constants, last = [], {}, "x"
    for place, weight in enumerate(layers):
        constants[f"w{place}"] = np.array(weight, dtype=np.float32)
        final = place == len(layers) - 1
        nodes.append(node("Gemm", (last, f"w{place}"), ("y" if final else f"z{place}",), transB=1))
        if not final:
            nodes.append(node("Relu", (f"z{place}",), (f"a{place}",)))
            last = f"a{place}"
    return load_nodes(folder, nodes, [1, len(layers[0][0])], constants=constants)


# --- numbers that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 0.0, -1.0])
def test_only_a_finite_positive_bound_refutes(value: float) -> None:
    closed, best = refuted(torch.tensor([[value, -5.0]]), torch.tensor([[0, 1]]), 2)
    assert not closed.any() and not best.isnan().any()
    closed, _ = refuted(torch.tensor([[value, 1.0]]), torch.tensor([[0, 1]]), 2)
    assert closed.tolist() == [[False, True]]


def test_padding_refutes_nothing() -> None:
    closed, _ = refuted(torch.tensor([[-1.0, 7.0]]), torch.tensor([[0, -1]]), 2)
    assert not closed.any()


@pytest.mark.parametrize("constant", [float("nan"), float("inf"), -float("inf")])
def test_a_form_that_is_no_number_neither_clips_nor_combines(constant: float) -> None:
    form = LinearForm(torch.ones(1, 2, 2), torch.tensor([[constant, -3.0]]), torch.zeros(1, 2))
    area = Interval(-torch.ones(1, 2), torch.ones(1, 2))
    owner = torch.zeros(1, 2, dtype=torch.long)
    clipped = clip(form, area, rows_of(owner), torch.ones(1, 1, dtype=torch.bool))
    assert (clipped.lower <= area.lower).all() and (clipped.upper >= area.upper).all()
    joint = combine(form, area, owner)
    assert not bool((joint.isfinite() & (joint > 0)).any())


@pytest.mark.parametrize("row", ["(>= Y_0 1.0)", "(<= Y_0 -1.0)", "(>= Y_0 1e46)", "(<= Y_0 -1e46)"])
def test_overflow_is_not_proof(row: str, tmp_path: Path) -> None:
    """In float32 the bounds are infinite or no numbers; the real function violates the property."""
    network = dense(tmp_path, [[1e25], [-1e25]], [[1e25, -1e25]])
    query = ask(1, 1, box(("-1e-3", "1e-3")) + f"(assert {row})")
    assert verify(network, query, SHORT).status is not Status.UNSAT


def two_layers(first: list[float], second: list[float]) -> Graph:
    """second . relu(first * x)"""
    nodes = (
        Node("x", Input(), (), (1, 1)),
        Node("z", Linear(torch.tensor(first, dtype=FLOAT64).unsqueeze(1)), (0,), (1, len(first))),
        Node("a", Relu(), (1,), (1, len(first))),
        Node("y", Linear(torch.tensor([second], dtype=FLOAT64)), (2,), (1, 1)),
    )
    return Graph(nodes, 3)


@pytest.mark.parametrize("method", METHODS)
def test_coefficients_that_overflow_bound_nothing(method: str) -> None:
    graph = two_layers([1e25, -1e25], [1e25, -1e25])
    area = Interval(-torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    result = output_interval(prepare(graph, torch.float32), area, method, Effort())
    assert not (result.lower > -torch.inf).any() and not (result.upper < torch.inf).any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("method", ["interval", "forward", "crown"])
def test_values_that_overflow_have_infinite_bounds(method: str, sign: float) -> None:
    """y goes to +-1e40, beyond the largest float: no float is a bound on that side."""
    area = Interval(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1e4))
    result = output_interval(prepare(two_layers([1e18], [sign * 1e18]), torch.float32), area, method, Effort())
    if sign > 0:
        assert not (result.upper < torch.inf).any()
    else:
        assert not (result.lower > -torch.inf).any()


# --- clipping and combining rows


def rows_of(owner: Tensor) -> Rows:
    return Rows(torch.zeros_like(owner), owner, torch.empty(0), None, torch.empty(0))


def has_rows(owner: Tensor) -> Tensor:
    return torch.stack([(owner == disjunct).any(1) for disjunct in (0, 1)], 1)


def random_forms(seed: int) -> tuple[LinearForm, Interval, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count, rows, size = 40, 4, 3
    center = torch.randn(count, size, generator=generator) * 10.0 ** torch.randint(
        -3, 4, (count, 1), generator=generator
    )
    width = torch.rand(count, size, generator=generator) * (torch.rand(count, size, generator=generator) < 0.8)
    lower, upper = center, center + width * center.abs()
    a = torch.randn(count, rows, size, generator=generator)
    a = a * (torch.rand(count, rows, size, generator=generator) < 0.8)
    inner = lower + (upper - lower) * torch.rand(count, size, generator=generator)
    bias = -(a * inner.unsqueeze(1)).sum(2) + 0.1 * torch.randn(count, rows, generator=generator) * center.abs().amax(
        1, True
    )
    owner = torch.randint(-1, 2, (count, rows), generator=generator).sort(1, descending=True).values
    return LinearForm(a, bias, bias.abs() * 1e-6), Interval(lower, upper), owner


@pytest.mark.parametrize("seed", range(3))
def test_clipping_is_outward(seed: int) -> None:
    """No point where every row of some disjunct may be violated is cut off; and something is cut off somewhere."""
    form, area, owner = random_forms(seed)
    clipped = clip(form, area, rows_of(owner), has_rows(owner))
    generator, kept = np.random.default_rng(seed), 0
    for place in range(len(owner)):
        low, high = fractions(area.lower[place]), fractions(area.upper[place])
        new_low, new_high = (
            fractions(clipped.lower[place].clamp(-1e30, 1e30)),
            fractions(clipped.upper[place].clamp(-1e30, 1e30)),
        )
        for _ in range(40):
            x = [
                a + (b - a) * Fraction(int(k), 32)
                for a, b, k in zip(low, high, generator.integers(0, 33, 3), strict=True)
            ]
            if any(violated_rows(form, place, owner, disjunct, x) for disjunct in (0, 1)):
                kept += 1
                assert all(a <= v <= b for a, v, b in zip(new_low, x, new_high, strict=True)), (place, [*map(float, x)])
    assert kept > 50
    assert (clipped.lower > area.lower).any() and (clipped.upper < area.upper).any()


def test_an_open_disjunct_without_rows_keeps_the_box() -> None:
    form, area, owner = random_forms(5)
    whole = clip(form, area, rows_of(owner.clamp(max=0)), torch.ones(len(owner), 2, dtype=torch.bool))
    assert (whole.lower <= area.lower).all() and (whole.upper >= area.upper).all()


def violated_rows(form: LinearForm, place: int, owner: Tensor, disjunct: int, x: list[Fraction]) -> bool:
    rows = [r for r in range(owner.shape[1]) if int(owner[place, r]) == disjunct]
    return bool(rows) and all(value_of(form, place, r, x) <= 0 for r in rows)


def value_of(form: LinearForm, place: int, row: int, x: list[Fraction]) -> Fraction:
    constant = Fraction(float(form.bias[place, row])) - Fraction(float(form.debt[place, row]))
    return sum((a * v for a, v in zip(fractions(form.coefficients[place, row]), x, strict=True)), constant)


@pytest.mark.parametrize("seed", range(3))
def test_combined_rows_are_bounded_below(seed: int) -> None:
    """At each point some row of the disjunct is at least the joint bound."""
    form, area, owner = random_forms(seed)
    joint = combine(form, area, owner)
    generator = np.random.default_rng(seed)
    for place in range(len(owner)):
        low, high = fractions(area.lower[place]), fractions(area.upper[place])
        for _ in range(20):
            x = [
                a + (b - a) * Fraction(int(k), 4)
                for a, b, k in zip(low, high, generator.integers(0, 5, 3), strict=True)
            ]
            for disjunct in (0, 1):
                rows = [r for r in range(owner.shape[1]) if int(owner[place, r]) == disjunct]
                if rows:
                    best = max(value_of(form, place, r, x) for r in rows)
                    assert all(Fraction(float(joint[place, r])) <= best for r in rows)


# --- boxes


def test_literals_are_rounded_outward_once() -> None:
    query = ask(2, 1, box(("0.1", "0.1"), ("0.1", "0.3")) + "(assert (>= Y_0 0.7))")
    for dtype in (torch.float32, torch.float64):
        problem = build_problem(query, dtype, "cpu")
        lower, upper = fractions(problem.box.lower[0]), fractions(problem.box.upper[0])
        assert lower[0] < Fraction(1, 10) < upper[0] and lower[1] < Fraction(1, 10) and upper[1] > Fraction(3, 10)
        assert Fraction(float(problem.offset[0, 0])) <= Fraction(7, 10)


def test_a_coefficient_that_is_no_float_is_declared_so() -> None:
    assert build_problem(ask(1, 1, box(("0", "1")) + "(assert (>= (* 0.5 Y_0) 1))"), torch.float32, "cpu").exact
    assert not build_problem(ask(1, 1, box(("0", "1")) + "(assert (>= (* 0.1 Y_0) 1))"), torch.float32, "cpu").exact


@pytest.mark.parametrize(
    "ends", [("-0.0", "0.0"), ("0.5", "0.5"), ("1e-45", "1e-45"), ("-1e-40", "1e-42"), ("1e6", "1e6")]
)
def test_point_and_denormal_boxes(ends: tuple[str, str], tmp_path: Path) -> None:
    """y = |x|: below 0 never, and at the upper end of its range always."""
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0]])
    assert answer(network, box(ends) + "(assert (<= Y_0 -1e-3))").status is Status.UNSAT
    assert answer(network, box(ends) + f"(assert (>= Y_0 {float(ends[1]) + 1}))").status is Status.UNSAT
    assert answer(network, box(ends) + f"(assert (<= Y_0 {abs(float(ends[1])) + 1}))").status is Status.SAT
    for method in METHODS:
        ((lower, upper),) = bounds(network, ask(1, 1, box(ends) + "(assert (<= Y_0 0))"), method, SETTINGS)
        assert lower.item() <= max(map(abs, map(float, ends))) <= upper.item()


def test_one_input_fixed_the_other_free(tmp_path: Path) -> None:
    network = dense(tmp_path, [[1.0, 1.0], [-1.0, -1.0]], [[1.0, 1.0]])
    assert answer(network, box(("0.5", "0.5"), ("-0.25", "1")) + "(assert (<= Y_0 0.2))").status is Status.UNSAT
    assert answer(network, box(("0.5", "0.5"), ("-0.25", "1")) + "(assert (<= Y_0 0.25))").status is Status.SAT


@pytest.mark.parametrize("body", ["(assert (>= X_0 1))(assert (<= X_0 0))", "(assert (> X_0 1))(assert (<= X_0 1))"])
def test_an_empty_box_is_loud(body: str, tmp_path: Path) -> None:
    network, events = dense(tmp_path, [[1.0]]), list[Event]()
    query = ask(1, 1, body + "(assert (<= Y_0 7))")
    verdict = verify(network, query, SETTINGS, events.append)
    assert verdict.status is Status.UNSAT and verdict.witness is None
    assert any(isinstance(event, Notice) and event.loud for event in events)


def test_an_empty_disjunct_does_not_hide_another(tmp_path: Path) -> None:
    network = dense(tmp_path, [[1.0]])
    empty = "(and (>= X_0 1) (<= X_0 0) (<= Y_0 7))"
    full = "(and (>= X_0 0) (<= X_0 1) (>= Y_0 {}))"
    assert answer(network, f"(assert (or {empty} {full.format(0.5)}))").status is Status.SAT
    assert answer(network, f"(assert (or {empty} {full.format(1.5)}))").status is Status.UNSAT


# --- rows


@pytest.mark.parametrize(
    "row, status", [("(<= Y_0 5)", Status.SAT), ("(>= Y_0 5)", Status.UNSAT), ("(<= Y_0 -5)", Status.UNSAT)]
)
def test_rows_are_compared_with_their_right_hand_side(row: str, status: Status, tmp_path: Path) -> None:
    assert answer(dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0]]), box(("-4", "4")) + f"(assert {row})").status is status


def test_a_tie_violates_unless_strict(tmp_path: Path) -> None:
    """Two outputs that are always equal: Y_0 >= Y_1 holds everywhere, Y_0 > Y_1 nowhere, but no closure proves it."""
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0], [1.0, 1.0]])
    assert answer(network, box(("-1", "1")) + "(assert (>= Y_1 Y_0))", 2).status is Status.SAT
    strict = verify(network, ask(1, 2, box(("0.5", "0.5")) + "(assert (> Y_1 Y_0))"), SHORT)
    assert strict.status in (Status.UNKNOWN, Status.TIMEOUT, Status.UNSAT) and strict.witness is None


def test_a_tie_between_a_proof_and_a_violation(tmp_path: Path) -> None:
    """The violation is the single point x = 0, where y is 0."""
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0]])
    assert answer(network, box(("-1", "1")) + "(assert (<= Y_0 0))").status is not Status.UNSAT
    assert answer(network, box(("-1", "1")) + "(assert (<= Y_0 -0.0001))").status is Status.UNSAT


def test_a_network_that_ignores_its_input(tmp_path: Path) -> None:
    network = dense(tmp_path, [[0.0, 0.0]], [[1.0]])
    ends = box(("-1", "1"), ("0", "2"))
    assert answer(network, ends + "(assert (>= Y_0 0.1))").status is Status.UNSAT
    assert answer(network, ends + "(assert (>= Y_0 0))").status is Status.SAT


def test_terms_in_the_input(tmp_path: Path) -> None:
    """y = |x|, so y - x >= 0, and it is 0 for each x >= 0."""
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0]])
    assert answer(network, box(("-1", "1")) + "(assert (<= (- Y_0 X_0) -0.01))").status is Status.UNSAT
    assert answer(network, box(("-1", "1")) + "(assert (<= (- Y_0 X_0) 0.01))").status is Status.SAT
    assert answer(network, box(("-1", "-0.5")) + "(assert (<= (- Y_0 X_0) 0.99))").status is Status.UNSAT


# --- the search


STUCK = "(and (>= X_0 0.5) (<= X_0 0.5) (> Y_1 Y_0))"  # never holds, and its closure always does
HARD = "(and (>= X_0 -1) (<= X_0 1) (<= (- Y_0 X_0) -0.01) (<= Y_1 100))"


@pytest.mark.parametrize("order", [(STUCK, HARD), (HARD, STUCK)], ids=["stuck first", "stuck last"])
def test_one_stuck_leaf_does_not_end_the_search(order: tuple[str, str], tmp_path: Path) -> None:
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0], [1.0, 1.0]])
    verdict = answer(network, f"(assert (or {' '.join(order)}))", 2)
    assert verdict.status is Status.UNKNOWN
    assert verdict.proved is not None and verdict.proved >= 0.5
    assert verdict.statistics["stuck"] == 1 and verdict.statistics["open"] == 0


@pytest.mark.parametrize("first", [True, False])
def test_a_stuck_leaf_does_not_hide_a_violation(first: bool, tmp_path: Path) -> None:
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0], [1.0, 1.0]])
    real = "(and (>= X_0 -1) (<= X_0 1) (>= Y_0 0.99))"
    parts = (STUCK, real) if first else (real, STUCK)
    assert answer(network, f"(assert (or {' '.join(parts)}))", 2).status is Status.SAT


def test_time_running_out_proves_nothing(tmp_path: Path) -> None:
    network = dense(tmp_path, [[1.0], [-1.0]], [[1.0, 1.0], [1.0, 1.0]])
    hopeless = box(("-1", "1")) + "(assert (> Y_1 Y_0))"
    verdict = verify(network, ask(1, 2, hopeless), SETTINGS, timeout=0.5)
    assert verdict.status in (Status.TIMEOUT, Status.UNKNOWN) and verdict.witness is None
    assert verdict.proved is None or verdict.proved < 1


# --- pooling


def test_max_pool_with_overlapping_windows(tmp_path: Path) -> None:
    """The middle input is in both windows: if it is large, so are both outputs."""
    network = load_nodes(tmp_path, [node("MaxPool", kernel_shape=[3], strides=[2])], [1, 1, 5])
    ends = box(("0", "1"), ("0", "1"), ("2", "3"), ("0", "1"), ("0", "1"))
    for output in ("Y_0", "Y_1"):
        assert answer(network, ends + f"(assert (<= {output} 1.99))", 2).status is Status.UNSAT
        assert answer(network, ends + f"(assert (<= {output} 2.01))", 2).status is Status.SAT
    assert answer(network, ends + "(assert (<= Y_0 (- Y_1 0.1)))", 2).status is not Status.SAT
    for method in METHODS:
        ((lower, upper),) = bounds(network, ask(5, 2, ends + "(assert (<= Y_0 0))"), method, SETTINGS)
        assert (lower <= 2).all() and (upper >= 3).all() and (upper < 3.5).all() and (lower > 1.5).all()


def test_max_pool_does_not_see_its_padding(tmp_path: Path) -> None:
    """Padding is minus infinity, not 0: negative inputs have negative maxima."""
    network = load_nodes(tmp_path, [node("MaxPool", kernel_shape=[2], strides=[2], pads=[1, 1])], [1, 1, 2])
    assert answer(network, box(("-3", "-2"), ("-3", "-2")) + "(assert (>= Y_0 -1.9))", 2).status is Status.UNSAT
    assert answer(network, box(("-3", "-2"), ("-3", "-2")) + "(assert (>= Y_0 -2.1))", 2).status is Status.SAT


@pytest.mark.parametrize("counted, share", [(0, 1.0), (1, 0.5)])
def test_average_pool_counts_padding_as_it_is_told(counted: int, share: float, tmp_path: Path) -> None:
    pool = node("AveragePool", kernel_shape=[2], strides=[2], pads=[1, 1], count_include_pad=counted)
    network = load_nodes(tmp_path, [pool], [1, 1, 2])
    ends = box(("1", "2"), ("5", "6"))
    assert answer(network, ends + f"(assert (>= Y_0 {2 * share + 0.01}))", 2).status is Status.UNSAT
    assert answer(network, ends + f"(assert (>= Y_0 {2 * share - 0.01}))", 2).status is Status.SAT
    assert answer(network, ends + f"(assert (<= Y_0 {share - 0.01}))", 2).status is Status.UNSAT
