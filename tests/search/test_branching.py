"""Splits cover their parent, conserve its share and make progress, whatever is split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.search import several
from tests.search.questions import ACTIVATIONS, SHAPES, Small, query_of, random_parts, small_graph
from verifier.bounding.dual import Dual, Objective
from verifier.bounding.fields import row_price
from verifier.bounding.program import prepare
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.problem import build_problem
from verifier.core.stacked import join, pick
from verifier.ops import Add, Clip, Relu, Sigmoid
from verifier.search.branching.input_effect import input_effect
from verifier.search.branching.neurons_first import neurons_first
from verifier.search.branching.parts import split
from verifier.search.branching.relaxation_gap import relaxation_gap
from verifier.search.branching.rule import Choices
from verifier.search.influence import cheapest, influence
from verifier.search.neurons import objective_of
from verifier.search.root import Root
from verifier.search.subproblems import Kept, Subproblems
from verifier.search.task import Limits, Task
from verifier.settings import AscentSettings, SearchSettings

POOR = AscentSettings(iterations=0)
SETTINGS = SearchSettings(root=POOR, neurons=POOR, ascent=POOR)


def roots_of(graph: Graph, seed: int) -> tuple[Kept, Subproblems, Dual]:
    """Open subproblems, of conjunctions that hold somewhere."""
    program = prepare(graph, torch.float32)
    parts = [(low, up, [(c, d, b + 3) for c, d, b in ds]) for low, up, ds in random_parts(graph, 3, 2, 2, seed)]
    problem = build_problem(query_of(parts), torch.float32, "cpu")
    limits = Limits(float("inf"), 1 << 30)
    task = Task(problem, program, lambda: program, SETTINGS, limits, lambda points, which: False)
    kept, roots = Root(task, problem.real).subproblems()
    return kept, roots, dual_of(kept, roots, objective_of(problem, program, roots.problem, roots.disjunct))


def dual_of(kept: Kept, domains: Subproblems, objective: Objective) -> Dual:
    dual = kept.dual(domains, objective)
    dual.value(dual.projected(kept.multipliers(domains)))
    return dual


def choices_of(kept: Kept, domains: Subproblems, dual: Dual, most: int = 1000) -> Choices:
    return neurons_first(kept, domains, dual, most, 1.5)


def inside(kept: Kept, domains: Subproblems, x: Tensor) -> Tensor:
    """Which points `[p, 2]` are in which subproblem `[n, p]`, as box and neurons say; all in single precision."""
    values = kept.program.graph.evaluate_all(x.reshape(-1, *kept.program.graph.input_shape))
    box = domains.box.reshape(len(domains), 1, -1)
    found = ((x >= box.lower) & (x <= box.upper)).all(2)
    for source, index in kept.undecided.index.items():
        own, value = domains.neurons[source], values[source].flatten(1)[:, index]
        found &= ((value >= own.lower.unsqueeze(1)) & (value <= own.upper.unsqueeze(1))).all(2)
    return found


GRAPHS: dict[str, Callable[[int], Graph]] = {
    f"{activation}, {shape}": partial(small_graph, activation, shape) for activation in ACTIVATIONS for shape in SHAPES
} | several.GRAPHS
each = pytest.mark.parametrize("name", GRAPHS)


@each
def test_every_possible_split_covers_its_parent(name: str) -> None:
    kept, roots, dual = roots_of(GRAPHS[name](1), 2)
    choices = choices_of(kept, roots, dual)
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(300, 2, generator=generator)
    assert bool((choices.score[:, 0] > -torch.inf).any())
    for rank in range(choices.place.shape[1]):
        possible = choices.score[:, rank] > -torch.inf
        parents = pick(roots, possible)
        count = len(parents)
        children = split(kept, parents, choices.place[possible, rank], choices.point[possible, rank])
        assert len(children) == 2 * count
        torch.testing.assert_close(children.share.sum(), parents.share.sum())
        assert children.problem.tolist() == parents.problem.repeat(2).tolist()
        assert children.disjunct.tolist() == parents.disjunct.repeat(2).tolist()
        for place in range(count):
            low, high = parents.box.lower[place].flatten(), parents.box.upper[place].flatten()
            points = low + x * (high - low)
            mine = [place, place + count]
            before = inside(kept, pick(parents, [place]), points)  # type: ignore[arg-type]
            after = inside(kept, pick(children, mine), points)  # type: ignore[arg-type]
            assert (after.any(0) | ~before[0]).all()


@each
def test_every_possible_split_makes_progress(name: str) -> None:
    """Each child is smaller than its parent, in all copies of one number, and lies in it."""
    kept, roots, dual = roots_of(GRAPHS[name](1), 2)
    choices = choices_of(kept, roots, dual)
    for rank in range(choices.place.shape[1]):
        possible = choices.score[:, rank] > -torch.inf
        parents = pick(roots, possible)
        children = split(kept, parents, choices.place[possible, rank], choices.point[possible, rank])
        outer, inner = ends(join([parents, parents])), ends(children)
        assert (inner.lower >= outer.lower).all() and (inner.upper <= outer.upper).all()
        assert (inner.lower <= inner.upper).all()
        changed = (inner.lower > outer.lower) | (inner.upper < outer.upper)
        for place, child in zip(choices.place[possible, rank].repeat(2).tolist(), changed, strict=True):
            assert bool(child.any()) and child.tolist() == copies_of(kept, place)


@each
def test_each_rule_splits_its_own_kind_of_place_the_best_first(name: str) -> None:
    """Neurons before inputs, and no number twice where both are possible."""
    kept, roots, dual = roots_of(GRAPHS[name](1), 2)
    of_neurons, of_inputs, of_both = (
        rule(kept, roots, dual, 1000, 1.5) for rule in (relaxation_gap, input_effect, neurons_first)
    )
    for choices in (of_neurons, of_inputs, of_both):
        assert (choices.score[:, :-1] >= choices.score[:, 1:]).all()
    assert (of_neurons.place < kept.sites.count).all() and (of_inputs.place >= kept.sites.count).all()
    for row in range(len(roots)):
        neurons, inputs, both = (
            choices.place[row, choices.score[row] > -torch.inf].tolist() for choices in (of_neurons, of_inputs, of_both)
        )
        read = {int(kept.sites.inputs[place]) for place in neurons}
        left = [place for place in inputs if int(kept.sites.inputs[place]) not in read]
        assert sorted(both[: len(neurons)]) == sorted(neurons) and sorted(both[len(neurons) :]) == sorted(left)


def test_what_a_relu_costs() -> None:
    """Between its lines there are -l u / (u - l) at the kink, through which the lower line goes: a split gains where
    the coefficient is negative, and nearly nothing else; both lines depend on the bounds."""
    kept, roots, dual = roots_of(small_graph("relu", "two layers", 1), 2)
    choices, matters = relaxation_gap(kept, roots, dual, 1000, 1.5), influence(dual)
    scores = torch.zeros(len(roots), kept.sites.count).scatter(1, choices.place, choices.score.clamp(min=0))
    assert len(dual.lines) == 2 and any(bool((lines.rows > 0).any()) for lines in dual.lines.values())
    for position, lines in dual.lines.items():
        (source,) = dual.undecided.readers[position].sources
        box = dual.neurons[source]
        width = (-box.lower * box.upper / (box.upper - box.lower)).clamp(min=0).expand_as(lines.rows)
        loss = -lines.rows.clamp(max=0)
        torch.testing.assert_close(scores[:, kept.sites.of[source]], width * (loss + 0.01 * lines.rows.abs()))
        torch.testing.assert_close(matters[source], width * (loss + 0.5 * lines.rows.clamp(min=0)))


def ends(domains: Subproblems) -> Interval:
    """Box and neurons side by side, `[n, all]`; neurons that are inputs are in the box."""
    neurons = [box for source, box in domains.neurons.items() if source]
    boxes = [domains.box.reshape(len(domains), 2), *neurons]
    return Interval(torch.cat([b.lower for b in boxes], 1), torch.cat([b.upper for b in boxes], 1))


def copies_of(kept: Kept, place: int) -> list[bool]:
    """Which of `ends` are the number at a place."""
    inputs = [number == int(kept.sites.inputs[place]) for number in range(2)]
    neurons = [int(site) == place for source, own in kept.sites.of.items() if source for site in own]
    return [*inputs, *neurons]


def test_copies_of_a_number_are_one_site() -> None:
    """Elements with equal values everywhere, and no others."""
    kept, _, _ = roots_of(several.matrices(1), 2)
    values = kept.program.graph.evaluate_all(5 * torch.randn(40, 1, 2, generator=torch.Generator().manual_seed(1)))
    sites = torch.cat(list(kept.sites.of.values())).tolist()
    columns = torch.cat([values[source].flatten(1)[:, index] for source, index in kept.undecided.index.items()], 1)
    pairs = set(zip(sites, map(tuple, columns.T.tolist()), strict=True))
    assert len(sites) > kept.sites.count == len(pairs) == len({column for _, column in pairs})


def test_a_neuron_whose_readers_have_different_kinks() -> None:
    """The split is at a kink that is inside, though the first reader's is not; where neither is, in the middle."""
    b = Small(1, 2, seed=0)
    first = b.dense(0, 3)
    b.dense(b.same(Add((1, 1, 1)), b.same(Relu(), first), b.same(Clip(0.5, 1.5), first), b.same(Sigmoid(), first)), 2)
    kept, roots, dual = roots_of(b.graph(), 1)
    source = next(iter(kept.undecided.index))
    for lower, upper, expected in ((-1.0, 0.25, 0.0), (0.25, 1.25, 0.5), (0.75, 2.0, 1.5), (2.0, 3.0, 2.5)):
        ends = [torch.full_like(roots.neurons[source].lower, end) for end in (lower, upper)]
        domains = roots.replace(neurons={source: Interval(*ends)})
        choices = choices_of(kept, domains, dual_of(kept, domains, dual.objective), 1)
        children = split(kept, domains, choices.place[:, 0], choices.point[:, 0])
        found = children.neurons[source].upper[: len(roots)].amin(1)
        assert found.tolist() == [expected] * len(roots)


def test_inputs_are_split_where_the_coefficients_are_zero() -> None:
    """However narrow the box is: as long as there is a number in between."""
    kept, roots, dual = roots_of(small_graph("relu", "two layers", 1), 2)
    none = {k: Interval(torch.zeros_like(v.lower), torch.zeros_like(v.lower)) for k, v in roots.neurons.items()}
    for width in (0.5, 1e-3, 1e-6):
        box = Interval(torch.zeros_like(roots.box.lower), torch.full_like(roots.box.lower, width))
        narrow = roots.replace(box=box, neurons=none)
        dual = dual_of(kept, narrow, dual.objective)
        assert dual.rows is not None
        dual.rows = torch.zeros_like(dual.rows)
        assert (choices_of(kept, narrow, dual).score[:, 0] > -torch.inf).all(), width


def test_a_point_cannot_be_split() -> None:
    kept, roots, dual = roots_of(small_graph("relu", "two layers", 1), 2)
    point = Interval(roots.box.lower, roots.box.lower)
    none = {k: Interval(torch.ones_like(v.lower), torch.ones_like(v.lower)) for k, v in roots.neurons.items()}
    fixed = roots.replace(box=point, neurons=none)
    dual = dual_of(kept, fixed, dual.objective)
    assert (choices_of(kept, fixed, dual).score == -torch.inf).all()


def test_the_cheapest_neurons_with_most_of_the_influence() -> None:
    """No other set with as much of it is as cheap: by enumeration, but for the last one taken."""
    program = prepare(small_graph("relu", "two layers", 1), torch.float64)
    generator = torch.Generator().manual_seed(0)
    sources = program.splittable
    for share in (0.3, 0.8):
        own = {s: torch.rand(program.graph.nodes[s].size, generator=generator, dtype=torch.float64) for s in sources}
        masks = cheapest(program, own, share)
        total = sum(float(part.sum()) for part in own.values())
        value = torch.cat(list(own.values()))
        price = torch.cat([torch.full_like(own[s], row_price(program.graph, s)) for s in sources])
        taken = torch.cat([masks[s] for s in sources])
        assert float(value[taken].sum()) >= share * total - 1e-12
        last = int((value / price).masked_fill(~taken, torch.inf).argmin())
        without = taken.index_fill(0, torch.tensor([last]), False)
        assert float(value[without].sum()) < share * total
        every = (torch.arange(1 << len(value)).unsqueeze(1) >> torch.arange(len(value))) & 1 > 0
        enough = every.to(value) @ value >= float(value[without].sum())
        assert float(price[without].sum()) <= float((every.to(price) @ price)[enough].min()) + 1e-9
    assert all(bool(mask.all()) for mask in cheapest(program, own, 1.0).values())
    some = {s: torch.full((len(part),), torch.finfo(torch.float32).max) for s, part in own.items()}  # unbounded ones
    assert all(bool(mask.all()) for mask in cheapest(program, some, 1.0).values())


@pytest.mark.parametrize("seed", range(4))
def test_a_search_starts_from_the_multipliers_of_the_root(seed: int) -> None:
    graph = small_graph("relu", "three layers", seed)
    program = prepare(graph, torch.float32)
    problem = build_problem(query_of(random_parts(graph, 3, 2, 3, seed)), torch.float32, "cpu")
    limits = Limits(float("inf"), 1 << 30)
    task = Task(problem, program, lambda: program, SearchSettings(), limits, lambda points, which: False)
    root = Root(task, problem.real)
    kept, roots = root.subproblems()
    objective = objective_of(problem, program, roots.problem, roots.disjunct)
    dual = kept.dual(roots, objective)
    value = dual.value(dual.projected(kept.multipliers(roots)))
    assert bool((value >= roots.bound - 0.02 * (1 + roots.bound.abs())).all()), "but for the short form of multipliers"
