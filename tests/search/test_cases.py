"""Networks whose positions depend on the input: all cases are there, and no case that is not."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.frontend.onnx_models import load_nodes, node
from verifier import Settings, verify
from verifier.bounding.program import unbounded_nodes
from verifier.core.problem import build_problem, with_exact_inputs
from verifier.core.query import Box, Disjunct, Query, Row
from verifier.core.verdict import Status
from verifier.frontend.network import Network
from verifier.search import cases
from verifier.search.cases import by_cases

LOWER = ("0.1", "-0.3", "0.7", "0.2", "0", "0.5")  # four values, then a row and a column
UPPER = ("0.1", "-0.1", "0.9", "0.2", "2.9", "1.5")


def network(folder: Path) -> Network:
    """y = w . (x masked by 0 in row trunc(x_4) at column trunc(x_5), of 2 rows of 2): nothing is masked in row 2."""
    nodes = [
        node("Gather", ("x", "values"), ("picture",)),
        node("Gather", ("x", "four"), ("row",)),
        node("Gather", ("x", "five"), ("column",)),
        node("Cast", ("row",), ("first",), to=7),
        node("Cast", ("column",), ("place",), to=7),
        node("Add", ("first", "one"), ("last",)),
        node("Slice", ("range", "first", "last"), ("rows",)),
        node("Unsqueeze", ("rows", "behind"), ("up",)),
        node("Mul", ("rows", "nought"), ("noughts",)),  # as many as there are rows, of which there may be none
        node("Add", ("noughts", "place"), ("places",)),
        node("Unsqueeze", ("places", "behind"), ("across",)),
        node("Cast", ("noughts",), ("zeros",), to=1),
        node("Concat", ("up", "across"), ("indices",), axis=1),
        node("ScatterND", ("ones", "indices", "zeros"), ("mask",)),
        node("Reshape", ("picture", "square"), ("squared",)),
        node("Mul", ("squared", "mask"), ("masked",)),
        node("Reshape", ("masked", "flat"), ("line",)),
        node("Gemm", ("line", "weight"), ("hidden",)),
        node("Relu", ("hidden",), ("active",)),
        node("Gemm", ("active", "other"), ("y",)),
    ]
    generator = np.random.default_rng(1)
    constants = {
        **{name: np.array(value) for name, value in (("values", [0, 1, 2, 3]), ("four", [4]), ("five", [5]))},
        **{"one": np.array([1]), "range": np.arange(2), "behind": np.array([1])},
        **{"ones": np.ones((2, 2), np.float32), "nought": np.array([0])},
        **{"square": np.array([2, 2]), "flat": np.array([1, 4])},
        **{
            "weight": generator.standard_normal((4, 8)).astype(np.float32),
            "other": generator.standard_normal((8, 1)).astype(np.float32),
        },
    }
    return load_nodes(folder, nodes, (6,), constants=constants)


def box_of(lower: tuple[str, ...] = LOWER, upper: tuple[str, ...] = UPPER) -> Box:
    return Box(tuple(map(Fraction, lower)), tuple(map(Fraction, upper)))


def asks(bound: float, box: Box, inputs: tuple[tuple[int, Fraction], ...] = ()) -> Query:
    """Whether y, with some inputs added, can be at most `bound`."""
    return Query(6, 1, (Disjunct(box, (Row(inputs, ((0, Fraction(1)),), Fraction(bound)),)),))


def least(network: Network, corners: bool = True) -> dict[tuple[int, int], float]:
    """The least value seen at each row and column, over a fine grid of the inputs that vary."""
    found = {}
    for row, column in itertools.product((0, 1, 2), (0, 1)):
        grid = itertools.product(np.linspace(-0.3, -0.1, 9), np.linspace(0.7, 0.9, 9))
        points = np.array([[0.1, a, b, 0.2, row, max(column, 0.5)] for a, b in grid], dtype=np.float32)
        found[row, column] = float(network.run(points).min())
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return network(tmp_path_factory.mktemp("network"))


def test_there_are_as_many_boxes_as_masks(small: Network) -> None:
    assert unbounded_nodes(small.graph)
    found = by_cases(small.graph, asks(0.0, box_of()), "cpu")
    assert found is not None and not unbounded_nodes(found.graph)
    masks = found.problem.box.lower[:, 6:]
    assert torch.equal(masks, found.problem.box.upper[:, 6:])
    assert len(masks) == 2 * 5 and len(masks.unique(dim=0)) == 5  # four positions, and none, as written and as read
    assert found.owner.tolist() == [0] * 10


def test_the_rest_computes_what_the_network_does(small: Network) -> None:
    found = by_cases(small.graph, asks(0.0, box_of()), "cpu")
    assert found is not None
    weight = torch.rand(len(found.owner), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    box = found.problem.box
    x = box.lower + weight * (box.upper - box.lower)
    seen: list[torch.Tensor] = []
    found.candidates(lambda points, which: bool(seen.append(points)))(x, torch.arange(len(x)))
    assert torch.allclose(found.graph.evaluate(x), small.graph.evaluate(seen[0].double()), atol=1e-6)


def test_verdicts_are_those_of_the_worst_case(small: Network) -> None:
    values = least(small)
    worst = min(values.values())
    assert worst < sorted(values.values())[1] - 0.01  # one case alone decides
    settings = Settings(timeout=30)
    assert verify(small, asks(worst - 1e-3, box_of()), settings).status is Status.UNSAT
    assert verify(small, asks(worst + 1e-3, box_of()), settings).status is Status.SAT


def test_rows_over_inputs_with_coefficients_that_are_rounded(small: Network) -> None:
    """0.1 is no number of any precision, so that there are tables in double precision beside those in use."""
    query = asks(0.0, box_of(), ((1, Fraction("0.1")),))
    found = by_cases(small.graph, query, "cpu")
    assert found is not None and not found.problem.exact
    for problem in (found.problem, found.problem.in_double()):
        assert problem.input_rows is not None
        assert problem.input_rows.tolist() == [[0.0, 0.1] + [0.0] * (found.problem.box.shape[1] - 2)]


def test_a_position_that_is_left_out_is_not_counted(small: Network) -> None:
    """Without the worst row or column the bound holds that it violates."""
    values = least(small)
    row, column = min(values, key=values.__getitem__)
    lower, upper = list(LOWER), list(UPPER)
    if column == 0:
        lower[5], upper[5] = "1", "1.5"
    else:
        lower[5], upper[5] = "0.5", "0.99"
    rest = min(value for (_, c), value in values.items() if c != column)
    assert rest > values[row, column] + 0.01
    query = asks(rest - 1e-3, box_of(tuple(lower), tuple(upper)))
    assert verify(small, query, Settings(timeout=30)).status is Status.UNSAT


def test_what_cannot_be_enumerated_is_left_alone(small: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = (*UPPER[:4], "1e9", UPPER[5])
    assert by_cases(small.graph, asks(0.0, box_of(upper=wide)), "cpu") is None
    asked = asks(0.0, box_of(), ((4, Fraction(1)),))  # about the input itself, of which the integer says too little
    assert by_cases(small.graph, asked, "cpu") is None
    monkeypatch.setattr(cases, "MOST_NUMBERS", 4 * 10)
    assert by_cases(small.graph, asks(0.0, box_of()), "cpu") is None


def test_an_input_that_is_rounded_together_with_one_that_is_not(tmp_path: Path) -> None:
    """x_1 is read as it is, so that the rounding of both is none of what is enumerated, and reads x_0 as well."""
    nodes = [
        node("Cast", ("x",), ("both",), to=7),
        node("Cast", ("both",), ("values",), to=1),
        node("Gather", ("x", "one"), ("itself",)),
        node("Gather", ("x", "nought"), ("first",)),
        node("Cast", ("first",), ("place",), to=7),
        node("Gather", ("table", "place"), ("looked_up",)),
        node("Sum", ("values", "itself", "looked_up"), ("y",)),
    ]
    constants = {"table": np.ones(3, np.float32), "one": np.array([1]), "nought": np.array([0])}
    mixed = load_nodes(tmp_path, nodes, (2,), constants=constants)
    box = Box((Fraction(0),) * 2, (Fraction(2),) * 2)
    query = Query(2, 2, (Disjunct(box, (Row((), ((0, Fraction(1)),), Fraction(0)),)),))
    assert by_cases(mixed.graph, query, "cpu") is None


def test_fixed_inputs_as_written_and_as_read() -> None:
    query = asks(0.0, box_of())
    problem, outward = with_exact_inputs(query, "cpu"), build_problem(query, torch.float32, "cpu")
    lower, upper = problem.box.lower, problem.box.upper
    for place, (low, high) in enumerate(zip(LOWER, UPPER, strict=True)):
        if low == high:
            assert Fraction(lower[0, place].item()) <= Fraction(low) <= Fraction(upper[0, place].item())
            assert upper[0, place] - lower[0, place] < 1e-15
            assert lower[1, place].item() == upper[1, place].item() == float(np.float32(low))
        else:
            assert (lower[:, place] == outward.box.lower[0, place]).all()
            assert (upper[:, place] == outward.box.upper[0, place]).all()
    assert len(problem.row) == 2 and problem.box.lower.dtype == torch.float64
