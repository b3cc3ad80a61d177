"""The root of the search over neurons: the dearest bounds, once for each input box, and one subproblem for each
disjunct that they leave open."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.optimise import certain_bound, initial_multipliers, optimise
from verifier.bounding.program import Program
from verifier.bounding.tighten import FLOATS_PER_ELEMENT, tighten_nodes
from verifier.core.interval import Interval
from verifier.core.problem import Problem
from verifier.core.stacked import join
from verifier.search.neurons import objective_of
from verifier.search.outcome import Limits
from verifier.search.subproblems import Kept, Subproblems
from verifier.settings import AscentSettings, SearchSettings

MOST_TIGHTENED = 8  # boxes; of more than these the neurons' bounds are not optimised, which is done box by box
ROOT_SHARE = 0.2  # of the time left: at most this goes into the bounds of neurons at the root


def open_root(
    program: Program, problem: Problem, still: Tensor, settings: SearchSettings, limits: Limits
) -> tuple[Kept, Subproblems]:
    """Optimised bounds over each box, and those of its disjuncts that are `still` open `[boxes, disjuncts]` and that
    they do not refute. Every disjunct must have a row."""
    box = problem.box.reshape(-1, *program.graph.input_shape)
    memory, deadline = limits.memory, limits.deadline
    effort = Effort(memory // 2, deadline)
    found = _plain(bound_nodes(program, box, "crown", None, effort))
    every = still.nonzero()
    size = program.graph.size * FLOATS_PER_ELEMENT * program.number_size
    pairs = every.split(max(1, memory // 2 // size))
    bound = torch.cat([_bound(program, problem, box, found, part, settings.root, deadline) for part in pairs])
    open_now = ~(bound.isfinite() & (bound > 0))
    boxes = every[open_now, 0].unique()
    if len(boxes) > MOST_TIGHTENED:
        boxes = boxes[:0]
    seconds = ROOT_SHARE * max(0.0, deadline - time.monotonic())
    end = time.monotonic() + seconds
    parts = [found.select(slice(i, i + 1)) for i in range(len(box.lower))]
    for number, i in enumerate(boxes.tolist()):
        share = (end - time.monotonic()) / (len(boxes) - number)
        parts[i] = tighten_nodes(program, box.select(slice(i, i + 1)), parts[i], settings.neurons, share, memory // 2)
    found = join(parts)
    kept = Kept(program, found)
    rest = every[open_now]
    return kept, _subproblems(kept, problem, box, rest, bound[open_now])


def _plain(found: NodeBounds) -> NodeBounds:
    return NodeBounds(found.intervals, found.planes)


def _bound(
    program: Program,
    problem: Problem,
    box: Interval,
    found: NodeBounds,
    pairs: Tensor,
    settings: AscentSettings,
    deadline: float,
) -> Tensor:
    """Optimised bounds of the (box, disjunct) `pairs` `[n, 2]`."""
    which, slot = pairs.T
    objective = objective_of(problem, program, which, slot)
    own = found.select(which)
    region = box if len(box.lower) == 1 else box.select(which)
    start = initial_multipliers(program, own, objective)
    optimum = optimise(program, region, own, objective, start, settings, deadline)
    return certain_bound(program, region, own, objective, optimum.multipliers).minimum(region)[:, 0]


def _subproblems(kept: Kept, problem: Problem, box: Interval, pairs: Tensor, bound: Tensor) -> Subproblems:
    program, (which, slot) = kept.program, pairs.T
    found = kept.base.select(which)
    objective = objective_of(problem, program, which, slot)
    multipliers = initial_multipliers(program, found, objective, tuple(kept.index))
    neurons = kept.neurons(found)
    fill = lambda v: v.expand(len(which), *v.shape[1:])  # noqa: E731
    return Subproblems(
        box=box.select(which),
        problem=which,
        disjunct=slot,
        neurons={k: Interval(fill(v.lower), fill(v.upper)) for k, v in neurons.items()},
        multipliers=kept.compress(multipliers),
        bound=bound,
        share=torch.full((len(which),), 1.0 / max(1, len(which)), dtype=torch.float64, device=program.device),
    )
