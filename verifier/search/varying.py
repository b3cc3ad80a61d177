"""Tasks over the inputs that vary, where others are fixed and a dense layer or a convolution reads them all.

Most inputs of a generator with a few latent variables, or of a question about a few features, have one value in all
boxes. What these add to the layer is an interval for each of its outputs, worked out once in double precision and far
narrower than any other. What is left has few inputs, so that forward forms are cheap and rows short.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from verifier.bounding.engine import Effort, forward_pays
from verifier.bounding.fields import row_price
from verifier.bounding.interval import affine_interval
from verifier.bounding.program import Program, prepare
from verifier.core.flat import flat
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.rounding import unit
from verifier.ops import Conv, Linear, Near, Reshape
from verifier.search.task import Task

FEW = 0.5  # of the inputs: where more vary, all stays as it is
WORTH = 0.7  # of the price of a row; more, up to all of it, where forward forms become cheap
MOST_SHARE = 1 / 32  # of the memory, for the layer's matrix in both precisions


def over_varying(task: Task) -> Task:
    """The same question about a network whose inputs are those that vary, or the task itself if that does not serve.
    Candidates have the others in the middle of their ends."""
    problem, program, layer = task.problem, task.program, _first_layer(task.program)
    if layer is None or problem.input_rows is not None:
        return task
    places, node = _varying(problem).nonzero().flatten(), program.graph.nodes[0]
    numbers = len(places) * max(node.size, program.graph.nodes[layer].size)
    if not 0 < len(places) <= FEW * node.size or numbers * 16 > MOST_SHARE * task.limits.memory:
        return task
    graph = _reduced(task.precise(), layer, places, problem.box)
    lower, middle, upper = (flat(part) for part in (problem.box.lower, problem.box.middle(), problem.box.upper))
    middle = middle.clamp(lower, upper)  # that of subnormal numbers may be neither

    def make(dtype: torch.dtype) -> Program:
        return prepare(graph, dtype, program.device).asked(problem.output_rows)

    def candidates(points: Tensor, which: Tensor) -> bool:
        return task.candidates(middle[which].index_copy(1, places, flat(points)), which)

    own = replace(problem, box=Interval(lower[:, places], upper[:, places]))
    precise = cache(lambda: make(torch.float64))
    reduced = replace(task, problem=own, program=make(program.dtype), precise=precise, candidates=candidates)
    return reduced if _serves(reduced.program, program, Effort(task.limits.memory // 2)) else task


def _varying(problem: Problem) -> Tensor:
    """Mask `[inputs]` of those that differ by more than a rounding to single precision between any two points."""
    lower, upper = flat(problem.box.lower).amin(0), flat(problem.box.upper).amax(0)
    width, size = upper - lower, torch.maximum(lower.abs(), upper.abs())
    return (width > 2 * unit(torch.float32) * size) | width.isinf()


def _first_layer(program: Program) -> int | None:
    """The dense layer or convolution that alone reads the inputs, all of them as they are; None if there is none."""
    graph, origins = program.graph, program.origins
    readers = [k for k, node in enumerate(graph.nodes) if origins[k] and any(not origins[s] for s in node.inputs)]
    if len(readers) != 1 or not origins[graph.output]:
        return None
    (layer,) = readers
    if not isinstance(graph.nodes[layer].op, Linear | Conv):
        return None
    same = torch.arange(1, graph.nodes[0].size + 1, device=program.device)
    return layer if torch.equal(program.places_at(graph.nodes[layer].inputs[0], 0), same) else None


def _serves(reduced: Program, program: Program, effort: Effort) -> bool:
    """Whether it makes rows short, or forward forms cheap."""
    share = row_price(reduced.graph, reduced.graph.output) / row_price(program.graph, program.graph.output)
    return share <= WORTH or (share <= 1 and forward_pays(reduced, effort) and not forward_pays(program, effort))


def _reduced(program: Program, layer: int, places: Tensor, box: Interval) -> Graph:
    """The network, in double precision, with that layer reading the inputs `places` `[k]`. `box`: where the others are.

    An output reads each input once: so what the layer makes of unit vectors are its weights, without a rounding."""
    graph, node = program.graph, program.graph.nodes[layer]
    assert isinstance(node.op, Linear | Conv)
    shape, size = graph.nodes[node.inputs[0]].shape, graph.nodes[0].size
    units = torch.zeros((len(places), size), dtype=torch.float64, device=program.device)
    units.scatter_(1, places.unsqueeze(1), 1.0)
    weight = flat(node.op.linear(units.reshape(-1, *shape))).T.contiguous()
    hull = (flat(box.lower).amin(0), flat(box.upper).amax(0))
    fixed = Interval(*(end.double().index_fill(0, places, 0.0).reshape(1, *shape) for end in hull))
    bias, radius = (flat(part)[0] for part in affine_interval(node.op, node.op.absolute(), (fixed,)).around())
    nodes = [
        Node(graph.nodes[0].name, Input(), (), (len(places),)),
        Node(f"{node.name}_varying", Linear(weight, bias), (0,), (node.size,), node.origin),
        Node(f"{node.name}_near", Near(radius), (1,), (node.size,), node.origin),
        Node(node.name, Reshape((node.size,), node.shape), (2,), node.shape, node.origin),
    ]
    found = {layer: 3}
    for position, own in enumerate(graph.nodes):
        if position != layer and program.origins[position]:  # behind the layer, or constant
            found[position] = len(nodes)
            nodes.append(replace(own, inputs=tuple(found[source] for source in own.inputs)))
    return Graph(tuple(nodes), found[graph.output])
