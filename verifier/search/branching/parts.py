"""The parts of a split."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.stacked import join
from verifier.search.subproblems import Kept, Subproblems


def split(kept: Kept, domains: Subproblems, place: Tensor, point: Tensor) -> Subproblems:
    """Both parts of each subproblem, all left parts first; together they are the whole."""
    sites, box = kept.sites, Interval(flat(domains.box.lower), flat(domains.box.upper))
    inputs = torch.arange(box.shape[1], device=point.device)
    halves = _split_at(box, inputs, sites.inputs[place], point)
    left_box, right_box = (half.reshape(*domains.box.shape) for half in halves)
    left_neurons, right_neurons = {}, {}
    for source, own in domains.neurons.items():
        left_neurons[source], right_neurons[source] = _split_at(own, sites.of[source], place, point)
    share = domains.share / 2
    return join(
        [
            domains.replace(box=left_box, neurons=left_neurons, share=share),
            domains.replace(box=right_box, neurons=right_neurons, share=share),
        ]
    )


def _split_at(box: Interval, sites: Tensor, place: Tensor, point: Tensor) -> tuple[Interval, Interval]:
    """Numbers `[n, k]` at `sites` `[k]`, of which each subproblem splits those at its `place` `[n]`: below its `point`
    `[n]`, and above."""
    here, at = sites == place.unsqueeze(1), point.unsqueeze(1)
    if not bool(here.any()):
        return box, box
    upper = torch.where(here, torch.minimum(box.upper, at), box.upper)
    return Interval(box.lower, upper), Interval(torch.where(here, torch.maximum(box.lower, at), box.lower), box.upper)
