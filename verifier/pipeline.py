"""The table of contents: check, replay, attack, bound, search, verdict.

Both doors, the command line and the Python interface, come through here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from verifier.attack.pgd import Target, descend, sample
from verifier.bounding.engine import METHODS, Effort, bound_nodes
from verifier.bounding.program import Program, prepare, unbounded_nodes
from verifier.core.events import Notice, Observer, StageFinished, ignore
from verifier.core.interval import Interval
from verifier.core.query import Box, Query
from verifier.core.verdict import Status, Verdict, Witness
from verifier.errors import PropertyError, UsageError
from verifier.frontend.replay import replay
from verifier.search.driver import Limits, Outcome, Search
from verifier.search.problem import Problem, build_problem
from verifier.settings import Settings

if TYPE_CHECKING:
    from verifier.frontend.network import Network

SAMPLES = 8  # points tried in each box before anything dear is done
REPLAYED_POINTS = 4  # points of the property's boxes on which graph and file are compared
MOST_CONFIRMATIONS = 16  # candidates of one batch that are replayed in onnxruntime
QUICK_STEPS = 10  # gradient steps before the first bound
CLOSING = 0.2  # seconds left for ending the search and writing the answer


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
    if timeout is not None:
        settings = replace(settings, timeout=timeout)
    run = _Run(network, query, settings, observer, time.monotonic() + settings.timeout - CLOSING)
    _check_sizes(network, query)
    if not query.disjuncts:
        observer(Notice("the property's constraints contradict each other: NOTHING WAS VERIFIED", loud=True))
        return run.verdict(Status.UNSAT, "no input satisfies the constraints of the property, whatever the network does")
    with torch.no_grad(), run.stage("replay"):
        replay(network)
        replay(network, _points_of(query, network))
    with run.stage("attack"):
        run.prepare_attack()
        if run.attack_quickly():
            return run.sat("a violation was found by sampling or gradient descent")
    missing = unbounded_nodes(network.graph)
    if missing:
        observer(Notice(f"no bounds for {missing[0]}: only a violation can be found, no proof"))
        with run.stage("attack"):
            if run.attack():
                return run.sat("a violation was found by gradient descent")
        return run.verdict(Status.UNKNOWN, f"no bounds for {len(missing)} operator(s), the first is {missing[0]}")
    return _prove(run)


def _prove(run: _Run) -> Verdict:
    """Bound the whole input set; if that does not settle it, attack in earnest, then search."""
    with torch.no_grad():
        with run.stage("bound"):
            search = run.search()
            outcome = search.run(most_batches=1)
        if not outcome.found and outcome.open:
            with run.stage("attack"), torch.enable_grad():
                if run.attack():
                    return run.sat("a violation was found by gradient descent")
            with run.stage("search"):
                outcome = search.run()
    return run.conclude(outcome)


@dataclass(eq=False)
class _Run:
    """One call of `verify`: what its stages share."""

    network: Network
    query: Query
    settings: Settings
    observer: Observer
    deadline: float
    witness: Witness | None = None
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - started
        self.observer(StageFinished(name, time.monotonic() - started))

    def prepare_attack(self) -> None:
        self.device = _device(self.settings.device)
        self.graph = self.network.graph.to(torch.float32, self.device)
        self.problem = build_problem(self.query, torch.float32, self.device)
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        boxes = list({id(disjunct.box): disjunct.box for disjunct in self.query.disjuncts}.values())
        self.inward: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.boxes = boxes
        box = self.problem.box.reshape(-1, *self.graph.input_shape)
        self.target = Target(box, self.margins, self.problem.owner, self.problem.disjuncts)

    def margins(self, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
        return row_margins(self.problem, x, y, which)

    def attack_quickly(self) -> bool:
        closeness = sample(self.graph, self.target, SAMPLES, self.generator, self.confirm)
        if closeness is None:
            return True
        self.closeness = closeness
        return self.attack(replace(self.settings.attack, steps=QUICK_STEPS, seconds=1.0))

    def attack(self, settings: object = None) -> bool:
        chosen = settings or self.settings.attack
        seconds = min(chosen.seconds, max(0.0, 0.1 * (self.deadline - time.monotonic())))  # type: ignore[attr-defined]
        budget = replace(chosen, seconds=seconds)  # type: ignore[type-var]
        return descend(self.graph, self.target, budget, self.closeness, self.generator, self.confirm)

    def confirm(self, points: Tensor, which: Tensor) -> bool:
        """Replay candidates in onnxruntime on the original file; keeps the first real violation as the witness."""
        for x, box in zip(points[:MOST_CONFIRMATIONS].cpu().numpy(), which.tolist(), strict=False):
            lower, upper = self._inside(box)
            inside = np.clip(x.reshape(-1).astype(self.network.input_dtype), lower, upper)
            y = self.network.run(inside[None])[0]
            violated = self.query.violated(inside, y, self.network.input_dtype.type)
            if violated is not None:
                shaped = inside.reshape(self.network.input_shape)
                self.witness = Witness(shaped, y, *violated)
                return True
        return False

    def _inside(self, box: int) -> tuple[np.ndarray, np.ndarray]:
        if box not in self.inward:
            self.inward[box] = self.boxes[box].inward(self.network.input_dtype.type)[:2]
        return self.inward[box]

    def suspects(self, points: Tensor, which: Tensor) -> bool:
        """Candidates from the search: evaluated as one batch first, replayed only if they seem to violate."""
        y = self.graph.evaluate(points).flatten(1)
        from verifier.attack.margin import violation_margin

        worst = violation_margin(self.margins(points, y, which), self.problem.owner[which], self.target.count)
        real = torch.arange(self.target.count, device=points.device) < self.problem.disjuncts[which].unsqueeze(1)
        seem = (torch.where(real, worst, torch.inf).amin(1) <= 0).nonzero().flatten()
        return bool(len(seem)) and self.confirm(points[seem], which[seem])

    def search(self) -> Search:
        program = prepare(self.network.graph, torch.float32, self.device)
        precise: list[Program] = []

        def double() -> Program:
            if not precise:
                precise.append(prepare(self.network.graph, torch.float64, self.device))
            return precise[0]

        limits = Limits(self.deadline, self.settings.memory)
        return Search(
            (program, double), self.problem, self.settings.search, limits, self.suspects, self.observer
        )

    def conclude(self, outcome: Outcome) -> Verdict:
        statistics = {"domains": outcome.bounded, "open": outcome.open, "stuck": outcome.stuck}
        if outcome.found:
            return self.sat("a violation was found in the search", statistics)
        if outcome.open:
            reason = f"time is up with {outcome.open} subproblems open after {outcome.bounded} bounded"
            return self.verdict(Status.TIMEOUT, reason, outcome, statistics)
        if outcome.stuck:
            reason = f"{outcome.stuck} of {outcome.bounded} subproblems cannot be split further, and are neither proved nor violated"
            return self.verdict(Status.UNKNOWN, reason, outcome, statistics)
        return self.verdict(Status.UNSAT, f"all {outcome.bounded} subproblems are proved", outcome, statistics)

    def sat(self, reason: str, statistics: dict[str, object] | None = None) -> Verdict:
        return self.verdict(Status.SAT, reason + " and replayed in onnxruntime", None, statistics)

    def verdict(
        self,
        status: Status,
        reason: str,
        outcome: Outcome | None = None,
        statistics: dict[str, object] | None = None,
    ) -> Verdict:
        return Verdict(
            status,
            reason,
            witness=self.witness if status is Status.SAT else None,
            bound=outcome.bound if outcome is not None and np.isfinite(outcome.bound) else None,
            proved=None if outcome is None else outcome.proved,
            statistics={**(statistics or {}), "stages": dict(self.stages)},
            warnings=self.query.warnings,
        )


def row_margins(problem: Problem, x: Tensor, y: Tensor, which: Tensor) -> Tensor:
    """Margins `[n, R]` of the rows of box `which` `[n]` at points `x` `[n, *input]`, outputs `y` `[n, outputs]`.

    Distinct rows are few or the boxes are many, never both, so the product with the whole table is cheap only in the
    first case; otherwise each point's own rows are gathered."""
    index = problem.row[which]
    if len(problem.output_rows) <= 4 * index.shape[1]:
        values = y @ problem.output_rows.T
        if problem.input_rows is not None:
            values = values + x.flatten(1) @ problem.input_rows.T
        return values.gather(1, index) + problem.offset[which]
    values = torch.einsum("nro,no->nr", problem.output_rows[index], y)
    if problem.input_rows is not None:
        values = values + torch.einsum("nri,ni->nr", problem.input_rows[index], x.flatten(1))
    return values + problem.offset[which]


def bounds(
    network: Network, box: Query | Box, method: str = "crown", settings: Settings | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bounds of the outputs over one box, or over each input box of a query: `(lower, upper)`, each of the output's
    shape, in float32, rounded outward: they hold for the real function on the box and on its rounding to float32.

    `method`: interval (IBP), forward (linear forms), crown (backward bounds). Raises `UnsupportedError` for a network
    with operators that have no bounds.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'; use one of {', '.join(METHODS)}")
    settings = settings or Settings()
    found = [box] if isinstance(box, Box) else list({id(d.box): d.box for d in box.disjuncts}.values())
    if any(len(one.lower) != network.graph.nodes[0].size for one in found):
        raise PropertyError(f"the box has not as many inputs as the network, {network.graph.nodes[0].size}")
    program = prepare(network.graph, torch.float32, _device(settings.device))
    effort = Effort(settings.memory // 2)
    return [_output_bounds(program, one, method, effort) for one in found]


def _output_bounds(program: Program, box: Box, method: str, effort: Effort) -> tuple[np.ndarray, np.ndarray]:
    from verifier.bounding.engine import output_interval

    lower, upper = (torch.from_numpy(end).to(program.device) for end in box.outward(np.float32))
    shaped = Interval(lower[None], upper[None]).reshape(1, *program.graph.input_shape)
    with torch.no_grad():
        result = output_interval(program, shaped, method, effort)
    return result.lower[0].cpu().numpy(), result.upper[0].cpu().numpy()


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


def _points_of(query: Query, network: Network) -> np.ndarray:
    """Points of the property's boxes for the replay: centre, ends, and a random one."""
    generator = np.random.default_rng(0)
    boxes = list({id(disjunct.box): disjunct.box for disjunct in query.disjuncts[:64]}.values())[:REPLAYED_POINTS]
    points = []
    for place in range(REPLAYED_POINTS):
        lower, upper, _ = boxes[place % len(boxes)].inward(network.input_dtype.type)
        weight = (0.5, generator.integers(0, 2, len(lower)), generator.random(len(lower)), 1.0)[place]
        points.append(lower + weight * (upper.astype(np.float64) - lower))
    return np.array(points)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
