"""Whether single precision is enough for a network's bounds.

Over a single point nothing but rounding keeps a neuron from being decided. In deep networks the error that is allowed
for grows from layer to layer, until neurons are undecided on any box, however small, and splitting it gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from verifier.bounding.engine import Effort, bound_nodes, forward_pays
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.stacked import cast

SPOILED = 0.01  # of the neurons: more that only rounding leaves undecided are worth the price of double precision


def rounding_prevails(program: Program, precise: Callable[[], Program], box: Interval, effort: Effort) -> bool:
    """Whether `program` leaves many neurons undecided over `box` `[1, *input]` that `precise` decides.

    By forward bounds; where these do not pay, False."""
    if not forward_pays(program, effort):
        return False
    least = SPOILED * sum(node.size for node in program.graph.nodes if isinstance(node.op, Elementwise))
    if _undecided(program, box.point()) <= least:  # in its middle rounding is all that there is: cheap to rule out
        return False
    spoiled = _undecided(program, box)
    return spoiled > least and spoiled - _undecided(precise(), box) > least


def _undecided(program: Program, box: Interval) -> int:
    """Neurons of all kinds whose planes could be tighter."""
    found = bound_nodes(program, cast(box, program.dtype), "forward")
    return sum(int(program.unstable(position, found.intervals).sum()) for position in found.planes)


def narrowed(program: Program, box: Interval, found: NodeBounds) -> NodeBounds:
    """Bounds in the precision of `program` over `box` `[batch, *input]`, from intervals in a higher one."""
    known = {position: bounds.narrowed(program.dtype) for position, bounds in found.intervals.items()}
    return bound_nodes(program, box, "interval", known)
