"""Which means the engine takes: forward forms only where they fit, and bounds hold with and without them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from verifier.bounding import engine
from verifier.bounding.engine import ROW_OPERATIONS, Effort, bound_nodes, forward_pays, most_rows
from verifier.bounding.program import prepare
from verifier.bounding.specification import bound_rows
from verifier.core.flat import flat
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.ops import Conv, Linear, Relu
from verifier.ops.window import Window


def network(inputs: int, width: int) -> Graph:
    generator = torch.Generator().manual_seed(0)
    nodes, size = [Node("x", Input(), (), (1, inputs))], inputs
    for layer in range(3):
        weight = torch.randn(width, size, generator=generator) / size**0.5
        nodes.append(Node(f"z{layer}", Linear(weight), (len(nodes) - 1,), (1, width)))
        nodes.append(Node(f"y{layer}", Relu(), (len(nodes) - 1,), (1, width)))
        size = width
    return Graph(tuple(nodes), len(nodes) - 1)


def test_forward_forms_are_for_few_inputs_and_within_memory() -> None:
    few = prepare(network(5, 50), torch.float32)
    assert forward_pays(few, Effort())
    assert not forward_pays(few, Effort(memory=8 * 4 * 6 * 305 - 8))
    assert not forward_pays(prepare(network(60, 50), torch.float32), Effort())


def test_bounds_contain_the_values_with_and_without_forward_forms() -> None:
    program = prepare(network(5, 50), torch.float32)
    center = torch.randn(7, 1, 5, generator=torch.Generator().manual_seed(1))
    box = Interval(center - 0.1, center + 0.1)
    for memory in (1 << 30, 1 << 12):
        found = bound_nodes(program, box, effort=Effort(memory))
        assert bool(found.forms) == (memory > 1 << 20)
        for corner in (box.lower, center, box.upper):
            values = program.graph.to(torch.float64).evaluate_all(corner.double())
            for position, value in values.items():
                interval = found.intervals[position].to(torch.float64)
                assert (interval.lower <= value).all() and (value <= interval.upper).all()


def image_network() -> Graph:
    """Two convolutions of an image of one channel, 8 x 8, and sums of both in between."""
    generator = torch.Generator().manual_seed(3)
    window = Window((8, 8), (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    weight = lambda out, channels: torch.randn(out, channels, 3, 3, generator=generator)  # noqa: E731
    nodes = (
        Node("x", Input(), (), (1, 1, 8, 8)),
        Node("a", Conv(weight(2, 1), window), (0,), (1, 2, 8, 8)),
        Node("r", Relu(), (1,), (1, 2, 8, 8)),
        Node("b", Conv(weight(2, 2), window), (2,), (1, 2, 8, 8)),
        Node("s", Relu(), (3,), (1, 2, 8, 8)),
        Node("y", Conv(weight(1, 2), window), (4,), (1, 1, 8, 8)),
    )
    return Graph(nodes, 5)


def test_only_what_the_rows_see_is_bounded() -> None:
    """The output's middle element sees 3 x 3 positions of the last layer and 5 x 5 of the first, and bounds of it do
    not depend on the others."""
    whole = prepare(image_network(), torch.float32)
    rows = torch.zeros(1, 64)
    rows[0, 3 * 8 + 3] = 1.0
    asked = whole.asked(rows)
    masks = {position: mask.reshape(2, 8, 8) for position, mask in asked.read.items()}
    expected = {4: (slice(2, 5), slice(2, 5)), 2: (slice(1, 6), slice(1, 6))}
    assert set(masks) == set(expected)
    for position, part in expected.items():
        assert masks[position][:, *part].all() and int(masks[position].sum()) == 2 * len(range(8)[part[0]]) ** 2
    x = torch.randn(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    box = Interval(x - 0.3, x + 0.3)
    full, less = bound_nodes(whole, box), bound_nodes(asked, box)
    width = lambda found: flat(found.intervals[3].upper - found.intervals[3].lower)[0].reshape(2, 8, 8)  # noqa: E731
    assert torch.equal(width(full)[:, 2:5, 2:5], width(less)[:, 2:5, 2:5])
    assert float(width(less).sum()) > 1.01 * float(width(full).sum())
    lowest = []
    for program, found in ((whole, full), (asked, less)):
        start, bias = {5: rows.reshape(1, 1, 1, 1, 8, 8)}, torch.zeros(1, 1)
        lowest.append(float(bound_rows(program, found, start, bias, Effort()).minimum(box)))
    assert lowest[0] == lowest[1]
    assert not whole.asked(torch.ones(1, 64)).read


def test_rows_that_see_nothing_ask_for_nothing() -> None:
    asked = prepare(network(5, 50), torch.float32).asked(torch.zeros(1, 50))
    assert asked.read and not any(bool(mask.any()) for mask in asked.read.values())


@pytest.mark.parametrize(("deadline", "done"), [(0.5, 0), (2.0, 1), (5.9, 1), (7.0, 2), (float("inf"), 5)])
def test_blocks_begin_while_there_is_time_for_another_like_the_last(
    deadline: float, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 3 seconds, though at the pace that is expected it would be one."""
    now = 0.0
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now))
    block = torch.zeros(1, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long)
    seen = 0
    for _ in engine._timely(iter([block] * 5), ROW_OPERATIONS / 8, deadline):
        now, seen = now + 3.0, seen + 1
    assert seen == done


@pytest.mark.parametrize(("rows", "both_sides"), [(10, 5), (0.5, 1)])
def test_a_pass_of_dear_rows_has_few(rows: float, both_sides: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = prepare(network(3, 20), torch.float32)
    output = program.graph.output
    assert most_rows(program, output, Effort()) > 5
    monkeypatch.setattr(engine, "BLOCK_OPERATIONS", rows * program.operations_to(output))
    assert most_rows(program, output, Effort()) == both_sides
