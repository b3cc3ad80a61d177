"""Cuts of the pieces of functions where points of a relaxation leave them.

A neuron's error at a point is the distance of its value there from the function of its arguments there. What it costs
the margin is estimated by the coefficient that the backward pass of the bounds has for it. Those that cost most are
cut, at the point itself, so that the planes of both parts come near to the function there; of several arguments the one
whose cut leaves the planes closest to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.backends.encoding import Encoding, encoded
from verifier.backends.pieces import Box, Pieces, sides
from verifier.backends.protocol import Answer, Budget
from verifier.backends.subproblem import Subproblem
from verifier.bounding.backward import Walk
from verifier.core.flat import flat
from verifier.core.operator import Elementwise
from verifier.core.verdict import Status

SHARE = 0.8  # of the cost of all errors: the neurons that make it up are cut
MARGIN = 0.1  # of a piece's width: cuts keep this distance from its ends
NEGLIGIBLE = 1e-7  # of a neuron's range: errors below it are rounding
LEAST_WEIGHT = 1e-9  # planes may be flat where the function is not
SHARPEST = 1e-6  # of a piece, relative to the size of its ends: narrower ones are not cut


def solve_refining(subproblem: Subproblem, budget: Budget, attempt: Callable[[Subproblem, Encoding], Answer]) -> Answer:
    """The answer of `attempt`, repeated with more cuts as long as it is undecided for the want of them."""
    while True:
        encoding = encoded(subproblem)
        if isinstance(encoding, Answer):
            return encoding
        answer = replace(attempt(subproblem, encoding), cuts=subproblem.cuts)
        if answer.loose is None:
            return answer
        if budget.spent():
            return replace(answer, status=Status.TIMEOUT, reason="time was up while functions were cut into pieces")
        finer = refined(subproblem, encoding, answer.loose)
        if finer is None or finer.obstacle() is not None:
            return answer
        subproblem = finer


@torch.no_grad()
def refined(subproblem: Subproblem, encoding: Encoding, points: np.ndarray) -> Subproblem | None:
    """With pieces cut where the columns `points` `[s, columns]` do not follow the network; None where they do."""
    cuts = {position: dict(boxes) for position, boxes in subproblem.cuts.items()}
    weights = _weights(subproblem, encoding)
    cut = False
    for point in points:
        wanted = _costly(subproblem, encoding, point, weights)
        for position, place, where in wanted:
            group = encoding.groups[position]
            assert group.pieces is not None
            element = int(group.elements[place])
            whole: tuple[Box, ...] = (((-np.inf, np.inf),) * group.pieces.lower.shape[2],)
            boxes = cuts.setdefault(position, {}).get(element, whole)
            found = _cut(subproblem, position, element, group.pieces, place, boxes, where)
            cuts[position][element] = found
            cut |= len(found) > len(boxes)
    return replace(subproblem, cuts=cuts) if cut else None


def _costly(
    subproblem: Subproblem, encoding: Encoding, point: np.ndarray, weights: dict[int, np.ndarray]
) -> list[tuple[int, int, np.ndarray]]:
    """Node, place in its group and arguments `[k]` of the neurons to cut."""
    costs, found = [], []
    for position, weight in weights.items():
        group, arguments = encoding.groups[position], _arguments(encoding, position, point)
        mine = encoding.neurons.of(position)
        neurons = encoding.neurons
        value = neurons.start[mine] + neurons.spread[mine] * point[neurons.own[mine]]
        error = np.abs(value - _function(subproblem, position, group.elements, arguments))
        cost = np.where(error > NEGLIGIBLE * neurons.spread[mine], error * weight, 0.0)
        costs.append(np.nan_to_num(cost, posinf=0.0))
        found += [(position, place, arguments[place]) for place in range(len(mine))]
    cost = np.concatenate(costs) if costs else np.zeros(0)
    order = np.argsort(-cost)
    most = int(np.searchsorted(cost[order].cumsum(), SHARE * cost.sum())) + 1
    return [found[place] for place in order[:most] if cost[place] > 0]


def _arguments(encoding: Encoding, position: int, point: np.ndarray) -> np.ndarray:
    """`[n, k]`: where a point's columns put the arguments of a node's neurons with pieces."""
    pieces, within = encoding.groups[position].pieces, encoding.within[position]
    assert pieces is not None
    mine = encoding.neurons.of(position)
    real = encoding.neurons.real[mine][:, : within.shape[1]]
    columns = encoding.neurons.columns[mine][:, : within.shape[1]]
    chosen = np.where(real, 1 - point[columns], 0.0)
    chosen[~real.any(1), 0] = 1.0
    inside = np.where(within > 0, point[within] * (pieces.upper - pieces.lower), 0.0)
    return (pieces.lower * chosen[:, :, None] + inside).sum(1)


def _function(subproblem: Subproblem, position: int, elements: Tensor, arguments: np.ndarray) -> np.ndarray:
    node = subproblem.program.graph.nodes[position]
    assert isinstance(node.op, Elementwise)
    own = node.op.elements(elements, node.shape)
    return own.evaluate(*(torch.from_numpy(x)[None] for x in arguments.T.copy()))[0].numpy()


def _weights(subproblem: Subproblem, encoding: Encoding) -> dict[int, np.ndarray]:
    """`[n]` for each node with pieces: by how much the margin changes with the values of its neurons, about."""
    program, found, problem = subproblem.program, subproblem.found, subproblem.problem
    slots = (problem.owner[subproblem.which] == subproblem.disjunct).nonzero().flatten()
    rows = problem.output_rows[problem.row[subproblem.which][slots]].double()
    start = {program.graph.output: rows.reshape(1, -1, *program.graph.output_shape)}
    walk = Walk(program, start, torch.zeros(1, len(slots), dtype=torch.float64), found.intervals, found.planes, 0)
    weights = {}
    for position in range(program.graph.output, 0, -1):
        group = encoding.groups.get(position)
        if group is not None and group.pieces is not None and len(group.elements):
            own = walk.pending.get(position)
            size = torch.zeros(len(group.elements)) if own is None else flat(own, 2)[0].abs().amax(0)[group.elements]
            weights[position] = size.nan_to_num(1.0).numpy() + LEAST_WEIGHT
        if position in walk.pending:
            walk.cross(position)
    return weights


def _cut(
    subproblem: Subproblem,
    position: int,
    element: int,
    pieces: Pieces,
    place: int,
    boxes: tuple[Box, ...],
    where: np.ndarray,
) -> tuple[Box, ...]:
    """The boxes, with that of the arguments `where` `[k]` cut in two."""
    node = subproblem.program.graph.nodes[position]
    assert isinstance(node.op, Elementwise)
    own = node.op.elements(torch.tensor([element]), node.shape)
    lower, upper = pieces.lower[place][pieces.real[place]].min(0), pieces.upper[place][pieces.real[place]].max(0)
    where = np.clip(where, lower, upper)
    for number, box in enumerate(boxes):
        low, high = np.maximum(lower, [low for low, _ in box]), np.minimum(upper, [high for _, high in box])
        if not ((low <= where) & (where <= high)).all():
            continue
        at = np.clip(where, low + MARGIN * (high - low), high - MARGIN * (high - low))
        options = [i for i in range(len(at)) if high[i] - low[i] > SHARPEST * (abs(low[i]) + abs(high[i]))]
        if not options:
            return boxes
        best = min(options, key=lambda i: _width(own, low, high, i, at[i]))
        parts = [(*box[:best], end, *box[best + 1 :]) for end in _halves(box[best], float(at[best]))]
        return (*boxes[:number], *parts, *boxes[number + 1 :])
    return boxes


def _halves(ends: tuple[float, float], at: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (ends[0], at), (at, ends[1])


def _width(op: Elementwise, low: np.ndarray, high: np.ndarray, argument: int, at: float) -> float:
    """The larger distance of the planes in the middle of the two halves that a cut of one argument leaves."""
    lower, upper = np.stack([low, low])[None], np.stack([high, high])[None]
    lower[0, 1, argument] = upper[0, 0, argument] = at
    below, above = (sided[0] for sided in sides(op, lower, upper))
    middle = lower / 2 + upper / 2
    return float((((above.slopes - below.slopes) * middle).sum(2) + above.intercept - below.intercept).max())
