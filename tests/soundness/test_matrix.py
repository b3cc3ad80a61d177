"""Operator by method: a small network around each operator, bounded in every way, against exact values.

What an operator does not support must be refused. A new operator fails here until it has a row (`rows.py`)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.backends.points import between, columns_at, in_phases, inside
from tests.frontend.onnx_models import load_nodes
from tests.search.questions import query_of, values_at
from tests.soundness.rows import ROWS, Row, defined_operators
from tests.soundness.test_bounds import DTYPES, Values, assert_inside, exact_values, of_node, points_of, some_boxes
from tests.soundness.test_multipliers import KEPT, check, margin, some_objective, with_planes
from verifier.backends.checked import Checked
from verifier.backends.child import made
from verifier.backends.encoding import encode
from verifier.backends.milp import Mixed
from verifier.backends.mixed import mixed_program
from verifier.backends.pieces import LINE, Box
from verifier.backends.protocol import Backend, Budget
from verifier.backends.subproblem import Subproblem
from verifier.bounding.engine import Effort, bound_nodes, output_interval
from verifier.bounding.optimise import certain_bound, initial_multipliers
from verifier.bounding.program import prepare
from verifier.bounding.undecided import undecided_elements
from verifier.core.flat import flat
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.operator import Affine, Elementwise
from verifier.core.problem import build_problem
from verifier.core.verdict import Status
from verifier.errors import UnsupportedError
from verifier.frontend.replay import replay
from verifier.ops import OPERATORS, UNCERTAIN, Linear
from verifier.ops.support import NO, PIECES, SOLVERS, YES, support
from verifier.search.branching.neurons_first import neurons_first
from verifier.search.branching.parts import split
from verifier.search.subproblems import Kept, whole_boxes

BOUNDED = [name for name, row in ROWS.items() if isinstance(row.op, Affine | Elementwise)]
NONLINEAR = [name for name in BOUNDED if isinstance(ROWS[name].op, Elementwise)]
WAYS = {"interval": "interval", "forward": "forward", "backward": "crown"}

each_type = pytest.mark.parametrize("dtype", DTYPES)


def test_every_operator_has_a_row() -> None:
    assert {type(row.op) for row in ROWS.values()} == {*OPERATORS, *UNCERTAIN} == set(defined_operators())
    assert len(ROWS) == len(OPERATORS) + len(UNCERTAIN)


class Asked:
    """An operator's network, boxes for it, points in them and exact values of all nodes there."""

    def __init__(self, row: Row, dtype: str) -> None:
        self.graph, self.position = row.graph(seed=sum(map(ord, row.op.name)))
        self.program = prepare(self.graph, DTYPES[dtype])
        every, around = some_boxes(self.graph, DTYPES[dtype], seed=5), around_0(self.graph, DTYPES[dtype])
        self.box = Interval(torch.cat([every.lower, around.lower]), torch.cat([every.upper, around.upper]))
        self.points = [each[:KEPT] + each[-2:] for each in points_of(self.box, seed=6)]
        self.values: Values = exact_values(self.graph, self.points)


def around_0(graph: Graph, dtype: torch.dtype) -> Interval:
    """Where elements of the first layer are nearly 0, a place of kinks, jumps and inflections: that point, a few ulps
    around it, and wider boxes."""
    layer = graph.nodes[1].op
    assert isinstance(layer, Linear) and layer.bias is not None
    center = -(torch.linalg.pinv(layer.weight[:3]) @ layer.bias[:3]).to(dtype)
    radius = torch.tensor([0.0, 4 * torch.finfo(dtype).eps, 0.1, 1.0, 6.0], dtype=dtype).unsqueeze(1)
    radius = radius * (1 + center.abs())
    return Interval(center - radius, center + radius).reshape(-1, *graph.input_shape)


@pytest.mark.parametrize("name", ROWS)
def test_onnxruntime_computes_the_same(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    if not row.nodes:
        assert name in ("Crop", "Near"), "the importer makes all others"
        return
    network = load_nodes(tmp_path, row.nodes, row.given, constants=row.constants, opset=row.opset, output_kind=row.kind)
    assert name in {entry.op.name for entry in network.graph.nodes}
    points = np.random.default_rng(1).standard_normal((6, *row.given)).astype(np.float32)
    points[1:3] = np.round(points[1:3])
    if row.before[0] is not None or row.given == (6,):  # roots and logarithms; positions in 6 places
        points = np.abs(points) + np.float32(0.1)
    replay(network, points)


@each_type
@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("name", ROWS)
def test_bounds(name: str, method: str, dtype: str) -> None:
    row = ROWS[name]
    if support(type(row.op))[method] == NO:
        with pytest.raises(UnsupportedError, match="no bounds"):
            prepare(Graph((Node("x", Input(), (), (1, 2)), Node("y", row.op, (0,), (1, 2))), 1), DTYPES[dtype])
        return
    asked = Asked(row, dtype)
    found = bound_nodes(asked.program, asked.box, WAYS[method])
    for position, bounds in found.intervals.items():
        assert_inside(of_node(asked.values, position), bounds, (name, method, position))
    output = output_interval(asked.program, asked.box, WAYS[method], Effort())
    assert_inside(of_node(asked.values, asked.graph.output), output, (name, method))


@each_type
@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_tighten_as_boxes_shrink(name: str, method: str, dtype: str) -> None:
    """Around one point, by a half each time; the last is the point, where only rounding and jumps are left."""
    graph, _ = ROWS[name].graph(seed=2)
    program = prepare(graph, DTYPES[dtype])
    center = torch.tensor([[[0.3, -0.7, 1.1]]], dtype=DTYPES[dtype])
    radius = torch.tensor([1.0, 0.5, 0.25, 0.125, 0.0], dtype=DTYPES[dtype]).reshape(-1, 1, 1)
    bounds = output_interval(program, Interval(center - radius, center + radius), WAYS[method], Effort())
    width = bounds.upper - bounds.lower
    size = 1 + bounds.magnitude()
    assert (width[1:] <= width[:-1] + 1e-4 * size[1:]).all(), width
    assert (width[-1] <= 1e-3 * size[-1]).all(), width
    assert bool((width[0] > 100 * width[-1]).any())


@each_type
@pytest.mark.parametrize("name", BOUNDED)
def test_optimised(name: str, dtype: str) -> None:
    """Any parameters give bounds that hold; there are some where the table says so."""
    asked = Asked(ROWS[name], dtype)
    assert check(asked.program, asked.box, asked.values, asked.points, seed=7) >= 2 * KEPT * len(asked.box.lower)
    objective = some_objective(asked.program, len(asked.box.lower), 1, torch.Generator().manual_seed(1))
    found = bound_nodes(asked.program, asked.box, "crown")
    undecided = undecided_elements(asked.program, found)
    free = initial_multipliers(undecided, undecided.neurons(found), objective)
    assert (asked.position in free.lower) == (support(type(ROWS[name].op))["optimised"] == YES)


@each_type
@pytest.mark.parametrize("name", [name for name in NONLINEAR if type(ROWS[name].op) not in UNCERTAIN])
def test_split(name: str, dtype: str) -> None:
    """At the best place that is an argument of the operator: every point is in a part, whose bound holds there, and the
    argument's range becomes smaller in both."""
    asked = Asked(ROWS[name], dtype)
    program, sources = asked.program, asked.graph.nodes[asked.position].inputs
    found = bound_nodes(program, asked.box, "crown")
    objective = some_objective(program, len(asked.box.lower), 1, torch.Generator().manual_seed(1))
    kept, every = Kept(program, found), torch.arange(len(asked.box.lower))
    whole = whole_boxes(kept, objective, asked.box, every, torch.zeros_like(every), torch.zeros(len(every)))
    dual = kept.dual(whole, objective)
    dual.value(dual.projected(kept.multipliers(whole)))
    choices = neurons_first(kept, whole, dual, kept.sites.count, 1.0)
    own = torch.isin(choices.place, torch.cat([kept.sites.of[source] for source in sources])) & (choices.score > 0)
    assert bool(own.any())
    rank = own.to(torch.uint8).argmax(1, keepdim=True)
    place, point = (part.gather(1, rank).squeeze(1) for part in (choices.place, choices.point))
    parts = split(kept, whole, place, point)
    known, twice = with_planes(program, kept.intervals(parts)), objective.select(parts.problem)
    start = initial_multipliers(kept.undecided, parts.neurons, twice, bounded=True)
    form = certain_bound(program, parts.box, known, kept.undecided.index, twice, start)
    lowest = form.minimum(parts.box)[:, 0]
    for domain in own.any(1).nonzero().flatten().tolist():
        source = next(source for source in sources if bool((kept.sites.of[source] == place[domain]).any()))
        column = int((kept.sites.of[source] == place[domain]).nonzero()[0])
        before, after = whole.neurons[source], parts.neurons[source]
        element, both = int(kept.undecided.index[source][column]), (domain, domain + len(every))
        width = float(before.upper[domain, column] - before.lower[domain, column])
        assert all(float(after.upper[part, column] - after.lower[part, column]) < width for part in both)
        for value in asked.values[domain]:
            z, exact = value[source][element], margin(objective, start.weights, domain, value)
            ends = [(float(after.lower[part, column]), float(after.upper[part, column])) for part in both]
            inside = [part for part, (low, high) in zip(both, ends, strict=True) if low <= z <= high]
            assert inside
            for part in inside:
                assert not lowest[part].isfinite() or Fraction(float(lowest[part])) <= exact


GRID = 41
MOST_POINTS = 3
SOLVING: dict[str, Backend] = {"checked": Checked(), "milp": Mixed("highs", made), "smt": Mixed("z3", made)}


def asked(graph: Graph, box: tuple[np.ndarray, np.ndarray], bound: float) -> Subproblem:
    """Whether the first output is at most `bound` somewhere, with bounds of interval arithmetic."""
    part = *box, [(np.array([[1.0, 0.0]]), np.zeros((1, graph.nodes[0].size)), np.array([bound]))]
    program, problem = prepare(graph, torch.float64), build_problem(query_of([part]), torch.float64, "cpu")
    shaped = problem.box.reshape(-1, *graph.input_shape)
    with torch.no_grad():
        return Subproblem(program, bound_nodes(program, shaped, "interval"), problem, shaped, 0, 0)


@pytest.mark.parametrize("name", NONLINEAR)
def test_what_solvers_are_given(name: str) -> None:
    """Every point of the network is in the programs, whole and with random cuts of what is only enclosed."""
    row = ROWS[name]
    case = Asked(row, "float64")
    generator, checked = np.random.default_rng(8), 0
    for place, (points, values) in enumerate(zip(case.points, case.values, strict=True)):
        ends = tuple(flat(end)[place].numpy() for end in (case.box.lower, case.box.upper))
        subproblem = asked(case.graph, (ends[0], ends[1]), 0.0)
        if subproblem.obstacle() is not None:
            continue
        assert subproblem.straight or support(type(row.op))[SOLVERS] == PIECES or name in STAIRS or row.before[0]
        for cuts in ({}, random_cuts(subproblem, generator)):
            encoding = encode(replace(subproblem, cuts=cuts))
            mixed = mixed_program(encoding)
            for value in values[: min(len(points), MOST_POINTS)]:
                point = columns_at(encoding, case.graph, value, value[case.graph.output][0])
                assert between(encoding.program.lower, encoding.program.upper, point)
                assert inside(encoding.program.matrix, encoding.program.low, encoding.program.high, point)
                assert inside(mixed.matrix, mixed.low, mixed.high, in_phases(encoding, point))
                checked += 1
    assert checked >= 12, checked


STAIRS = ("Floor", "Ceil", "Round", "Truncate")  # exact where they are not too long


def random_cuts(subproblem: Subproblem, generator: np.random.Generator) -> dict[int, dict[int, tuple[Box, ...]]]:
    """Of one argument of each element that is enclosed, at two places."""
    cuts: dict[int, dict[int, tuple[Box, ...]]] = {}
    for position, group in encode(subproblem).groups.items():
        if group.pieces is None:
            continue
        cuts[position] = {}
        for place, element in enumerate(group.elements.tolist()):
            lower, upper = group.pieces.lower[place].min(0), group.pieces.upper[place].max(0)
            which = int(generator.integers(len(lower)))
            ends = [-np.inf, *np.sort(generator.uniform(lower[which], upper[which], 2)).tolist(), np.inf]
            own: list[Box] = []
            for part in itertools.pairwise(ends):
                own.append(tuple(part if number == which else LINE for number in range(len(lower))))
            cuts[position][element] = tuple(own)
    return cuts


@pytest.mark.parametrize("solver", SOLVING)
@pytest.mark.parametrize("name", NONLINEAR)
def test_solvers(name: str, solver: str) -> None:
    """Answers on either side of the least value on a grid. A violation that only an end of a neighbourhood reaches is
    none, and solvers may stop there."""
    graph, _ = ROWS[name].graph(seed=3, inputs=2)
    lower, upper = np.array([-0.5, 0.25]), np.array([0.25, 0.75])
    axes = [torch.linspace(low, high, GRID, dtype=torch.float64) for low, high in zip(lower, upper, strict=True)]
    least = float(values_at(graph, torch.cartesian_prod(*axes))[:, 0].min())
    for miss, expected in ((0.25, Status.UNSAT), (-0.01, Status.SAT)):
        answer = SOLVING[solver].solve(asked(graph, (lower, upper), least - miss), Budget())
        stopped = type(ROWS[name].op) in UNCERTAIN and answer.status is Status.UNKNOWN and expected is Status.SAT
        assert answer.status is expected or stopped
        assert expected is Status.SAT or answer.checked or solver != "checked"
