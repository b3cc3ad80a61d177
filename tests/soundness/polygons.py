"""An independent decision procedure for piecewise-linear graphs of two inputs: every activation region is a polygon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

from verifier.core.graph import Constant, Graph, Node
from verifier.core.operator import Affine, Op
from verifier.ops import Abs, Clip, LeakyRelu, Maximum, Minimum, Relu

SLIVER = 1e-12  # an area below which a part adds nothing to a continuous function's minimum

Map = tuple[np.ndarray, np.ndarray]
"""A node's value as `matrix x + constant`: `[size, 2]`, `[size]`."""
Region = tuple[np.ndarray, list[Map]]
"""Corners `[n, 2]` in order, and the maps of the nodes so far."""
Conjunction = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows `c . y + d . x <= b`: `c` `[rows, outputs]`, `d` `[rows, 2]`, `b` `[rows]`."""


def least_margin(graph: Graph, lower: np.ndarray, upper: np.ndarray, disjuncts: Sequence[Conjunction]) -> float:
    """min over x in the box and over disjuncts of max over rows of `c . y + d . x - b`: at most 0 iff x violates."""
    corners = np.array([lower, [upper[0], lower[1]], upper, [lower[0], upper[1]]])
    return min(
        _least_maximum(polygon, c @ maps[graph.output][0] + d, c @ maps[graph.output][1] - b)
        for polygon, maps in _regions(graph, corners)
        for c, d, b in disjuncts
    )


def _regions(graph: Graph, corners: np.ndarray) -> list[Region]:
    found: list[Region] = [(corners, [(np.eye(2), np.zeros(2))])]
    for node in graph.nodes[1:]:
        if isinstance(node.op, Constant | Affine):
            for _, maps in found:
                maps.append(_affine(graph, node, maps))
        else:
            found = [part for region in found for part in _bent(node, region)]
    return found


def _affine(graph: Graph, node: Node, maps: list[Map]) -> Map:
    if isinstance(node.op, Constant):
        return np.zeros((node.size, 2)), node.op.value.expand(node.shape).flatten().numpy()
    assert isinstance(node.op, Affine)
    columns = [
        torch.from_numpy(np.column_stack(maps[source]).T.copy()).reshape(3, *graph.nodes[source].shape)
        for source in node.inputs
    ]
    result = node.op.linear(*columns).reshape(3, -1).numpy()
    offset = node.op.offset()
    return result[:2].T, result[2] + (0.0 if offset is None else offset.expand(node.shape).flatten().numpy())


def _bent(node: Node, region: Region) -> Iterator[Region]:
    """The parts on which every element of a nonlinear node takes one of its pieces."""
    parts: list[tuple[np.ndarray, list[tuple[np.ndarray, float]]]] = [(region[0], [])]
    for element in range(node.size):
        arguments = [(region[1][s][0][element], float(region[1][s][1][element])) for s in node.inputs]
        grown = []
        for polygon, done in parts:
            for sides, piece in _pieces(node.op, arguments):
                inside = _cut(polygon, sides)
                if len(inside) and (_area(inside) > SLIVER or _area(polygon) <= SLIVER):
                    grown.append((inside, [*done, piece]))
        parts = grown
    for polygon, done in parts:
        yield polygon, [*region[1], (np.array([m for m, _ in done]), np.array([c for _, c in done]))]


def _pieces(
    op: Op, arguments: list[tuple[np.ndarray, float]]
) -> list[tuple[list[tuple[np.ndarray, float]], tuple[np.ndarray, float]]]:
    """Where each linear piece holds, as `normal . x + offset <= 0`, and the piece itself."""
    if isinstance(op, Maximum | Minimum):
        sign = 1.0 if isinstance(op, Maximum) else -1.0
        return [([(sign * (m - n), sign * (c - d)) for m, c in arguments], (n, d)) for n, d in arguments]
    normal, offset = arguments[0]
    kinks, lines = _one_argument(op)
    found = []
    for (low, high), (slope, intercept) in zip(pairwise([-np.inf, *kinks, np.inf]), lines, strict=True):
        sides = [(-normal, low - offset)] if low > -np.inf else []
        sides += [(normal, offset - high)] if high < np.inf else []
        found.append((sides, (slope * normal, slope * offset + intercept)))
    return found


def _one_argument(op: Op) -> tuple[list[float], list[tuple[float, float]]]:
    """Kinks, and slope and intercept of each piece between them."""
    if isinstance(op, Clip):
        return [op.minimum, op.maximum], [(0.0, op.minimum), (1.0, 0.0), (0.0, op.maximum)]
    if isinstance(op, LeakyRelu):
        return [0.0], [(float(op.slope), 0.0), (1.0, 0.0)]
    assert isinstance(op, Relu | Abs), op
    return [0.0], [(-1.0 if isinstance(op, Abs) else 0.0, 0.0), (1.0, 0.0)]


def _cut(polygon: np.ndarray, sides: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """The part of a convex polygon on the inner side of every line (Sutherland and Hodgman 1974)."""
    for normal, offset in sides:
        values = polygon @ normal + offset
        if (values <= 0).all():
            continue
        corners = []
        for place in range(len(polygon)):
            here, before = values[place], values[place - 1]
            if (here <= 0) != (before <= 0):
                share = before / (before - here)
                corners.append(polygon[place - 1] + share * (polygon[place] - polygon[place - 1]))
            if here <= 0:
                corners.append(polygon[place])
        polygon = np.array(corners).reshape(-1, 2)
    return polygon


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _least_maximum(polygon: np.ndarray, slopes: np.ndarray, constants: np.ndarray) -> float:
    """min over the polygon of the largest of the rows `slopes . x + constants`."""
    best = np.inf
    for slope, constant in zip(slopes, constants, strict=True):
        where = _cut(polygon, [(s - slope, c - constant) for s, c in zip(slopes, constants, strict=True)])
        best = min([best, *(where @ slope + constant)])
    return best
