"""What each method does with an operator, read off the operator itself: the table that users and tests see.

interval, forward, backward    the methods of `verifier bounds`
optimised                      the planes have parameters, which are optimised for each bound
split                          the search divides an argument at a point that the operator chooses
milp/smt                       in the programs that solvers are given the operator is exact, or lies between planes over
                               pieces of its arguments' box, which are cut where the solver's point leaves it
"""

from __future__ import annotations

from verifier.core.adjustable import Adjustable
from verifier.core.operator import Affine, Elementwise, Op

SOLVERS = "milp/smt"  # both are given one program
METHODS = ("interval", "forward", "backward", "optimised", "split", SOLVERS)
YES, NO, NEEDLESS = "yes", "no", "-"
EXACT, PIECES = "exact", "pieces"
LEGEND = f"{NEEDLESS}: nothing to optimise or to split, the operator is affine"


def support(kind: type[Op]) -> dict[str, str]:
    """By method: YES, NO, or NEEDLESS where there is nothing to do; of solvers EXACT, PIECES or NO."""
    if issubclass(kind, Affine):
        return {**dict.fromkeys(METHODS[:3], YES), "optimised": NEEDLESS, "split": NEEDLESS, SOLVERS: EXACT}
    bounded = issubclass(kind, Elementwise)
    facts = dict.fromkeys(METHODS[:3], bounded)
    facts |= {"optimised": issubclass(kind, Adjustable), "split": bounded}
    answers = {method: YES if fact else NO for method, fact in facts.items()}
    return answers | {SOLVERS: _for_solvers(kind) if bounded else NO}


def _for_solvers(kind: type[Op]) -> str:
    exact = any(_states(kind, fact) for fact in ("kinks", "corners", "extreme"))
    return EXACT if exact else PIECES


def _states(kind: type[Op], fact: str) -> bool:
    """Whether the operator has an own answer in place of `Elementwise`'s "none"."""
    return getattr(kind, fact) is not getattr(Elementwise, fact)
