"""Whether single precision is enough for a network's bounds.

Over a single point nothing but rounding keeps a neuron from being decided. In deep networks the error that is allowed
for grows from layer to layer, until neurons are undecided on any box, however small, and splitting it gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from verifier.bounding.engine import Effort, bound_nodes, forward_pays
from verifier.bounding.program import Program
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise

SPOILED = 0.01  # of the neurons: more that only rounding leaves undecided are worth the price of double precision


def rounding_prevails(program: Program, precise: Callable[[], Program], box: Interval, effort: Effort) -> bool:
    """Whether `program` leaves many neurons undecided at the centre of `box` `[1, *input]` that `precise` decides.

    By forward bounds; where these do not pay, False."""
    if not forward_pays(program, effort):
        return False
    point = box.middle()
    least = SPOILED * sum(node.size for node in program.graph.nodes if isinstance(node.op, Elementwise))
    spoiled = _undecided(program, point)
    return spoiled > least and spoiled - _undecided(precise(), point) > least


def _undecided(program: Program, point: Tensor) -> int:
    """Neurons of all kinds whose planes could be tighter."""
    x = point.to(program.dtype)
    found = bound_nodes(program, Interval(x, x), "forward")
    return sum(int(program.unstable(position, found.intervals).sum()) for position in found.planes)
