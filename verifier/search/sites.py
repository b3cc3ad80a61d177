"""Where subproblems can be split: numbers that nonlinear operators read and that are undecided.

Many arguments may be copies of one number, as in products of matrices. Such copies are one site: a split of the number
holds for all of them.
"""

from __future__ import annotations

import torch

from verifier.bounding.program import Program
from verifier.bounding.undecided import Undecided


class Sites:
    """Numbered in the order of the nodes that compute them; `of` by argument `[k]`: the site of each undecided element.
    Behind the `count` sites come the inputs; `inputs` `[count + inputs]`: which input each of these is, -1 if none."""

    def __init__(self, program: Program, undecided: Undecided) -> None:
        largest = 1 + max(node.size for node in program.graph.nodes)
        keys = {
            k: program.origins[k] * largest + program.places_at(k, program.origins[k])[index]
            for k, index in undecided.index.items()
        }
        every = torch.cat([*keys.values(), torch.zeros(0, dtype=torch.long, device=program.device)])
        numbers, which = every.unique(return_inverse=True)
        self.count = len(numbers)
        self.of = dict(zip(keys, which.split([len(key) for key in keys.values()]), strict=False))
        inputs = torch.arange(program.graph.nodes[0].size, device=program.device)
        self.inputs = torch.cat([torch.where(numbers < largest, numbers - 1, -1), inputs])
