"""Where subproblems can be split: numbers that nonlinear operators read and that are undecided.

Many arguments may be copies of one number, as in products of matrices. Such copies are one site: a split of the number
holds for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounding.program import Program
from verifier.bounding.undecided import Undecided
from verifier.core.operator import Affine


class Sites:
    """Numbered in the order of the nodes that compute them; `of` by argument `[k]`: the site of each undecided element.
    Behind the `count` sites come the inputs; `inputs` `[count + inputs]`: which input each of these is, -1 if none."""

    def __init__(self, program: Program, undecided: Undecided) -> None:
        largest = 1 + max(node.size for node in program.graph.nodes)
        keys = {k: program.origins[k] * largest + _origins(program, k)[index] for k, index in undecided.index.items()}
        every = torch.cat([*keys.values(), torch.zeros(0, dtype=torch.long, device=program.device)])
        numbers, which = every.unique(return_inverse=True)
        self.count = len(numbers)
        self.of = dict(zip(keys, which.split([len(key) for key in keys.values()]), strict=False))
        inputs = torch.arange(program.graph.nodes[0].size, device=program.device)
        self.inputs = torch.cat([torch.where(numbers < largest, numbers - 1, -1), inputs])


def _origins(program: Program, source: int) -> Tensor:
    """The place among the elements of its origin, counted from 1, that each element of a node has its number from; 0 if
    it is a constant 0."""
    first = program.graph.nodes[program.origins[source]]
    places = torch.arange(1, 1 + first.size, device=program.device).reshape(1, *first.shape)
    for moved in program.moves_to(source):
        op = program.graph.nodes[moved].op
        assert isinstance(op, Affine)
        places = op.linear(places)
    return places.flatten()
