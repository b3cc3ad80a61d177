"""Tasks over the inputs that vary, where others are fixed and a dense layer reads them all.

Most inputs of a generator with a few latent variables, or of a question about a few features, have one value in all
boxes. What these add to the layer is an interval for each of its outputs, worked out once in double precision and far
narrower than any other. What is left has few inputs, so that forward forms are cheap and rows short.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from verifier.bounding.fields import row_price
from verifier.bounding.interval import affine_interval
from verifier.bounding.program import Program, prepare
from verifier.core.flat import flat
from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.rounding import unit
from verifier.ops import Linear, Near
from verifier.search.task import Task

WORTH = 0.7  # of the price of a row: where less is saved, all stays as it is


def over_varying(task: Task) -> Task:
    """The same question about a network whose inputs are those that vary, or the task itself if that saves little.
    Candidates have the others in the middle of their ends."""
    problem, layer = task.problem, _first_layer(task.program)
    if layer is None or problem.input_rows is not None:
        return task
    varying = _varying(problem)
    places, node = varying.nonzero().flatten(), task.program.graph.nodes[layer]
    saved = 2 * node.size * (len(varying) - len(places))
    if not len(places) or saved < (1 - WORTH) * row_price(task.program.graph, task.program.graph.output):
        return task
    graph = _reduced(task.precise(), layer, varying, problem.box)
    box, middle = (flat(end)[:, places] for end in (problem.box.lower, problem.box.upper)), flat(problem.box.middle())

    def make(dtype: torch.dtype) -> Program:
        return prepare(graph, dtype, task.program.device).asked(problem.output_rows)

    def candidates(points: Tensor, which: Tensor) -> bool:
        return task.candidates(middle[which].index_copy(1, places, flat(points)), which)

    own = replace(problem, box=Interval(*box))
    precise = cache(lambda: make(torch.float64))
    return replace(task, problem=own, program=make(task.program.dtype), precise=precise, candidates=candidates)


def _varying(problem: Problem) -> Tensor:
    """Mask `[inputs]` of those that differ by more than a rounding to single precision between any two points."""
    lower, upper = flat(problem.box.lower).amin(0), flat(problem.box.upper).amax(0)
    return upper - lower > 2 * unit(torch.float32) * torch.maximum(lower.abs(), upper.abs())


def _first_layer(program: Program) -> int | None:
    """The dense layer that alone reads the inputs, all of them as they are; None if there is none."""
    graph, origins = program.graph, program.origins
    readers = {k for k, node in enumerate(graph.nodes) if origins[k] and any(not origins[s] for s in node.inputs)}
    if len(readers) != 1 or not origins[graph.output]:
        return None
    (layer,) = readers
    node, size = graph.nodes[layer], graph.nodes[0].size
    if not isinstance(node.op, Linear) or node.size != len(node.op.weight):
        return None
    same = torch.arange(1, size + 1, device=program.device)
    return layer if torch.equal(program.places_at(node.inputs[0], 0), same) else None


def _reduced(program: Program, layer: int, varying: Tensor, box: Interval) -> Graph:
    """The network, in double precision, with that layer reading the inputs that vary. `box`: where the others are."""
    graph, node = program.graph, program.graph.nodes[layer]
    assert isinstance(node.op, Linear)
    fixed = Linear(node.op.weight[:, ~varying], node.op.bias)
    ends = (flat(end)[:, ~varying] for end in (box.lower.amin(0)[None], box.upper.amax(0)[None]))
    known = affine_interval(fixed, fixed.absolute(), (Interval(*ends).to(torch.float64),))
    bias, radius = (part[0] for part in known.around())
    weight = node.op.weight[:, varying]
    nodes = [
        Node(graph.nodes[0].name, Input(), (), (1,) * (len(node.shape) - 1) + (weight.shape[1],)),
        Node(f"{node.name}_varying", Linear(weight, bias), (0,), node.shape, node.origin),
        Node(node.name, Near(radius.reshape(node.shape)), (1,), node.shape, node.origin),
    ]
    places = {layer: 2}
    for position, own in enumerate(graph.nodes):
        if isinstance(own.op, Constant) or (position > layer and program.origins[position]):
            places[position] = len(nodes)
            nodes.append(replace(own, inputs=tuple(places[source] for source in own.inputs)))
    return Graph(tuple(nodes), places[graph.output])
