"""Cuts of the pieces of functions where points of a relaxation leave them.

What a neuron's error at a point costs the margin is estimated by the coefficient that the backward pass of the bounds
has for it. The pieces that cost most are cut: of a single argument at the point itself, where the planes of both parts
come near to the function then; of several, in the middle of the one whose cut leaves the planes closest to each other
at the point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from verifier.backends.encoding import Encoding, encoded
from verifier.backends.pieces import LINE, Box, sides
from verifier.backends.protocol import Answer, Budget
from verifier.backends.readings import Reading, readings
from verifier.backends.subproblem import Subproblem
from verifier.bounding.backward import Walk
from verifier.core.flat import flat
from verifier.core.operator import Elementwise
from verifier.core.verdict import Status

SHARE = 0.8  # of the cost of all errors: the neurons that make it up are cut
MARGIN = 0.1  # of a piece's width: cuts keep this distance from its ends
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
    """With pieces cut where the columns `points` `[s, columns]` leave functions; None where there is nothing to cut."""
    cuts = {position: dict(boxes) for position, boxes in subproblem.cuts.items()}
    weights, changed = _weights(subproblem, encoding), False
    for point in points:
        for reading, place in _costly(list(readings(subproblem, encoding, point)), weights):
            element, own = int(reading.elements[place]), cuts.setdefault(reading.position, {})
            whole = ((LINE,) * reading.arguments.shape[1],)
            before = subproblem.cuts.get(reading.position, {}).get(element, whole)
            box = before[reading.pieces.cut[place, reading.chosen[place]]]
            boxes = own.get(element, whole)
            parts = _parts(subproblem, reading, place, box)
            if box in boxes and parts is not None:  # else another point had it cut
                number = boxes.index(box)
                own[element] = (*boxes[:number], *parts, *boxes[number + 1 :])
                changed = True
    return replace(subproblem, cuts=cuts) if changed else None


def _costly(found: list[Reading], weights: dict[int, np.ndarray]) -> list[tuple[Reading, int]]:
    """The neurons whose errors cost most, by their places in readings."""
    cost = np.concatenate([reading.error * weights[reading.position] for reading in found])
    places = [(reading, place) for reading in found for place in range(len(reading.error))]
    order = np.argsort(-cost)
    most = int(np.searchsorted(cost[order].cumsum(), SHARE * cost.sum())) + 1
    return [places[which] for which in order[:most] if cost[which] > 0]


def _weights(subproblem: Subproblem, encoding: Encoding) -> dict[int, np.ndarray]:
    """`[n]` for each node with pieces: by how much the margin changes with the values of its neurons, about."""
    program, found, problem = subproblem.program, subproblem.found, subproblem.problem
    slots = (problem.owner[subproblem.which] == subproblem.disjunct).nonzero().flatten()
    rows = problem.output_rows[problem.row[subproblem.which][slots]].double()
    start = {program.graph.output: rows.reshape(1, -1, *program.graph.output_shape)}
    walk = Walk(program, start, torch.zeros(1, len(slots), dtype=torch.float64), found, 0)
    weights = {}
    for position in range(program.graph.output, 0, -1):
        if position in encoding.neurons.within:
            elements = encoding.groups[position].elements
            own = walk.pending.get(position)
            size = torch.zeros(len(elements)) if own is None else flat(own, 2)[0].abs().amax(0)[elements]
            weights[position] = size.nan_to_num(1.0).numpy() + LEAST_WEIGHT
        if position in walk.pending:
            walk.cross(position)
    return weights


def _parts(subproblem: Subproblem, reading: Reading, place: int, box: Box) -> tuple[Box, Box] | None:
    """Both parts of a box, cut where the arguments of a neuron are; None where it is too narrow."""
    node = subproblem.program.graph.nodes[reading.position]
    assert isinstance(node.op, Elementwise)
    own = node.op.elements(torch.tensor([int(reading.elements[place])]), node.shape)
    piece = reading.chosen[place]
    low, high = reading.pieces.lower[place, piece], reading.pieces.upper[place, piece]
    where = np.clip(reading.arguments[place], low, high)
    keep = MARGIN if len(low) == 1 else 0.5
    at = np.clip(where, low + keep * (high - low), high - keep * (high - low))
    options = [i for i in range(len(low)) if high[i] - low[i] > SHARPEST * (abs(low[i]) + abs(high[i]))]
    if not options:
        return None
    best = min(options, key=lambda i: _gap(own, low, high, where, i, float(at[i])))
    before, behind = (box[best][0], float(at[best])), (float(at[best]), box[best][1])
    return (*box[:best], before, *box[best + 1 :]), (*box[:best], behind, *box[best + 1 :])


def _gap(op: Elementwise, low: np.ndarray, high: np.ndarray, where: np.ndarray, argument: int, at: float) -> float:
    """The distance of the planes at a point, in the part that has it when one argument is cut."""
    lower, upper = low.copy(), high.copy()
    (lower if where[argument] >= at else upper)[argument] = at
    below, above = (
        np.array([float(side.slopes[0, 0] @ where + side.intercept[0, 0]) for side in sided])
        for sided in sides(op, lower[None, None], upper[None, None])
    )
    return float(above.min() - below.max())
