"""Which means the engine takes: forward forms only where they fit, and bounds hold with and without them."""

from __future__ import annotations

import torch

from verifier.bounding.engine import Effort, bound_nodes, forward_pays
from verifier.bounding.program import prepare
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.ops import Linear, Relu


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
