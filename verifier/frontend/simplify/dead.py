"""Drops nodes that the output does not depend on."""

from __future__ import annotations

from dataclasses import replace

from verifier.core.graph import Graph


def drop_dead(graph: Graph) -> Graph:
    """The input stays, whether it is read or not."""
    alive = {0, graph.output}
    for position in range(graph.output, -1, -1):
        if position in alive:
            alive.update(graph.nodes[position].inputs)
    if len(alive) == len(graph.nodes):
        return graph
    place = {old: new for new, old in enumerate(sorted(alive))}
    nodes = (graph.nodes[old] for old in sorted(alive))
    return Graph(
        tuple(replace(node, inputs=tuple(place[source] for source in node.inputs)) for node in nodes),
        place[graph.output],
    )
