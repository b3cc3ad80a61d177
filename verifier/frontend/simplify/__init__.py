"""Rewrites of a graph that compute the same function, exactly, applied until nothing changes."""

from __future__ import annotations

from verifier.core.graph import Graph
from verifier.frontend.simplify.bias import absorb_shifts
from verifier.frontend.simplify.dead import drop_dead
from verifier.frontend.simplify.moves import merge_moves

PASSES = (merge_moves, absorb_shifts, drop_dead)


def simplify(graph: Graph) -> Graph:
    """Every pass returns the same object where it has nothing to do."""
    while True:
        before = graph
        for rewrite in PASSES:
            graph = rewrite(graph)
        if graph is before:
            return graph
