"""Variants of the search, by subproblems and CPU seconds, on instances of several families.

    python benchmarks/search_variants.py DIR OUT.csv [--seconds 6] [--match TEXT]

DIR holds a folder for each family, with an instances.csv (network, property, timeout). Each of INSTANCES (all without a
violation, as far as is known) gets bounds of its root once, by as many passes as are given there; from there each
variant searches for `--seconds`, without an attack and without exact reasoning. What is not named is as in the code:

    default             neurons first, by the distance of the function from the plane in use at the branch point, and
                        new bounds of 64 neurons where the run finds that they pay
    widths              by the distance between both planes there
    lower widths halved     by half of it where the lower plane is in use
    filtered            of the four best places all are tried, and the best children win
    never, always new   bounds of neurons are never or always computed anew
    new by gain         and of those that a split would serve most
    one level           one split at once, however few subproblems there are
    N iterations        of the ascent, at most
    not clipped         the input box is not clipped by the bound's row

and where few inputs vary

    inputs              they are split, never neurons
    filtered with inputs    the same, but half of those tried are inputs
    input search ^ e    the search over inputs with this weight of the width
    in turns            both searches, as a run has them

All clocks in the process show CPU time of its one thread, so that other work on the machine changes little. Written
are whether all was proved, subproblems bounded and open, seconds, the share proved and the worst open bound. The row
`root` has what the root took and its worst bound.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from filtered import few_of_both, filtered

import verifier
from verifier.bounding.program import prepare
from verifier.core.problem import build_problem
from verifier.search.branching.input_effect import input_effect
from verifier.search.branching.neurons_first import neurons_first
from verifier.search.branching.relaxation_gap import gain, relaxation_gap
from verifier.search.branching.rule import Rule
from verifier.search.influence import width
from verifier.search.inputs import InputSearch
from verifier.search.measured import SmallerTree
from verifier.search.neurons import NeuronSearch
from verifier.search.root import Root
from verifier.search.splitting import splittable
from verifier.search.strategy import MANY_INPUTS, Strategy
from verifier.search.task import Limits, Outcome, Task
from verifier.settings import AscentSettings, SearchSettings

MEMORY = 4 << 30
TRIED = 4
COLUMNS = ("family", "network", "property", "variant", "proved", "subproblems", "open", "seconds", "share", "bound")
INSTANCES = (  # family, part of the network's name, part of the property's, and passes over the root's bounds
    ("cifar10_resnet", "2b", "prop_36", 1),
    ("safenlp", "ruarobot", "824", 3),
    ("oval21", "deep", "7878", 3),
    ("eran", "relu", "225", 4),
    ("dist_shift_2023", "concat", "2481", 3),
    ("mnist_fc", "256x4", "prop_8_0.03", 4),
    ("mnist_fc", "256x4", "prop_5_0.05", 4),
    ("oval21", "base", "8194", 3),
    ("eran", "SIGMOID", "3991", 1),
    ("sri_resnet_a", "3b2", "5594", 1),
    ("acasxu_2023", "3_9", "prop_1", 3),
)


class Always(SmallerTree):
    """Not measured but given."""

    def __init__(self, choice: bool) -> None:
        super().__init__()
        self.choice = choice

    def choose(self) -> bool:
        return self.choice


@dataclass(frozen=True)
class Variant:
    """`patches`: other values for names of the package."""

    name: str
    rule: Rule = neurons_first
    settings: SearchSettings = field(default_factory=SearchSettings)
    patches: Mapping[str, object] = field(default_factory=dict)


GAIN, REFRESHING = "verifier.search.branching.relaxation_gap.gain", "verifier.search.neurons.SmallerTree"
VARIANTS = (
    Variant("default"),
    Variant("widths", patches={GAIN: lambda rows, below, above: (below + above) * rows.abs()}),
    Variant("lower widths halved", patches={GAIN: width}),
    Variant("filtered", filtered(neurons_first, TRIED)),
    Variant("never new", patches={REFRESHING: partial(Always, False)}),
    Variant("always new", patches={REFRESHING: partial(Always, True)}),
    Variant("new by gain", patches={"verifier.search.influence.width": gain}),
    Variant("one level", settings=SearchSettings(levels=1)),
    Variant("5 iterations", settings=SearchSettings(ascent=AscentSettings(iterations=5))),
    Variant("10 iterations", settings=SearchSettings(ascent=AscentSettings(iterations=10))),
    Variant("40 iterations", settings=SearchSettings(ascent=AscentSettings(iterations=40))),
    Variant("not clipped", patches={"verifier.search.expansion.clip_by": lambda form, box: box}),
)
OF_INPUTS = (
    Variant("inputs", input_effect),
    Variant("filtered with inputs", filtered(few_of_both(relaxation_gap, input_effect), TRIED)),
)
EXPONENTS = (1.0, 1.5, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0, help="CPU seconds for each search")
    parser.add_argument("--match", default="", help="only instances with this in a name, or in that of the family")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    time.monotonic = time.process_time
    with options.table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for family, *names, passes in INSTANCES:
            if options.match not in " ".join((family, *names)):
                continue
            network, prop = find(options.folder / family, *names)
            for row in compare(network, prop, passes, options.seconds):
                writer.writerow((family, network.name, prop.name, *row))
                file.flush()
                print(family, prop.name, *row, flush=True)


def find(family: Path, network: str, prop: str) -> tuple[Path, Path]:
    """The first instance with these parts in its names."""
    for row in csv.reader((family / "instances.csv").read_text().splitlines()):
        if network in row[0] and prop in row[1]:
            return family / row[0], family / row[1]
    raise SystemExit(f"no instance with {network} and {prop} in '{family}'")


def compare(network: Path, prop: Path, passes: int, seconds: float) -> Iterator[tuple[object, ...]]:
    """The columns behind the property's name, for the root and for each variant."""
    task = task_of(network, prop)
    began, root = time.process_time(), Root(task, task.problem.real)
    for _ in range(passes):
        root.tighten()
    took, lowest = time.process_time() - began, float(root.bound.min()) if len(root.bound) else 0.0
    yield "root", int(not len(root.pairs)), int(task.problem.real.sum()), len(root.pairs), f"{took:.1f}", "", lowest
    kept, roots = root.subproblems()
    few = int(splittable(task.problem.box).sum(1).max()) <= MANY_INPUTS
    for variant in VARIANTS + OF_INPUTS if few else VARIANTS:
        own = replace(task, settings=variant.settings, rule=variant.rule)
        with ExitStack() as stack:
            for name, value in variant.patches.items():
                stack.enter_context(mock.patch(name, value))
            yield variant.name, *measured(own, seconds, lambda own: NeuronSearch(kept, roots, own).run())
    for exponent in EXPONENTS if few else ():
        own = replace(task, settings=SearchSettings(width_exponent=exponent))
        yield f"input search ^ {exponent:g}", *measured(own, seconds, lambda own: InputSearch(own).run())
    if few:
        yield "in turns", *measured(task, seconds, in_turns)


def measured(task: Task, seconds: float, search: Callable[[Task], Outcome]) -> tuple[object, ...]:
    """The columns behind the variant's name."""
    began = time.process_time()
    outcome = search(replace(task, limits=Limits(began + seconds, MEMORY)))
    took = f"{time.process_time() - began:.1f}"
    return int(outcome.complete), outcome.bounded, outcome.open, took, f"{outcome.proved:.4f}", f"{outcome.bound:.4g}"


def in_turns(task: Task) -> Outcome:
    strategy = Strategy(task)
    first = strategy.first()
    return strategy.run() if first.open else first


def task_of(network: Path, prop: Path) -> Task:
    graph = verifier.load(network).graph
    problem = build_problem(verifier.read_property(prop), torch.float32, "cpu")
    program, precise = (prepare(graph, dtype).asked(problem.output_rows) for dtype in (torch.float32, torch.float64))
    limits = Limits(float("inf"), MEMORY)
    return Task(problem, program, lambda: precise, SearchSettings(), limits, lambda points, which: False, exact=False)


if __name__ == "__main__":
    main()
