"""The table of contents: check, replay, attack, bound, search, verdict.

Both doors, the command line and the Python interface, come through here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from verifier.attack.falsifier import Falsifier, Original
from verifier.backends.checked import Checked
from verifier.backends.child import ChildSolver
from verifier.backends.milp import Mixed, Reproved
from verifier.bounding.engine import METHODS, Effort, output_interval
from verifier.bounding.excerpt import excerpt
from verifier.bounding.program import Program, prepare, unbounded_nodes
from verifier.core.events import Notice, Observer, StageFinished, ignore
from verifier.core.graph import Graph
from verifier.core.interval import Interval
from verifier.core.problem import Problem, build_problem
from verifier.core.query import Box, Query
from verifier.core.verdict import Status, Verdict
from verifier.errors import PropertyError, UsageError
from verifier.frontend.network import Network
from verifier.frontend.replay import outputs_at, replay
from verifier.search.cases import by_cases
from verifier.search.strategy import Strategy
from verifier.search.task import Candidates, Limits, Outcome, Task
from verifier.search.whole import WholeSearch
from verifier.settings import AttackSettings, Settings

REPLAYED_POINTS = 4  # points of the property's boxes on which graph and file are compared
REPLAY_SHARE = 0.02  # of the time left, for each of both kinds of points, if one of them does not take longer
SAME = 1e-9  # of an output, by which a part of the network that computes it may differ
CLOSING = 0.2  # seconds kept for ending the search and writing the answer


def verify(
    network: Network,
    query: Query,
    settings: Settings | None = None,
    observer: Observer = ignore,
    timeout: float | None = None,
) -> Verdict:
    """Decide whether `network` has an input that `query` describes.

    `timeout` in seconds overrides the settings' one. Raises `InputError` where the question cannot be asked (sizes that
    do not fit, a network that onnxruntime computes differently); whatever can be asked gets a verdict, with a reason.
    """
    settings = settings or Settings()
    run = _Run(observer, time.monotonic() + (timeout or settings.timeout) - CLOSING, query=query)
    _check_sizes(network, query)
    if not query.disjuncts:
        observer(Notice("the property's constraints contradict each other: NOTHING WAS VERIFIED", loud=True))
        return run.verdict(Status.UNSAT, "no input satisfies the property's constraints, whatever the network does")
    with torch.no_grad():
        with run.stage("replay"):
            for points in (None, points_of(query.boxes, network)):
                if replay(network, points, run.part(REPLAY_SHARE), run.deadline) is None:
                    return run.verdict(Status.TIMEOUT, "time was up before the network was compared with onnxruntime")
        with run.stage("attack"):
            device = device_named(settings.device)
            problem = build_problem(query, torch.float32, device)
            graph = _part_read(network, query)
            falsifier = _falsifier(network, graph, query, problem, settings.seed, run.deadline)
            if falsifier.quick(run.share(settings.attack)):
                return run.sat("a violation was found by sampling or gradient descent", falsifier)
        if not run.part(1.0):
            return run.verdict(Status.TIMEOUT, "time was up before the first bounds")
        candidates: Candidates = falsifier.suspects
        missing = unbounded_nodes(graph)
        if missing:
            with run.stage("bound"):
                cases = by_cases(graph, query, device)
            if cases is None:
                return _without_bounds(run, falsifier, settings, [str(node) for node in missing])
            graph, problem, candidates = cases.graph, cases.problem, cases.candidates(candidates)
        with run.stage("bound"):
            search = _search(graph, problem, device, settings, run, candidates)
            outcome = search.first()
        if outcome.open and not outcome.found and run.part(1.0):
            with run.stage("attack"):
                if falsifier.thorough(run.share(settings.attack)):
                    return run.sat("a violation was found by gradient descent", falsifier)
            with run.stage("search"):
                outcome = search.run()
    return _conclude(run, outcome, falsifier)


def _without_bounds(run: _Run, falsifier: Falsifier, settings: Settings, missing: list[str]) -> Verdict:
    """A network with operators that cannot be bounded: only a violation can settle it."""
    run.observer(Notice(f"no bounds for {missing[0]}: only a violation can be found, no proof", loud=True))
    with run.stage("attack"):
        if falsifier.thorough(run.share(settings.attack)):
            return run.sat("a violation was found by gradient descent", falsifier)
    return run.verdict(Status.UNKNOWN, f"no bounds for {len(missing)} operator(s), the first is {missing[0]}")


def _conclude(run: _Run, outcome: Outcome, falsifier: Falsifier) -> Verdict:
    bounded = f"{outcome.bounded} subproblem{'s' if outcome.bounded != 1 else ''}"
    if outcome.found:
        return run.sat("a violation was found in the search", falsifier, outcome)
    if outcome.open:
        return run.verdict(Status.TIMEOUT, f"time is up after {bounded}, {outcome.open} are open", outcome)
    if outcome.stuck and outcome.reason:
        return run.verdict(Status.UNKNOWN, f"of {bounded} {outcome.stuck} are undecided: {outcome.reason}", outcome)
    if outcome.stuck:
        reason = f"of {bounded} {outcome.stuck} cannot be split further and are neither proved nor violated"
        return run.verdict(Status.UNKNOWN, reason, outcome)
    if outcome.trusted is not None:
        run.observer(Notice(f"unsat rests on the word of {outcome.trusted} alone", loud=True))
        reason = f"{bounded} without a violation, all there are, on the word of {outcome.trusted} alone"
        return run.verdict(Status.UNSAT, reason, outcome)
    return run.verdict(Status.UNSAT, f"{bounded} proved, all there are", outcome)


def bounds(
    network: Network, box: Query | Box, method: str = "crown", settings: Settings | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bounds of the outputs over one box, or over each input box of a query: `(lower, upper)`, each of the output's
    shape, in float32, rounded outward: they hold for the real function on the box and on its rounding to float32. They
    are infinite where nothing is known, as behind a quotient whose divisor may be 0.

    `method`: interval (IBP), forward (linear forms), crown (backward bounds). Raises `UnsupportedError` for a network
    with operators that have no bounds.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'; use one of {', '.join(METHODS)}")
    settings = settings or Settings()
    found = (box,) if isinstance(box, Box) else box.boxes
    if any(len(one.lower) != network.graph.nodes[0].size for one in found):
        raise PropertyError(f"the box does not have {network.graph.nodes[0].size} inputs, as the network has")
    program = prepare(network.graph, torch.float32, device_named(settings.device))
    effort = Effort(settings.memory // 2)
    return [_output_bounds(program, one, method, effort) for one in found]


def _output_bounds(program: Program, box: Box, method: str, effort: Effort) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = (torch.from_numpy(end).to(program.device) for end in box.outward(np.float32))
    shaped = Interval(lower[None], upper[None]).reshape(1, *program.graph.input_shape)
    with torch.no_grad():
        result = output_interval(program, shaped, method, effort)
    return result.lower[0].cpu().numpy(), result.upper[0].cpu().numpy()


@dataclass(eq=False)
class Stages:
    """What the stages of one call share: the clock, and who is told what they took. `deadline`: of `time.monotonic()`;
    `stages`: seconds by name."""

    observer: Observer
    deadline: float
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:  # interrupted or not
            seconds = time.monotonic() - started
            self.stages[name] = self.stages.get(name, 0.0) + seconds
            self.observer(StageFinished(name, seconds))

    def part(self, share: float) -> float:
        """Seconds: of those that are left."""
        return max(0.0, share * (self.deadline - time.monotonic()))

    def share(self, attack: AttackSettings) -> AttackSettings:
        """The attack's settings with at most a tenth of what time is left."""
        return replace(attack, seconds=min(attack.seconds, self.part(0.1)))


@dataclass(eq=False)
class _Run(Stages):
    """And how a verdict about `query` is written."""

    query: Query = field(kw_only=True)

    def sat(self, reason: str, falsifier: Falsifier, outcome: Outcome | None = None) -> Verdict:
        verdict = self.verdict(Status.SAT, reason + " and replayed in onnxruntime", outcome)
        return replace(verdict, witness=falsifier.witness, bound=None, proved=None)

    def verdict(self, status: Status, reason: str, outcome: Outcome | None = None) -> Verdict:
        counts: Mapping[str, object] = {}
        if outcome is not None:
            counts = {"domains": outcome.bounded, "open": outcome.open, "stuck": outcome.stuck}
        return Verdict(
            status,
            reason,
            bound=outcome.bound if outcome is not None and np.isfinite(outcome.bound) else None,
            proved=None if outcome is None else outcome.proved,
            statistics={**counts, "stages": dict(self.stages)},
            warnings=self.query.warnings,
            trusted=outcome.trusted if outcome is not None and status is Status.UNSAT else None,
        )


def _part_read(network: Network, query: Query) -> Graph:
    """What the outputs in the property's rows depend on, where all of it can be bounded; the whole graph where that
    does not give the same numbers."""
    whole = network.graph
    if unbounded_nodes(whole):
        return whole
    read = sorted({place for disjunct in query.disjuncts for row in disjunct.rows for place, _ in row.outputs})
    program = prepare(whole, torch.float64)
    part = excerpt(program, torch.tensor(read, dtype=torch.long))
    if part is program.graph:
        return whole
    points = points_of(query.boxes, network).reshape(-1, *whole.input_shape)
    graphs = (graph.to(torch.float64) for graph in (whole, part))
    expected, found = (outputs_at(graph, points, torch.float64)[:, read] for graph in graphs)
    same = np.allclose(expected, found, rtol=SAME, atol=SAME * float(np.abs(expected).max()))
    return part if same else whole


def _falsifier(network: Network, graph: Graph, query: Query, problem: Problem, seed: int, deadline: float) -> Falsifier:
    original = Original(network.run, network.input_dtype.type, network.input_shape)
    device = problem.box.lower.device
    return Falsifier(graph.to(torch.float32, device), problem, query, original, seed, deadline)


def _search(
    graph: Graph, problem: Problem, device: torch.device, settings: Settings, run: _Run, candidates: Candidates
) -> Strategy | WholeSearch:
    if settings.chosen_solver is not None:
        return _whole_search(graph, problem, settings, run, candidates)
    program = prepare(graph, problem.box.lower.dtype, device).asked(problem.output_rows)
    precise = cache(lambda: prepare(graph, torch.float64, device).asked(problem.output_rows))
    limits = Limits(run.deadline, settings.memory)
    exact = settings.method == "auto"
    return Strategy(Task(problem, program, precise, settings.search, limits, candidates, run.observer, exact))


def _whole_search(graph: Graph, problem: Problem, settings: Settings, run: _Run, candidates: Candidates) -> WholeSearch:
    """One solver for all, and where it is not trusted our own proof of what it says."""
    solver = settings.chosen_solver
    assert solver is not None
    program, own = prepare(graph, torch.float64), problem.box.lower
    exact = problem if own.dtype is torch.float64 else build_problem(run.query, torch.float64, "cpu")
    suspects = lambda x, which: candidates(x.to(own), which.to(own.device))  # noqa: E731
    limits = Limits(run.deadline, settings.memory)
    task = Task(exact, program, lambda: program, settings.search, limits, suspects, run.observer)
    if settings.trust == "solver":
        return WholeSearch(task, Mixed(solver), solver, believing=True)
    return WholeSearch(task, Reproved(Mixed(solver), Checked(ChildSolver)), solver, believing=False)


def _check_sizes(network: Network, query: Query) -> None:
    for kind, letter, asked, there in (
        ("inputs", "X", query.input_size, network.graph.nodes[0].size),
        ("outputs", "Y", query.output_size, network.graph.nodes[network.graph.output].size),
    ):
        if asked != there:
            raise PropertyError(
                f"the property declares {asked} {kind} ({letter}_0 to {letter}_{asked - 1}),"
                f" but the network '{network.path}' has {there}; is it the right property for this network?"
            )


def points_of(boxes: Sequence[Box], network: Network) -> np.ndarray:
    """Points of the boxes for the replay `[n, inputs]`: a centre, a corner, a random point, upper ends."""
    generator = np.random.default_rng(0)
    points = []
    for place in range(REPLAYED_POINTS):
        lower, upper, _ = boxes[place % len(boxes)].inward(network.input_dtype.type)
        size = len(lower)
        weight = (np.full(size, 0.5), generator.integers(0, 2, size), generator.random(size), np.ones(size))[place]
        points.append(np.clip(lower + weight * (upper.astype(np.float64) - lower), lower, upper))
    return np.array(points)


def device_named(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
