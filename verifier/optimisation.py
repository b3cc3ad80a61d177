"""The way from "how small or large can this become?" to an answer: check, replay, attack, bound, search.

Both doors, the command line and the Python interface, come through here, as they do through `pipeline` otherwise.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from verifier.attack.falsifier import EACH_BOX, QUICK_FLOATS, Original
from verifier.attack.hunt import Hunt
from verifier.bounding.program import Program, prepare
from verifier.core.events import Enclosed, Event, Notice, Observer, ignore
from verifier.core.extremum import Extremum
from verifier.core.output_form import OutputForm
from verifier.core.problem import Problem, build_problem
from verifier.core.query import Box, Query
from verifier.errors import ModelError, PropertyError, UsageError
from verifier.frontend.network import Network
from verifier.frontend.output_form import parse_output_form
from verifier.frontend.replay import replay
from verifier.pipeline import CLOSING, REPLAY_SHARE, Stages, device_named, points_of
from verifier.search.incumbent import Incumbent
from verifier.search.minimum import Minimum
from verifier.search.task import Limits, Task
from verifier.settings import AttackSettings, Settings

ROUNDED = 0.2  # of the gap asked for: if single precision loses more at a point, all is done in double precision
HELD = 4  # points of each batch of the attack that are looked at in double precision


def optimise(
    network: Network,
    where: Query | Box,
    output: str,
    sense: str = "min",
    settings: Settings | None = None,
    observer: Observer = ignore,
    timeout: float | None = None,
) -> Extremum:
    """The minimum (or with `sense` "max" the maximum) of a linear form of the outputs, as `2*Y_0 - Y_1/3`, over a box,
    or over the input boxes of a query, whose other constraints play no part.

    Ends when the gap of the settings is reached, or after `timeout` seconds, which overrides the settings' one. The
    observer is told what is proved so far: whoever interrupts a run has that. Raises `UsageError` for a form that
    cannot be read, `InputError` where the question cannot be asked of this network.
    """
    settings = settings or Settings()
    deadline = time.monotonic() + (timeout or settings.timeout) - CLOSING
    if sense not in ("min", "max"):
        raise UsageError(f"unknown sense '{sense}'; use min or max")
    form = parse_output_form(output)
    boxes = _boxes(network, where, observer)
    _check_outputs(network, form, output)
    run = Stages(observer if sense == "min" else _negating(observer), deadline)
    with torch.no_grad():
        found = _minimise(network, boxes, form if sense == "min" else -form, settings, run)
    found = found if sense == "min" else found.of_negated()
    found = replace(found, statistics={**found.statistics, "stages": dict(run.stages)})
    observer(Enclosed(sum(run.stages.values()), found))
    return found


def _minimise(network: Network, boxes: tuple[Box, ...], form: OutputForm, settings: Settings, run: Stages) -> Extremum:
    """Single precision finds candidates and, where it does for the gap asked for, proves the bounds."""
    with run.stage("replay"):
        for points in (None, points_of(boxes, network)):
            replay(network, points, run.part(REPLAY_SHARE))
    device, generator = device_named(settings.device), torch.Generator().manual_seed(settings.seed)
    query = form.below_zero(boxes, math.prod(network.output_shape))
    narrow, wide = (
        (prepare(network.graph, dtype, device), build_problem(query, dtype, device))
        for dtype in (torch.float32, torch.float64)
    )
    original = Original(network.run, network.input_dtype.type, network.input_shape)
    incumbent = Incumbent(boxes, wide[1], form.constant, wide[0], original)
    with run.stage("attack"):
        _attack(incumbent, *narrow, run.share(settings.attack), generator)
    if incumbent.x is None:
        raise ModelError(f"'{network.path}' gives no finite number at any input that was tried")
    with run.stage("bound"):
        lost = incumbent.upper - incumbent.lower_by(*narrow)
        program, problem = narrow if lost <= ROUNDED * settings.gap.at(incumbent.upper) else wide
        limits = Limits(run.deadline, settings.memory)
        task = Task(
            problem, program, lambda: wide[0], settings.search, limits, lambda points, which: False, run.observer
        )
        minimum = Minimum(task, incumbent, settings.gap, generator)
        minimum.first()
    with run.stage("search"):
        minimum.run()
    return minimum.extremum(_reason(minimum))


def _attack(
    incumbent: Incumbent, program: Program, problem: Problem, settings: AttackSettings, generator: torch.Generator
) -> None:
    """Samples and gradient descent. What is lowest in each batch is held, and offered in the end."""
    deadline = time.monotonic() + settings.seconds
    held: list[tuple[Tensor, Tensor]] = []

    def hold(points: Tensor, which: Tensor) -> bool:
        held.append((points[:HELD], which[:HELD]))
        return False

    first = problem.box.middle()
    incumbent.offer(first, torch.arange(len(first), device=first.device))
    if incumbent.x is not None:
        offset = float(incumbent.constant) - incumbent.upper
        problem = replace(problem, offset=torch.full_like(problem.offset, offset))
    hunt = Hunt(program.graph, problem, generator, hold)
    each = max(EACH_BOX, QUICK_FLOATS // hunt.size // len(first))
    hunt.scan(each, settings.restarts, deadline)
    hunt.descend(settings.steps, deadline)
    if held:
        incumbent.offer(torch.cat([points for points, _ in held]), torch.cat([which for _, which in held]))
    incumbent.polish(generator)


def _reason(minimum: Minimum) -> str:
    bounded = f"{minimum.bounded} subproblem{'s' if minimum.bounded != 1 else ''}"
    if minimum.reached:
        return f"the gap asked for is reached, after {bounded}"
    if minimum.open:
        return f"time is up after {bounded}, {minimum.open} are open"
    return f"of {bounded} {minimum.stuck} cannot be split further"


def _boxes(network: Network, where: Query | Box, observer: Observer) -> tuple[Box, ...]:
    boxes = (where,) if isinstance(where, Box) else where.boxes
    size = network.graph.nodes[0].size
    if not boxes or any(box.is_empty for box in boxes):
        raise PropertyError("there is no input to optimise over: the constraints on the inputs contradict each other")
    if any(len(box.lower) != size for box in boxes):
        raise PropertyError(f"the box has {len(boxes[0].lower)} inputs, but the network '{network.path}' has {size}")
    if not isinstance(where, Box):
        mixed = any(row.inputs for disjunct in where.disjuncts for row in disjunct.rows)
        observer(Notice("of the property only the ranges of its inputs count, not its other constraints", loud=mixed))
    return boxes


def _check_outputs(network: Network, form: OutputForm, text: str) -> None:
    count = math.prod(network.output_shape)
    if form.largest_index >= count:
        raise UsageError(
            f"the output '{text}' has Y_{form.largest_index}, but the network has {count} outputs, from Y_0"
        )


def _negating(observer: Observer) -> Observer:
    """Tells of a maximum what is said of the minimum of the negated form."""

    def tell(event: Event) -> None:
        observer(replace(event, extremum=event.extremum.of_negated()) if isinstance(event, Enclosed) else event)

    return tell
