"""Functions between planes: what is proved holds, what is found violates, and cuts bring the two together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.backends.test_checked import subproblems
from tests.search.questions import Part, Small, values_at
from verifier.backends.checked import Checked
from verifier.backends.child import made
from verifier.backends.encoding import Encoding, encode
from verifier.backends.milp import HOMES, Mixed, Reproved
from verifier.backends.mixed import mixed_program, unmixed
from verifier.backends.pieces import LINE, Box
from verifier.backends.protocol import Answer, Backend, Budget, MixedProgram, MixedResult, MixedStatus
from verifier.backends.readings import leaves
from verifier.backends.refine import refined
from verifier.backends.subproblem import Subproblem
from verifier.core.graph import Graph
from verifier.core.operator import Op
from verifier.core.verdict import Status
from verifier.ops import Add, Multiply, Positive, Relu, Select, Sigmoid, Sign, Sin, Softplus, Tanh, Where

BACKENDS: dict[str, Backend] = {"checked": Checked(), **{name: Mixed(name, made) for name in HOMES}}
LOWER, UPPER = np.full(2, -1.5), np.full(2, 1.5)
NEAR = 0.02  # a margin that takes cuts to decide
GRID = 81


def layers(op: Op, seed: int) -> Graph:
    """With a Relu between two layers of it."""
    b = Small(1, 2, seed=seed)
    z = b.same(op, b.dense(0, 3))
    z = b.same(op, b.dense(b.same(Relu(), b.dense(z, 3)), 2))
    b.dense(z, 2)
    return b.graph()


def products(seed: int) -> Graph:
    b = Small(1, 2, seed=seed)
    z = b.same(Multiply(), b.dense(0, 2), b.dense(0, 2))
    b.dense(b.same(Tanh(), b.dense(z, 2)), 2)
    return b.graph()


def chosen(seed: int) -> Graph:
    b = Small(1, 2, seed=seed)
    condition = b.same(Positive(), b.dense(0, 3))
    b.dense(b.same(Where(), condition, b.dense(0, 3), b.same(Sign(), b.dense(0, 3))), 2)
    return b.graph()


GRAPHS = {
    **{op.name: layers(op, 5) for op in (Sigmoid(), Tanh(), Sin(), Softplus(), Sign())},
    "products": products(5),
    "chosen": chosen(5),
}


def question(graph: Graph, miss: float) -> Subproblem:
    """Whether an output comes below its least value on a grid, less `miss`; bounds are those of interval arithmetic."""
    axes = [torch.linspace(low, high, GRID, dtype=torch.float64) for low, high in zip(LOWER, UPPER, strict=True)]
    least = float(values_at(graph, torch.cartesian_prod(*axes))[:, 0].min())
    part: Part = LOWER, UPPER, [(np.array([[1.0, 0.0]]), np.zeros((1, 2)), np.array([least - miss]))]
    return subproblems(graph, [part], "interval")[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", GRAPHS)
def test_near_the_least_value(name: str, backend: str) -> None:
    """A violation on the grid is never denied; the least value is nearly that on the grid."""
    for miss, expected in ((-NEAR, Status.SAT), (4 * NEAR, Status.UNSAT)):
        subproblem = question(GRAPHS[name], miss)
        answer = BACKENDS[backend].solve(subproblem, Budget())
        assert answer.status is expected, answer
        assert answer.point is None or subproblem.margin(answer.point) <= 0


def least_point(subproblem: Subproblem) -> tuple[Encoding, np.ndarray]:
    """The columns at the least margin between the planes."""
    encoding = encode(subproblem)
    solved = made(HOMES["highs"].place, mixed_program(encoding)).minimise(-np.inf, 60.0)
    assert solved.point is not None
    return encoding, unmixed(encoding, solved.point)


def test_cuts_close_in() -> None:
    """Each point leaves functions, there they are cut, and the least margin rises towards that of the network."""
    subproblem, margins = question(layers(Tanh(), 5), NEAR), []
    for _ in range(4):
        encoding, point = least_point(subproblem)
        margins.append(point[-1])
        assert leaves(subproblem, encoding, point)
        finer = refined(subproblem, encoding, point[None])
        assert finer is not None
        for position, boxes in finer.cuts.items():
            for element, parts in boxes.items():
                before = subproblem.cuts.get(position, {}).get(element, ((LINE,),))
                assert len(parts) - len(before) in (0, 1) and tiles(parts)
        subproblem = finer
    assert margins[0] < margins[-1] - NEAR and margins[-1] <= NEAR + 1e-3, margins
    assert max(np.diff(margins)) > 0


def tiles(parts: tuple[Box, ...]) -> bool:
    """Whether intervals cover the line, next to each other."""
    ends = sorted(part for (part,) in parts)
    meet = all(one[1] == two[0] for one, two in itertools.pairwise(ends))
    return ends[0][0] == -np.inf and ends[-1][1] == np.inf and meet


def test_nothing_is_cut_where_the_point_follows_the_network() -> None:
    subproblem = question(layers(Relu(), 5), NEAR)
    encoding, point = least_point(subproblem)
    assert not leaves(subproblem, encoding, point)


def test_a_proof_starts_from_the_cuts_of_what_is_proved() -> None:
    asked: list[Subproblem] = []

    class Noting(Checked):
        def solve(self, subproblem: Subproblem, budget: Budget) -> Answer:
            asked.append(subproblem)
            return super().solve(subproblem, budget)

    subproblem = question(GRAPHS["Softplus"], 4 * NEAR)
    answer = Reproved(Mixed("highs", made), Noting()).solve(subproblem, Budget())
    assert answer.status is Status.UNSAT and answer.checked
    assert not subproblem.cuts and asked[0].cuts


def test_time_is_up_while_functions_are_cut() -> None:
    class Helpless:
        def __init__(self, home: str, program: MixedProgram) -> None:
            self.program = program

        def minimise(self, target: float, seconds: float) -> MixedResult:
            return MixedResult(MixedStatus.ENDED, np.zeros(len(self.program.cost)))

    answer = Mixed("highs", Helpless).solve(question(GRAPHS["Softplus"], 4 * NEAR), Budget(stop=lambda: True))
    assert answer.status is Status.TIMEOUT and "pieces" in answer.reason


def test_a_violation_is_found_beside_a_jump() -> None:
    """Of sign(x) - x, which is least next to 0, on its left: at 0 itself the program has it, the function does not."""
    b = Small(1, 2, seed=0)
    first = Select(torch.tensor([[0]]), (1, 2))
    z = b.add(first, [0], (1, 1))
    b.add(Add((1, -1)), [b.same(Sign(), z), z], (1, 1))
    part = np.full(2, -0.5), np.full(2, 1.5), [(np.ones((1, 1)), np.zeros((1, 2)), np.array([-0.999]))]
    (subproblem,) = subproblems(b.graph(), [part], "interval")
    for backend in BACKENDS.values():
        answer = backend.solve(subproblem, Budget())
        assert answer.status is Status.SAT and answer.point is not None
        assert -0.001 <= float(answer.point[0, 0]) < 0
