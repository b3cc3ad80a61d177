"""The part of a network that some outputs depend on gives these outputs the same values and bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import verifier
from tests.bounding.test_crop import SHAPES, Images, boxes, graph_of
from tests.soundness.graphs import FAMILIES
from verifier import pipeline
from verifier.bounding import excerpt as module
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.excerpt import excerpt
from verifier.bounding.program import prepare
from verifier.bounding.specification import bound_rows
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.ops import LeakyRelu, Linear, Reshape

ROOT = Path(__file__).parents[2]


def ended(name: str, flat: bool) -> Graph:
    """One of the graphs of convolutions, its output as a vector where `flat`."""
    graph = graph_of(name)
    if not flat:
        return graph
    builder = Images(*graph.input_shape)
    builder.nodes = list(graph.nodes)
    shape = graph.output_shape
    builder.add(Reshape(shape, (1, graph.nodes[-1].size)), [graph.output], (1, graph.nodes[-1].size))
    return builder.graph()


def rows_below(graph: Graph, dtype: torch.dtype, rows: Tensor, box: Interval) -> Tensor:
    """Lower bounds of `rows` `[n, outputs]` over one box."""
    program = prepare(graph, dtype).asked(rows)
    found = bound_nodes(program, box)
    start = {graph.output: rows.to(dtype).reshape(1, len(rows), *graph.output_shape)}
    return bound_rows(program, found, start, torch.zeros(1, len(rows), dtype=dtype), Effort()).minimum(box)[0]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", list(SHAPES))
def test_values_and_bounds_of_what_is_asked_for(name: str, flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORTH", 1.0)
    graph = ended(name, flat)
    program = prepare(graph, torch.float64)
    generator = torch.Generator().manual_seed(3)
    size, made = graph.nodes[graph.output].size, 0
    for count in (1, 2, 3):
        outputs = torch.randperm(size, generator=generator)[:count]
        part = excerpt(program, outputs)
        assert part.output_shape == graph.output_shape and part.input_shape == graph.input_shape
        made += part is not program.graph
        box = boxes(graph, 1, torch.float64, seed=count)
        whole, less = (one.evaluate(box.lower).flatten() for one in (graph, part))
        torch.testing.assert_close(less[outputs], whole[outputs])
        again = excerpt(prepare(part, torch.float64), outputs[:1]).evaluate(box.lower).flatten()
        torch.testing.assert_close(again[outputs[:1]], whole[outputs[:1]])
        assert ((less == 0) | torch.isclose(less, whole)).all()
        rows = torch.zeros(2, size, dtype=torch.float64)
        rows[:, outputs] = torch.randn(2, count, dtype=torch.float64, generator=generator)
        expected, got = (rows_below(one, torch.float64, rows, box) for one in (graph, part))
        close = 1e-3 * (1 + expected.abs())  # forward forms may serve one and not the other
        assert (got >= expected - close).all()
        single = Interval(box.lower.float(), box.upper.float())
        low = rows_below(part, torch.float32, rows.float(), single)
        share = torch.rand(200, *graph.input_shape, dtype=torch.float64, generator=generator).round(decimals=1)
        points = single.lower.double() + share * (single.upper.double() - single.lower.double())
        values = graph.evaluate(points).flatten(1) @ rows.float().double().T
        assert (values.amin(0) >= low.double() - 1e-12).all()
    assert made
    corner = excerpt(program, torch.tensor([0]))
    assert corner.size < graph.size or name == "volume"


def test_a_network_that_is_read_as_a_whole_stays_what_it_is() -> None:
    program = prepare(graph_of("plain"), torch.float64)
    every = torch.arange(program.graph.nodes[program.graph.output].size)
    assert excerpt(program, every) is program.graph
    assert excerpt(program, every[:0]) is program.graph
    dense = prepare(FAMILIES["dense"]("relu", seed=1), torch.float64)
    assert excerpt(dense, torch.tensor([0])) is dense.graph


def test_slopes_that_differ_from_place_to_place_go_with_their_elements() -> None:
    b = Images(1, 2, 6, 7, seed=2)
    z = b.conv(0, 3, 3, 1, (1, 1))
    b.conv(b.same(LeakyRelu(b.normal(1, 6, 7)), z), 2, 3, 1, (1, 1))
    graph = b.graph()
    outputs = torch.tensor([2 * 7 + 1, 42 + 3 * 7 + 1])
    part = excerpt(prepare(graph, torch.float64), outputs)
    x = boxes(graph, 5, torch.float64).lower
    assert part.size < graph.size
    torch.testing.assert_close(part.evaluate(x).flatten(1)[:, outputs], graph.evaluate(x).flatten(1)[:, outputs])


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_part_that_computes_something_else_is_not_used(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = verifier.load(ROOT / "onnx_models" / "cartpole.onnx")
    query = verifier.read_property(ROOT / "vnnlib" / "cartpole_unsafe_11.vnnlib")
    layer = next(k for k, node in enumerate(network.graph.nodes) if isinstance(node.op, Linear))
    nodes = list(network.graph.nodes)
    assert isinstance(nodes[layer].op, Linear)
    nodes[layer] = replace(nodes[layer], op=replace(nodes[layer].op, weight=nodes[layer].op.weight * factor))
    other = Graph(tuple(nodes), network.graph.output)
    monkeypatch.setattr(pipeline, "excerpt", lambda program, outputs: other)
    assert (pipeline._part_read(network, query) is other) == (factor == 1.0)


def test_a_network_that_is_read_whole_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    network = verifier.load(ROOT / "onnx_models" / "cartpole.onnx")
    query = verifier.read_property(ROOT / "vnnlib" / "cartpole_unsafe_11.vnnlib")
    monkeypatch.setattr(pipeline, "excerpt", lambda program, outputs: program.graph)
    monkeypatch.setattr(pipeline, "outputs_at", None)
    assert pipeline._part_read(network, query) is network.graph
