"""A counterexample as VNN-COMP wants it: one list of pairs, inputs before outputs, in row-major order.

A number is written as the shortest decimal that reads back, in double precision, as exactly that number, whatever
its own type is: a reader that never converts it to the network's type must still see the point that was replayed.
"""

from __future__ import annotations

import numpy as np

from verifier.core.verdict import Witness


def format_witness(witness: Witness) -> str:
    return format_point(witness.x, witness.y)


def format_point(x: np.ndarray, y: np.ndarray) -> str:
    """An input and the output there, of any shape."""
    return "(" + "\n".join([*_pairs("X", x), *_pairs("Y", y)]) + ")"


def _pairs(letter: str, values: np.ndarray) -> list[str]:
    return [f"({letter}_{index} {float(value)!r})" for index, value in enumerate(values.ravel())]
