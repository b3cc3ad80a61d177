"""All of a network that a question depends on, as a network of its own.

A property of a few positions of an output map, as those of detectors are, reads a part of each map before it, the
smaller the nearer to the output. What takes a pass over the network then takes one over these parts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.bounding.boxed import boxed, joined
from verifier.bounding.engine import at_origin
from verifier.bounding.fields import follow, row_price
from verifier.bounding.program import Program
from verifier.core.graph import Graph
from verifier.core.operator import Affine
from verifier.core.regions import Regions
from verifier.ops import Select

WORTH = 0.9  # of what a row costs: an excerpt that saves less is not made


def excerpt(program: Program, outputs: Tensor) -> Graph:
    """The network of `program` as far as its outputs at the flat positions `outputs` `[n]` depend on it; those of the
    others that were left out are 0. The same network where little is, as where everything depends on everything."""
    graph = program.graph
    wanted = torch.zeros(1, graph.nodes[graph.output].size, dtype=program.dtype, device=program.device)
    wanted[:, outputs] = 1.0
    origin = program.origins[graph.output]
    at = at_origin(program, graph.output, wanted.reshape(1, *graph.output_shape))[0].nonzero().cpu().numpy()
    if not len(at):
        return graph
    fields = follow(graph, origin, Regions(at.min(0, keepdims=True), at.max(0, keepdims=True) + 1))
    if fields is None or float(fields.row[0]) > WORTH * row_price(graph, origin):
        return graph
    inner, box = boxed(fields, np.array([0])), fields.boxes[origin]
    nodes = joined(graph.nodes[: fields.cut + 1], tuple(inner.starts[0][0].tolist()), inner.graph)
    number = torch.zeros(graph.nodes[origin].shape, dtype=program.dtype, device=program.device)
    number[box.slices()] = torch.arange(1.0, int(box.elements[0]) + 1).to(number).reshape(box.shape())
    for position in program.moves_to(graph.output):
        move = graph.nodes[position].op
        assert isinstance(move, Affine)
        number = move.linear(number.unsqueeze(0))[0]
    spread = Select(number.round().long() - 1, box.shape())
    last = replace(graph.nodes[graph.output], op=spread, inputs=(len(nodes) - 1,))
    return Graph((*nodes, last), len(nodes))
