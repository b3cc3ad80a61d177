"""The rule of the search: the neurons whose relaxations cost most, and any neuron before any input."""

from __future__ import annotations

from dataclasses import replace

import torch

from verifier.bounding.dual import Dual
from verifier.search.branching.input_effect import input_effect
from verifier.search.branching.relaxation_gap import relaxation_gap
from verifier.search.branching.rule import Choices
from verifier.search.subproblems import Kept, Subproblems


def neurons_first(kept: Kept, domains: Subproblems, dual: Dual, most: int, exponent: float) -> Choices:
    neurons = relaxation_gap(kept, domains, dual, most, exponent)
    inputs = input_effect(kept, domains, dual, most, exponent)
    same = kept.sites.inputs[inputs.place].unsqueeze(2) == kept.sites.inputs[neurons.place].unsqueeze(1)
    twice = (same & (neurons.score > 0).unsqueeze(1)).any(2)  # as an input, and as a site that a neuron reads
    inputs = replace(inputs, score=torch.where(twice, -torch.inf, inputs.score))
    return neurons.beside(inputs).best(most)
