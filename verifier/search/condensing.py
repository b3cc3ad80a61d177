"""Tasks over a network that is condensed to what bounds over their boxes leave undecided and open disjuncts read."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from verifier.bounding.condensed import Condensed, condensed
from verifier.bounding.elements import picked
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.fields import row_price
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import prepare
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.stacked import cast
from verifier.search.task import Task

MOST_SHARE = 0.2  # of the time left, which it may take
UNKNOWN = 1e-3  # of the width of an output's bounds: so much of it may be unknown at a single point
LOOKED_AT = 64  # outputs, for that


@dataclass(frozen=True, eq=False)
class Smaller:
    """The `task` over the condensed `network`. `ratio`: of the price of a row to that in the whole network."""

    task: Task
    network: Condensed
    ratio: float

    def bounds(self, box: Interval, found: NodeBounds) -> NodeBounds:
        """Of its nodes over boxes `[n, *input]`, from those of the whole network."""
        return self.network.bounds(self.task.program, box, found)


def condense(task: Task, found: NodeBounds, still: Tensor) -> Smaller | None:
    """The task from bounds `found` over its boxes, for the disjuncts that are `still` open `[boxes, D]`; nothing else
    may be asked about it. None where it does not serve."""
    rows = task.problem.output_rows[task.problem.rows_of(still)]
    program = task.program.asked(rows)
    # a coefficient that was rounded to 0 still reads its output
    read = (rows != 0).any(0) | (not task.problem.exact)
    outputs = read.nonzero().flatten()
    effort = Effort(task.limits.memory // 2, time.monotonic() + MOST_SHARE * task.limits.seconds)
    network = condensed(program, task.precise(), found, outputs, effort)
    if network is None:
        return None
    make = lambda dtype: prepare(network.graph, dtype, program.device).asked(rows)  # noqa: E731
    own = replace(task, program=make(program.dtype), precise=cache(partial(make, torch.float64)))
    if not _nearly_known(own, found.intervals[program.graph.output], outputs):
        return None
    prices = [row_price(part.graph, part.graph.output) for part in (own.program, program)]
    return Smaller(own, network, prices[0] / prices[1])


def _nearly_known(task: Task, whole: Interval, outputs: Tensor) -> bool:
    """Whether the neighbourhoods in the network of a task are small where it matters: they stay as they are when boxes
    become smaller. `whole`: bounds of its output over the boxes."""
    program, effort = task.precise(), Effort(task.limits.memory // 2)
    box = cast(task.problem.box.reshape(-1, *program.graph.input_shape), program.dtype).point()
    outputs = outputs[:: 1 + len(outputs) // LOOKED_AT]
    ends = picked(program, program.graph.output, outputs.expand(len(box.lower), -1)).both_sides
    bounds = ends.bounded(program, bound_nodes(program, box, "crown", None, effort)).minimum(box)
    unknown = -(bounds[:, : len(outputs)] + bounds[:, len(outputs) :])
    return bool((unknown <= UNKNOWN * flat(whole.upper - whole.lower)[:, outputs]).all())
