"""What each method does with an operator, read off the operator itself: the table that users and tests see.

interval, forward, backward    the methods of `verifier bounds`
optimised                      the planes have parameters, which are optimised for each bound
split                          the search divides an argument at a point that the operator chooses
exact                          the operator is encoded without loss, in linear programs over its phases
"""

from __future__ import annotations

from verifier.core.operator import Adjustable, Affine, Elementwise, Op

METHODS = ("interval", "forward", "backward", "optimised", "split", "exact")
YES, NO, NEEDLESS = "yes", "no", "-"
LEGEND = f"{NEEDLESS}: nothing to optimise or to split, the operator is affine"


def support(kind: type[Op]) -> dict[str, str]:
    """By method: YES, NO, or NEEDLESS where there is nothing to do."""
    if issubclass(kind, Affine):
        return {method: NEEDLESS if method in ("optimised", "split") else YES for method in METHODS}
    bounded = issubclass(kind, Elementwise)
    facts = dict.fromkeys(METHODS[:3], bounded)
    facts |= {"optimised": issubclass(kind, Adjustable), "split": bounded}
    facts |= {"exact": bounded and (_states(kind, "kinks") or _states(kind, "extreme"))}
    return {method: YES if facts[method] else NO for method in METHODS}


def _states(kind: type[Op], fact: str) -> bool:
    """Whether the operator has an own answer in place of `Elementwise`'s "none"."""
    return getattr(kind, fact) is not getattr(Elementwise, fact)
