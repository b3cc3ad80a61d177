"""Which search works on a query, and for how long.

Splitting inputs is the right thing where they are few, splitting neurons where they are many. In between nobody knows:
there both run in turns, and the one that proves more gets the longer ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from verifier.bounding.program import Program
from verifier.core.events import Observer
from verifier.core.problem import Problem
from verifier.search.inputs import InputSearch
from verifier.search.neurons import NeuronSearch
from verifier.search.outcome import Candidates, Limits, Outcome
from verifier.search.root import open_root
from verifier.settings import SearchSettings

MANY_INPUTS = 40  # varying inputs beyond which splitting them is hopeless: every one would have to be split
FIRST_TURN = 2.0  # seconds; turns double
LEADER = 3.0  # how much longer the turns are of the search that has proved more


class Strategy:
    """Decides `problem` with both searches. `run` may be called again to go on where it stopped.

    `programs`: the one to bound with, and how to get the slower one in double precision for close calls."""

    def __init__(
        self,
        programs: tuple[Program, Callable[[], Program]],
        problem: Problem,
        settings: SearchSettings,
        limits: Limits,
        candidates: Candidates,
        observer: Observer,
    ) -> None:
        self.programs, self.problem, self.settings, self.limits = programs, problem, settings, limits
        self.candidates, self.observer = candidates, observer
        self.inputs = InputSearch(programs, problem, settings, limits, candidates, observer)
        self.neurons: NeuronSearch | None = None

    def first(self, pause: float) -> Outcome:
        """The cheap bounds, and `pause` seconds of splitting inputs."""
        return self.inputs.run(pause)

    def run(self) -> Outcome:
        """Until all is proved, a violation is found, or time is up."""
        if not self._neurons_fit():
            return self.inputs.run()
        varying = int((self.problem.box.upper > self.problem.box.lower).flatten(1).sum(1).max())
        turn = FIRST_TURN
        if varying <= MANY_INPUTS:
            outcome = self.inputs.run(turn)
            if outcome.complete or outcome.found or not outcome.open:
                return outcome
        neurons = self._open_neurons()
        if varying > MANY_INPUTS:
            return neurons.run()
        while True:
            lead = self.inputs.proved > neurons.proved
            for search, longer in ((neurons, not lead), (self.inputs, lead)):
                outcome = search.run(turn * (LEADER if longer else 1.0))
                if outcome.complete or outcome.found or time.monotonic() >= self.limits.deadline:
                    return outcome
            if not len(self.inputs.frontier) and not len(neurons.frontier):
                return outcome
            turn *= 2

    def _neurons_fit(self) -> bool:
        """Each box needs bounds of every node, and each of its disjuncts a row: a violation of one without rows would
        need no neuron at all."""
        program, problem = self.programs[0], self.problem
        floats = len(problem.disjuncts) * sum(node.size for node in program.graph.nodes)
        pairs = zip(problem.disjuncts.tolist(), problem.owner.tolist(), strict=True)
        every = all(set(range(count)) <= set(owner) for count, owner in pairs)
        return every and bool(program.splittable) and floats * 16 < self.limits.memory // 8

    def _open_neurons(self) -> NeuronSearch:
        if self.neurons is None:
            kept, roots = open_root(self.programs[0], self.problem, self.settings, self.limits)
            self.neurons = NeuronSearch(
                kept, roots, self.programs[1], self.problem, self.settings, self.limits, self.candidates, self.observer
            )
        return self.neurons
