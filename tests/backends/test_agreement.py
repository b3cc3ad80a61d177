"""All backends, asked the same question, give the answer that an enumeration of the activation regions gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from tests.backends.test_checked import convolved, pooled, subproblems
from tests.search.questions import ACTIVATIONS, SHAPES, Part, random_parts, small_graph
from tests.soundness.polygons import least_margin
from verifier.backends.checked import Checked
from verifier.backends.child import made
from verifier.backends.milp import HOMES, Mixed
from verifier.backends.protocol import Backend, Budget
from verifier.core.graph import Graph
from verifier.core.verdict import Status
from verifier.ops import Abs, Maximum, Minimum

CLOSE = 1e-4  # margins below this may be left undecided
EACH = 7  # properties of each small network
BACKENDS: dict[str, Backend] = {"checked": Checked(), **{name: Mixed(name, made) for name in HOMES}}
answers: dict[Status, int] = {}


def questions(graph: Graph, count: int, seed: int) -> Iterator[Part]:
    """Conjunctions of one to three rows over a box; every other one is hardly violated, or hardly not."""
    for place in range(count):
        ((lower, upper, ((c, d, b),)),) = random_parts(graph, 1, 1, 3, 100 * seed + place)
        if place % 2:
            b = b + least_margin(graph, lower, upper, [(c, d, b)]) + (1e-3 if place % 4 == 1 else -1e-3)
        yield lower, upper, [(c, d, b)]


def check(graph: Graph, count: int, seed: int) -> None:
    for place, part in enumerate(questions(graph, count, seed)):
        (subproblem,) = subproblems(graph, [part], "interval" if place % 2 else "crown")
        least = least_margin(graph, *part)
        expected = Status.UNSAT if least > 0 else Status.SAT
        answers[expected] = answers.get(expected, 0) + 1
        for name, backend in BACKENDS.items():
            answer = backend.solve(subproblem, Budget())
            what = f"question {place}: {name} answers {answer}, but the least margin is {least}"
            allowed = {expected} if abs(least) > CLOSE else {expected, Status.UNKNOWN}
            assert answer.status in allowed, what
            assert answer.point is None or subproblem.margin(answer.point) <= 0, what


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str, shape: str) -> None:
    seed = list(product(ACTIVATIONS, SHAPES)).index((activation, shape))
    check(small_graph(activation, shape, seed), EACH, seed)


@pytest.mark.parametrize("op", [Maximum(), Minimum()], ids=["max", "min"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_largest_of_several(op: Maximum | Minimum, count: int) -> None:
    check(pooled(op, count, count), 5, 50 + count)


@pytest.mark.parametrize("activation", ["leaky", "abs"])
def test_convolutions(activation: str) -> None:
    for seed in range(5):
        check(convolved(Abs() if activation == "abs" else ACTIVATIONS["leaky"], seed), 3, 60 + seed)


def test_the_questions_have_both_answers() -> None:
    """A guard of the tests above: questions of one answer would prove little."""
    if sum(answers.values()) < 300:
        pytest.skip("the networks were not all run in this process")
    assert min(answers.values()) >= 100, answers
