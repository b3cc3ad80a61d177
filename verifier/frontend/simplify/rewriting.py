"""The one way in which passes change a graph: walk it once, replacing nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from verifier.core.graph import Graph, Node

Rule = Callable[[list[Node], Node, Graph, int], "Node | int"]
"""From the new nodes so far, a node whose inputs already point at these, and the old graph with the node's old
position: the node to append, or the position of a new node that has the same value."""


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """The graph with `rule` applied to every node but the input; the same object where nothing changed."""
    nodes, place, changed = [graph.nodes[0]], {0: 0}, False
    for position, node in enumerate(graph.nodes[1:], start=1):
        inputs = tuple(place[source] for source in node.inputs)
        moved = node if inputs == node.inputs else replace(node, inputs=inputs)
        result = rule(nodes, moved, graph, position)
        changed = changed or result is not moved
        if isinstance(result, int):
            place[position] = result
        else:
            place[position] = len(nodes)
            nodes.append(result)
    return Graph(tuple(nodes), place[graph.output]) if changed else graph
