"""The specification rows of a batch of domains: which to bound, what refutes a disjunct, and how rows clip a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounding.backward import LinearForm
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.rounding import gamma, tiny, unit
from verifier.search.domains import DomainBatch

COMBINATION_STEPS = 12
CLIP_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Rows:
    """`slot` `[n, S]`: positions in the problem's row lists of the rows of open disjuncts; `owner` `[n, S]` their
    disjunct, -1 for padding. `outputs` `[n, S, outputs]`, `inputs` likewise or None, `offset` `[n, S]`."""

    slot: Tensor
    owner: Tensor
    outputs: Tensor
    inputs: Tensor | None
    offset: Tensor


def open_rows(problem: Problem, domains: DomainBatch) -> Rows:
    """The rows that still matter, packed to the left; proved disjuncts cost nothing any more."""
    owner = problem.owner[domains.problem]
    active = (owner >= 0) & domains.open.gather(1, owner.clamp(min=0))
    most = max(1, int(active.sum(1).max()))
    slot = active.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    kept = active.gather(1, slot)
    table = problem.row[domains.problem].gather(1, slot)
    return Rows(
        slot=slot,
        owner=torch.where(kept, owner.gather(1, slot), -1),
        outputs=problem.output_rows[table],
        inputs=None if problem.input_rows is None else problem.input_rows[table],
        offset=problem.offset[domains.problem].gather(1, slot),
    )


def refuted(bounds: Tensor, owner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """From row bounds `[n, S]`: which disjuncts are refuted, and each one's best row bound, both `[n, count]`.

    Only a finite positive bound refutes; NaN counts as minus infinity.
    """
    best = bounds.new_full((len(bounds), count + 1), -torch.inf)
    best = best.scatter_reduce(1, torch.where(owner < 0, count, owner), proper(bounds), "amax")[:, :count]
    return best > 0, best


def proper(bounds: Tensor) -> Tensor:
    """Lower bounds, of which those that are not finite say nothing: an overflow proves nothing either."""
    return torch.where(bounds.isfinite(), bounds, -torch.inf)


def combine(form: LinearForm, box: Interval, owner: Tensor) -> Tensor:
    """For each row `[n, S]` a lower bound of the best convex combination found of its disjunct's rows.

    min_x sum_j w_j (a_j x + c_j) is concave in w; ascent by multiplicative weights (Arora 2012). Any weights are valid.
    """
    rows = torch.where((owner < 0).unsqueeze(2), 0.0, flat(form.coefficients, 2))
    constant = torch.where(owner < 0, 0.0, form.bias - form.debt)
    lower, upper = flat(box.lower).unsqueeze(1), flat(box.upper).unsqueeze(1)
    same = (owner.unsqueeze(1) == owner.unsqueeze(2)).to(rows.dtype)
    weight = 1 / same.sum(2)
    best = rows.new_full(owner.shape, -torch.inf)
    for step in range(COMBINATION_STEPS):
        joint = (same * weight.unsqueeze(1)) @ rows
        corner = torch.where(joint > 0, lower, upper)
        value = (rows * corner).sum(2) + constant
        bound = (same * (weight * value).unsqueeze(1)).sum(2)
        size = (rows.abs() * torch.maximum(lower.abs(), upper.abs())).sum(2) + constant.abs()
        slack = (same * (weight * size).unsqueeze(1)).sum(2) * gamma(rows.shape[2] + 4 * rows.shape[1] + 16, rows.dtype)
        best = torch.fmax(best, bound - slack - tiny(rows.dtype) * (2 * rows.shape[2] + 2 * rows.shape[1] + 1))
        spread = (same * value.abs().unsqueeze(1)).amax(2).clamp(min=tiny(rows.dtype))
        weight = weight * torch.exp(value / spread * (2.0 / (1 + 0.3 * step)))
        weight = weight / (same * weight.unsqueeze(1)).sum(2)
    return best


def clip(form: LinearForm, box: Interval, rows: Rows, still: Tensor) -> Interval:
    """The part of each box where a violation can be: every row of some open disjunct must have a margin <= 0 there.

    For a row  a.x + c <= 0  and a_i > 0:  x_i <= (-c - min_{j != i} a_j x_j) / a_i, outward (clip-and-verify, Zhou
    2025). Rows of one disjunct intersect, the disjuncts that are `still` open `[n, disjuncts]` unite; one without rows
    keeps its whole box. An empty result has lower > upper.
    """
    coefficients = flat(form.coefficients, 2)
    padding = (rows.owner < 0).unsqueeze(2)
    shape = box.lower.shape
    lower, upper = flat(box.lower), flat(box.upper)
    for _ in range(CLIP_ROUNDS):
        low, high = _clip_rows(coefficients, form.bias - form.debt, lower.unsqueeze(1), upper.unsqueeze(1))
        low = torch.where(padding, lower.unsqueeze(1), low)
        high = torch.where(padding, upper.unsqueeze(1), high)
        lower, upper = _unite(low, high, rows.owner, still, Interval(lower, upper))
    return Interval(lower.reshape(shape), upper.reshape(shape))


def clip_by(form: LinearForm, box: Interval) -> Interval:
    """The part of each box where the only row `[n, 1]` of each linear form can be at most zero. An empty result has
    lower > upper."""
    coefficients, constant = flat(form.coefficients, 2), form.bias - form.debt
    lower, upper = flat(box.lower), flat(box.upper)
    for _ in range(CLIP_ROUNDS):
        low, high = _clip_rows(coefficients, constant, lower.unsqueeze(1), upper.unsqueeze(1))
        lower, upper = low[:, 0], high[:, 0]
    return Interval(lower.reshape(box.shape), upper.reshape(box.shape))


def _clip_rows(a: Tensor, c: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Ends `[n, S, d]` that each single row leaves."""
    terms = torch.minimum(a * lower, a * upper)
    total = terms.sum(2, keepdim=True) + c.unsqueeze(2)
    size = (a.abs() * torch.maximum(lower.abs(), upper.abs())).sum(2, keepdim=True) + c.abs().unsqueeze(2)
    slack = size * gamma(a.shape[2] + 8, a.dtype) + tiny(a.dtype) * (2 * a.shape[2] + 1)
    room = -(total - terms) + slack  # a_i x_i <= room
    limit = room / a
    limit_slack = limit.abs() * (4 * unit(a.dtype)) + tiny(a.dtype)
    usable = (a != 0) & limit.isfinite()
    high = torch.where(usable & (a > 0), torch.minimum(upper, limit + limit_slack), upper)
    low = torch.where(usable & (a < 0), torch.maximum(lower, limit - limit_slack), lower)
    return low, high


def _unite(low: Tensor, high: Tensor, owner: Tensor, still: Tensor, box: Interval) -> tuple[Tensor, Tensor]:
    """Intersection over the rows of a disjunct, then the hull over open disjuncts; `[n, d]`."""
    count = still.shape[1]
    place = torch.where(owner < 0, count, owner).unsqueeze(2).expand_as(low)
    inner_low = box.lower.unsqueeze(1).repeat(1, count + 1, 1).scatter_reduce(1, place, low, "amax")[:, :count]
    inner_high = box.upper.unsqueeze(1).repeat(1, count + 1, 1).scatter_reduce(1, place, high, "amin")[:, :count]
    out = ((inner_low > inner_high).any(2) | ~still).unsqueeze(2)
    return torch.where(out, torch.inf, inner_low).amin(1), torch.where(out, -torch.inf, inner_high).amax(1)
