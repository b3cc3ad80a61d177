"""The verdict on random networks and properties, against an enumeration of all activation regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.onnx_models import load_nodes, node
from tests.soundness.polygons import least_margin as least_margin_by_polygons
from tests.soundness.regions import Conjunction, Layers, least_margin
from verifier.core.verdict import Status
from verifier.frontend.network import Network
from verifier.frontend.vnnlib import parse_property
from verifier.pipeline import verify
from verifier.settings import AttackSettings, Settings

CLOSE = 1e-4  # margins below this may be left undecided, and are too close to contradict the enumeration's LPs
SETTINGS = Settings(timeout=10.0, device="cpu", attack=AttackSettings(restarts=16, steps=20, seconds=1.0))
NETWORKS = 24
PROPERTIES = 5
seen: dict[Status, int] = {}


def random_layers(generator: np.random.Generator, sizes: tuple[int, ...] = ()) -> Layers:
    """Multiples of 1/16: exact in every precision."""
    if not sizes:
        sizes = (int(generator.integers(2, 4)), *[(8,), (4, 4), (6,), (5, 3), (10,)][int(generator.integers(5))], 2)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    return Layers(
        [np.round(generator.normal(size=shape) * 16) / 16 for shape in shapes],
        [np.round(generator.normal(size=shape[0]) * 8) / 16 for shape in shapes],
    )


def random_property(layers: Layers, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Conjunction]]:
    """A box and a disjunction of conjunctions whose ends lie near where the answer changes."""
    inputs = layers.weights[0].shape[1]
    lower = np.round(generator.uniform(-2, 0, inputs) * 8) / 8
    upper = lower + np.round(generator.uniform(0, 2, inputs) * 8) / 8
    x = generator.uniform(lower, upper, (2000, inputs))
    y, disjuncts = layers.evaluate(x), []
    for _ in range(int(generator.integers(1, 4))):
        count = int(generator.integers(1, 4))
        c = np.round(generator.normal(size=(count, 2)) * 4) / 4
        c[c.any(1) == 0] = 1.0
        d = np.round(generator.normal(size=(count, inputs)) * 4) / 4 * (generator.random() < 0.3)
        values = y @ c.T + x @ d.T
        base = values[int(generator.integers(len(values)))]
        start = np.round(base * 64) / 64
        # shift all ends so that the best sample misses by `miss`, or does not
        miss = generator.choice([-0.5, -0.05, 0.02, 0.1, 0.3, 1.0])
        disjuncts.append((c, d, np.round((start + (values - start).max(1).min() - miss) * 256) / 256))
    return lower, upper, disjuncts


def vnnlib(lower: np.ndarray, upper: np.ndarray, disjuncts: list[Conjunction]) -> str:
    names = [f"X_{i}" for i in range(len(lower))] + ["Y_0", "Y_1"]
    lines = [f"(declare-const {name} Real)" for name in names]
    for name, low, high in zip(names, lower, upper, strict=False):
        lines += [f"(assert (>= {name} {low:.9f}))", f"(assert (<= {name} {high:.9f}))"]
    conjunctions = []
    for c, d, b in disjuncts:
        rows = []
        for row, end in zip(np.hstack([d, c]), b, strict=True):
            terms = " ".join(f"(* {w:.9f} {name})" for w, name in zip(row, names, strict=True) if w)
            rows.append(f"(<= (+ {terms}) {end:.9f})")
        conjunctions.append(f"(and {' '.join(rows)})")
    return "\n".join([*lines, f"(assert (or {' '.join(conjunctions)}))"])


def as_network(layers: Layers, folder: Path) -> Network:
    constants: dict[str, np.ndarray] = {}
    nodes, last = [], "x"
    for place, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        constants |= {f"w{place}": weight.astype(np.float32), f"b{place}": bias.astype(np.float32)}
        final = place == len(layers.weights) - 1
        nodes.append(node("Gemm", (last, f"w{place}", f"b{place}"), ("y" if final else f"z{place}",), transB=1))
        if not final:
            nodes.append(node("Relu", (f"z{place}",), (f"a{place}",)))
            last = f"a{place}"
    return load_nodes(folder, nodes, [1, layers.weights[0].shape[1]], constants=constants)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_no_contradiction(seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    layers = random_layers(generator)
    network = as_network(layers, tmp_path)
    for place in range(PROPERTIES):
        lower, upper, disjuncts = random_property(layers, generator)
        text = vnnlib(lower, upper, disjuncts)
        verdict = verify(network, parse_property(text, f"{seed}-{place}"), SETTINGS)
        margin = least_margin(layers, lower, upper, disjuncts)
        seen[verdict.status] = seen.get(verdict.status, 0) + 1
        what = f"{verdict} but the least margin is {margin}:\n{text}"
        if margin > CLOSE:
            assert verdict.status is Status.UNSAT, what
        elif margin < -CLOSE:
            assert verdict.status is Status.SAT, what
            assert verdict.witness is not None
        if verdict.witness is not None:
            x = verdict.witness.x.astype(np.float64).ravel()
            y = layers.evaluate(x)
            assert (lower <= x).all() and (x <= upper).all()
            assert min(float((c @ y + d @ x - b).max()) for c, d, b in disjuncts) <= CLOSE, what


@pytest.mark.parametrize("sizes", [(14,), (7, 7), (5, 5, 4)])
def test_fourteen_neurons_are_always_decided(sizes: tuple[int, ...], tmp_path: Path) -> None:
    """Two inputs, where the regions are polygons."""
    for seed in range(2):
        generator = np.random.default_rng(1000 + seed)
        layers = random_layers(generator, (2, *sizes, 2))
        network = as_network(layers, tmp_path)
        for place in range(3):
            lower, upper, disjuncts = random_property(layers, generator)
            text = vnnlib(lower, upper, disjuncts)
            margin = least_margin_by_polygons(network.graph, lower, upper, disjuncts)
            verdict = verify(network, parse_property(text, f"{seed}-{place}"), SETTINGS)
            expected = Status.UNSAT if margin > 0 else Status.SAT
            assert abs(margin) <= CLOSE or verdict.status is expected, f"{verdict}: least margin {margin}:\n{text}"


def test_both_answers_occurred() -> None:
    """A guard of the test above: a generator of one answer would prove little."""
    if sum(seen.values()) < NETWORKS * PROPERTIES:
        pytest.skip("the networks were not all run in this process")
    assert seen[Status.SAT] >= 20 and seen[Status.UNSAT] >= 20, seen


def test_the_enumeration_itself() -> None:
    """|x0| + |x1| as a network: its least value over boxes, by hand."""
    layers = Layers(
        [np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.ones((1, 4))],
        [np.zeros(4), np.zeros(1)],
    )
    row = np.ones((1, 1)), np.zeros((1, 2)), np.array([0.25])
    assert least_margin(layers, np.array([-1.0, -1.0]), np.array([1.0, 1.0]), [row]) == pytest.approx(-0.25)
    assert least_margin(layers, np.array([0.5, -1.0]), np.array([1.0, -0.25]), [row]) == pytest.approx(0.5)
    beyond = -np.ones((1, 1)), np.array([[-0.5, 0.0]]), np.array([-3.0])  # |x0| + |x1| + x0 / 2 >= 3
    assert least_margin(layers, np.array([-1.0, -1.0]), np.array([1.0, 1.0]), [beyond]) == pytest.approx(0.5)
