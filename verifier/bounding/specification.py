"""Lower bounds of the rows that a property asks about: linear ones over the input, or, where that is dear, numbers."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm, backward, backward_to_neurons
from verifier.bounding.engine import Effort, most_rows, seconds_of
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program


def bound_rows(
    program: Program, found: NodeBounds, start: dict[int, Tensor], bias: Tensor, effort: Effort, exact: bool = True
) -> LinearForm:
    """Linear lower bounds of rows `start[node]` `[batch, spec, *shape]` plus `bias` `[batch, spec]`. `exact`: the
    coefficients are, else each is off by one rounding. Rows for which there is no time get the bounds that those of
    the last neurons give, and no coefficients."""
    batch, spec = bias.shape
    block = most_rows(program, program.graph.output, effort)
    columns = min(spec, block)
    height = max(1, block // columns)
    operations = program.operations_to(max(start))
    lines = []
    for first in range(0, batch, height):
        domains = slice(first, first + height)
        part, forms = found.select(domains), []
        for c in range(0, spec, columns):
            rows, own = {k: v[domains, c : c + columns] for k, v in start.items()}, bias[domains, c : c + columns]
            if time.monotonic() + seconds_of(operations, own.numel()) > effort.deadline:
                forms.append(_constant(program, backward_to_neurons(program, rows, own, part, exact)))
            else:
                forms.append(backward(program, rows, own, part, exact))
        lines.append(_join(forms, 1))
    return _join(lines, 0)


def _constant(program: Program, bounds: Tensor) -> LinearForm:
    """What is at least `bounds` `[batch, spec]`."""
    rows = bounds.new_zeros(1).expand(*bounds.shape, *program.graph.input_shape)
    return LinearForm(rows, bounds, torch.zeros_like(bounds))


def _join(forms: list[LinearForm], axis: int) -> LinearForm:
    if len(forms) == 1:
        return forms[0]
    return LinearForm(*(torch.cat([getattr(f, k) for f in forms], axis) for k in ("coefficients", "bias", "debt")))
