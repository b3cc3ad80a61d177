"""Minimum and maximum over boxes: against an enumeration of activation regions, against samples, and on the way."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.frontend.onnx_models import load_nodes, node
from tests.soundness.regions import Layers, least_margin
from tests.soundness.test_enumeration import as_network, random_layers
from verifier import optimisation
from verifier.core.events import Enclosed, Event, Notice
from verifier.core.extremum import Extremum
from verifier.core.query import Box
from verifier.errors import PropertyError, UsageError
from verifier.frontend.network import Network
from verifier.frontend.vnnlib import parse_property
from verifier.optimisation import optimise
from verifier.search import incumbent, strategy
from verifier.settings import AttackSettings, Gap, Settings

FORMS = ("Y_0", "Y_1 - Y_0", "-2*Y_0 + Y_1/3 - 7.25")
VALUES = (((1.0, 0.0), 0.0), ((-1.0, 1.0), 0.0), ((-2.0, 1 / 3), -7.25))
LP_ERROR = 1e-6  # of the enumeration's linear programs
ROUTES = ("inputs", "neurons", "exact", "double")


def settings(gap: Gap) -> Settings:
    attack = AttackSettings(restarts=16, steps=20, seconds=0.3)
    return Settings(timeout=60.0, device="cpu", gap=gap, attack=attack)


def box_of(lower: Sequence[float], upper: Sequence[float]) -> Box:
    return Box(tuple(map(Fraction, lower)), tuple(map(Fraction, upper)))


def random_box(generator: np.random.Generator, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    lower = np.round(generator.uniform(-2, 0, inputs) * 8) / 8
    return lower, lower + np.round(generator.uniform(0, 3, inputs) * 8) / 8


def exact_ends(layers: Layers, lower: np.ndarray, upper: np.ndarray, form: int) -> tuple[float, float]:
    """By enumeration."""
    (c, constant), none = VALUES[form], np.zeros((1, len(lower)))
    least, most = (
        least_margin(layers, lower, upper, [(sign * np.array([c]), none, np.zeros(1))]) for sign in (1.0, -1.0)
    )
    return least + constant, constant - most


def take(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which search has to do it."""
    if route in ("neurons", "exact"):
        monkeypatch.setattr(strategy, "FIRST_SEARCH", 0.0)
    if route == "neurons":
        monkeypatch.setattr(strategy, "MANY_INPUTS", 0)
        monkeypatch.setattr(strategy, "PROMISING", 2.0)
    if route == "exact":
        monkeypatch.setattr(strategy, "SPLIT_SHARE", 0.0)
    if route == "double":
        monkeypatch.setattr(optimisation, "ROUNDED", -1.0)


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the search only the centre of a box is looked at, and nothing better is sought near a point."""
    centre = lambda found, program, problem, *_: found.offer(  # noqa: E731
        problem.box.lower / 2 + problem.box.upper / 2, torch.arange(len(problem.row))
    )
    monkeypatch.setattr(optimisation, "_attack", centre)
    monkeypatch.setattr(incumbent, "POLISHED", 1)


def check(found: Extremum, exact: float, gap: Gap) -> None:
    assert found.lower - LP_ERROR <= exact <= found.upper + LP_ERROR, (found, exact)
    attained = found.upper if found.sense == "min" else found.lower
    assert found.reached and 0 <= found.upper - found.lower <= gap.at(attained)


@pytest.mark.parametrize("attacked", [True, False], ids=["attacked", "blind"])
@pytest.mark.parametrize("route", ROUTES)
def test_against_enumeration(route: str, attacked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without an attack that finds the best points before the search."""
    take(route, monkeypatch)
    if not attacked:
        blind(monkeypatch)
    for seed in range(3):
        generator = np.random.default_rng(50 + seed)
        layers = random_layers(generator)
        network = as_network(layers, tmp_path)
        lower, upper = random_box(generator, network.graph.nodes[0].size)
        form = seed % 3
        exact = exact_ends(layers, lower, upper, form)
        gap = Gap(1e-4, 0.0) if seed % 2 else Gap(0.0, 1e-4)
        for sense, value in zip(("min", "max"), exact, strict=True):
            check(optimise(network, box_of(lower, upper), FORMS[form], sense, settings(gap)), value, gap)


def test_the_routes_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard of the test above."""
    layers = random_layers(np.random.default_rng(3), (3, 10, 2))
    network, box, calls = as_network(layers, tmp_path), box_of([-2] * 3, [2] * 3), []
    for name in ("search_neurons", "decide_exactly"):
        real = getattr(strategy, name)
        monkeypatch.setattr(strategy, name, lambda *a, real=real, name=name: calls.append(name) or real(*a))
    for route, expected in (("neurons", "search_neurons"), ("exact", "decide_exactly")):
        with monkeypatch.context() as patch:
            take(route, patch)
            optimise(network, box, "Y_0 - Y_1", settings=settings(Gap(1e-6, 0.0)))
        assert calls[-1] == expected
        calls.clear()


def test_the_point_is_in_the_box_and_attains_the_value(tmp_path: Path) -> None:
    """In rational arithmetic, over boxes with ends that floating-point numbers do not have; and onnxruntime computes
    what is said."""
    for seed in range(6):
        generator = np.random.default_rng(seed)
        layers = random_layers(generator)
        network = as_network(layers, tmp_path)
        lower = [Fraction(int(tenths), 10) for tenths in generator.integers(-20, 0, network.graph.nodes[0].size)]
        upper = [low + Fraction(1, 10) for low in lower]
        found = optimise(network, Box(tuple(lower), tuple(upper)), FORMS[2], "min", settings(Gap()))
        x = found.x.ravel()
        assert all(low <= Fraction(float(one)) <= high for low, one, high in zip(lower, x, upper, strict=True))
        assert found.x.dtype == np.float32
        value = exact_value(layers, x)
        assert value <= Fraction(found.upper) <= value + Fraction(1, 10**9)
        y = network.run(found.x[None])[0]
        assert (y == found.y).all() and found.value == pytest.approx(float(value), abs=1e-4)


def exact_value(layers: Layers, x: np.ndarray) -> Fraction:
    """Of the last form."""
    values = [Fraction(float(one)) for one in x]
    for place, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        if place:
            values = [max(value, Fraction(0)) for value in values]
        rows = zip(weight.tolist(), bias.tolist(), strict=True)
        values = [sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b)) for row, b in rows]
    return -2 * values[0] + values[1] / 3 - Fraction(29, 4)


def smooth_network(folder: Path) -> Network:
    generator = np.random.default_rng(5)
    constants = {
        "w0": generator.normal(size=(6, 2)).astype(np.float32),
        "b0": generator.normal(size=6).astype(np.float32),
        "w1": generator.normal(size=(2, 6)).astype(np.float32),
    }
    nodes = [
        node("Gemm", ("x", "w0", "b0"), ("z",), transB=1),
        node("Tanh", ("z",), ("a",)),
        node("Gemm", ("a", "w1"), ("y",), transB=1),
    ]
    return load_nodes(folder, nodes, ["n", 2], constants=constants)


def test_against_samples_of_a_smooth_network_over_several_boxes(tmp_path: Path) -> None:
    network, gap = smooth_network(tmp_path), Gap(1e-4, 0.0)
    boxes = [([-1, -1], [-0.5, 1]), ([0, 0], [1, 0.25]), ([2, -1], [3, 0])]
    names = ("X_0", "X_1", "Y_0", "Y_1")
    parts = [
        " ".join(f"(>= X_{i} {low[i]}) (<= X_{i} {high[i]})" for i in range(2)) + " (<= Y_0 9)" for low, high in boxes
    ]
    text = " ".join(f"(declare-const {name} Real)" for name in names)
    query = parse_property(f"{text} (assert (or {' '.join(f'(and {part})' for part in parts)}))", "p")
    grids = [np.stack(np.meshgrid(*np.linspace(low, high, 201).T), -1).reshape(-1, 2) for low, high in boxes]
    y = network.run(np.concatenate(grids).astype(np.float32)).reshape(-1, 2).astype(float)
    values = y[:, 0] - 3 * y[:, 1]
    least, most = (optimise(network, query, "Y_0 - 3*Y_1", sense, settings(gap)) for sense in ("min", "max"))
    rounding = 1e-5  # of onnxruntime
    assert least.reached and least.lower - rounding <= values.min() <= least.upper + 1e-3
    assert least.upper - gap.absolute <= values.min() + rounding
    assert most.reached and most.upper + rounding >= values.max() >= most.lower - 1e-3
    assert most.lower + gap.absolute >= values.max() - rounding
    for x in (least.x.ravel(), most.x.ravel()):
        assert any((np.array(low) <= x).all() and (x <= np.array(high)).all() for low, high in boxes)


def test_a_box_of_zero_width(tmp_path: Path) -> None:
    layers = random_layers(np.random.default_rng(1))
    network = as_network(layers, tmp_path)
    point = np.full(network.graph.nodes[0].size, 0.375)
    for sense in ("min", "max"):
        found = optimise(network, box_of(point, point), FORMS[2], sense, settings(Gap(1e-9, 0.0)))
        assert found.reached and found.x.ravel().tolist() == point.tolist()
        assert Fraction(found.lower) <= exact_value(layers, point) <= Fraction(found.upper)


@pytest.mark.parametrize("sense", ["min", "max"])
def test_what_is_told_on_the_way(sense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends only come nearer, contain the answer at any moment, and are there for whoever interrupts."""
    generator = np.random.default_rng(7)
    layers = random_layers(generator, (3, 8, 2))
    network = as_network(layers, tmp_path)
    lower, upper = np.full(3, -2.0), np.full(3, 2.0)
    exact = exact_ends(layers, lower, upper, 1)[sense == "max"]
    told: list[Extremum] = []

    def listen(event: Event) -> None:
        if isinstance(event, Enclosed):
            told.append(event.extremum)

    blind(monkeypatch)
    chosen = settings(Gap(1e-6, 0.0))
    final = optimise(network, box_of(lower, upper), FORMS[1], sense, chosen, listen)
    assert len(told) >= 4 and told[-1] is final and final.reached and all(found.sense == sense for found in told)
    lows, highs = [found.lower for found in told], [found.upper for found in told]
    assert lows == sorted(lows) and highs == sorted(highs, reverse=True)
    assert all(low - LP_ERROR <= exact <= high + LP_ERROR for low, high in zip(lows, highs, strict=True))

    def interrupt(event: Event) -> None:
        listen(event)
        if len(told) == 2:
            raise KeyboardInterrupt

    told.clear()
    with pytest.raises(KeyboardInterrupt):
        optimise(network, box_of(lower, upper), FORMS[1], sense, chosen, interrupt)
    assert told[-1].lower - LP_ERROR <= exact <= told[-1].upper + LP_ERROR and not told[-1].reached


def test_no_time_at_all(tmp_path: Path) -> None:
    network = as_network(random_layers(np.random.default_rng(2)), tmp_path)
    size = network.graph.nodes[0].size
    found = optimise(network, box_of([-1] * size, [1] * size), "Y_0", "max", settings(Gap()), timeout=1e-9)
    assert not found.reached and found.upper == np.inf and np.isfinite(found.lower) and "time is up" in found.reason


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    network = as_network(random_layers(np.random.default_rng(2), (2, 3, 2)), tmp_path)
    box = box_of([0, 0], [1, 1])
    for wrong in ({"output": "Y_2"}, {"output": "Y_0", "sense": "least"}, {"output": "Y_0 Y_1"}):
        with pytest.raises(UsageError):
            optimise(network, box, **wrong)  # type: ignore[arg-type]
    zeros = (Fraction(0),) * 2
    for where in (box_of([0], [1]), box_of([0, 1], [1, 0]), Box(zeros, zeros, frozenset([(0, "lower")]))):
        with pytest.raises(PropertyError):
            optimise(network, where, "Y_0")
    for absolute, relative in ((-1.0, 0.0), (0.0, float("nan"))):
        with pytest.raises(UsageError):
            Gap(absolute, relative)


def test_constraints_on_inputs_are_loudly_left_out(tmp_path: Path) -> None:
    network = as_network(random_layers(np.random.default_rng(2), (2, 3, 2)), tmp_path)
    text = " ".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    text += " ".join(f"(assert (>= X_{i} 0)) (assert (<= X_{i} 1))" for i in range(2))
    for row, loud in (("(<= Y_0 1)", False), ("(<= (+ X_0 X_1) 1)", True)):
        notices: list[Notice] = []
        listen = lambda event: notices.append(event) if isinstance(event, Notice) else None  # noqa: B023, E731
        optimise(network, parse_property(f"{text} (assert {row})", "p"), "Y_0", "min", settings(Gap()), listen)
        assert [notice.loud for notice in notices] == [loud]
