"""What each kind of bound gains at the root, and what it takes, on one open instance of each family.

    python benchmarks/root_bounds.py DIR OUT.csv [--family NAME] [--seconds 60]

DIR holds a folder for each family, with an instances.csv (network, property, timeout). Taken is the first instance that
CROWN leaves open among the first TRIED, or the first one that intervals leave open. For each method it writes: CPU
seconds of one thread, how many rows of the property are proved, and the mean of the bounds of those rows that the first
method leaves open (positive ones count as 0), divided by that of CROWN: 1 is as loose as CROWN, 0 is a proof. Later
methods include what the earlier ones found:

    interval, forward   of the outputs, each by itself; forward where its linear forms fit into MEMORY
    crown               backward bounds of the undecided neurons, then of the rows
    alpha rows          slopes of the rows' bounds optimised
    alpha rows, lambda  with the weights of a conjunction's rows
    double precision    of the neurons that single precision leaves undecided
    alpha some neurons  slopes of the bounds of the neurons with most influence for their price too
    alpha neurons       of all neurons
    splits to g         each end of each neuron that matters searched by itself, until a round gains less than g
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

import verifier
from verifier.bounding.engine import Effort, output_interval
from verifier.bounding.program import Program, prepare
from verifier.core.flat import flat
from verifier.core.problem import Problem, build_problem
from verifier.errors import VerifierError
from verifier.search.neurons import objective_of
from verifier.search.root import Known, Root
from verifier.search.task import Limits, Task
from verifier.settings import AscentSettings, SearchSettings

MEMORY = 4 << 30
TRIED = 4
COLUMNS = ("family", "network", "property", "method", "seconds", "rows", "proved", "beside_crown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--family", help="only this one")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all passes over the neurons of one instance")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    time.monotonic = time.process_time  # so that other work on the machine changes little
    with options.table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for listing in sorted(options.folder.glob(f"{options.family or '*'}/instances.csv")):
            for row in first_open(listing, options.seconds):
                writer.writerow((listing.parent.name, *row))
                file.flush()
                print(listing.parent.name, *row, flush=True)


def first_open(listing: Path, seconds: float) -> list[tuple[object, ...]]:
    """The rows of the table for the first instance with something to tell; none if there is no such instance."""
    easy: list[tuple[object, ...]] = []
    for network, prop, *_ in islice(csv.reader(listing.read_text().splitlines()), TRIED):
        try:
            found = list(compare(listing.parent / network, listing.parent / prop, seconds))
        except VerifierError as error:
            print(listing.parent.name, Path(network).name, Path(prop).name, error, flush=True)
            continue
        rows = [(Path(network).name, Path(prop).name, *row) for row in found]
        if len({row[2] for row in rows} - {"interval", "forward"}) > 1:
            return rows
        easy = easy or rows
    return easy


def compare(network: Path, prop: Path, seconds: float) -> Iterator[tuple[object, ...]]:
    """(method, seconds, rows, proved, mean open bound beside CROWN's); nothing where intervals prove all, and no more
    than CROWN where that does."""
    loaded = verifier.load(network)
    problem = build_problem(verifier.read_property(prop), torch.float32, "cpu")
    program, precise = (
        prepare(loaded.graph, dtype).asked(problem.output_rows) for dtype in (torch.float32, torch.float64)
    )
    forms = (program.graph.nodes[0].size + 1) * program.graph.size * program.number_size * len(problem.box.lower)
    methods = ("interval", "forward") if forms <= MEMORY else ("interval",)
    plain = {method: timed(lambda: row_margins(program, problem, method)) for method in methods}  # noqa: B023
    open_rows = ~(plain["interval"][1] > 0)
    if not bool(open_rows.any()):
        return
    table = list(optimised(program, precise, problem, seconds))
    crown = lack(table[0][2], open_rows)
    for name, took, bounds in [(k, *v) for k, v in plain.items()] + table:
        beside = lack(bounds, open_rows) / crown if crown else float("nan")
        yield name, round(took, 3), open_rows.numel(), int((bounds > 0).sum()), round(beside, 4)


def optimised(
    program: Program, precise: Program, problem: Problem, seconds: float
) -> Iterator[tuple[str, float, Tensor]]:
    """Each method, its seconds with those of what it builds on, and the bounds `[disjuncts]`."""
    root, crown = None, 0.0
    for name, iterations, weights in (("crown", 0, 0.0), ("alpha rows", 40, 0.0), ("alpha rows, lambda", 40, 1.0)):
        if weights and problem.most_rows == 1:
            continue
        began = time.monotonic()
        settings = SearchSettings(root=AscentSettings(iterations=iterations, weight_rate=weights, enough=float("inf")))
        task = Task(problem, program, lambda: precise, settings, Limits(float("inf"), MEMORY), lambda *_: False)
        root = Root(task, problem.real, Known(root.found if root else None))
        took = time.monotonic() - began + crown
        crown = crown or took
        yield name, took, of_all(root, problem)
        if not len(root.pairs):
            return
    assert root is not None
    root.limits, began = Limits(time.monotonic() + seconds, MEMORY), time.monotonic() - took
    while root.can_tighten():
        name = root.passes[0].name
        root.tighten()
        yield name, time.monotonic() - began, of_all(root, problem)


def of_all(root: Root, problem: Problem) -> Tensor:
    """Bounds of all disjuncts `[all]`; those that the root has proved count as infinite."""
    bounds = torch.full(problem.real.shape, torch.inf)
    bounds[root.pairs[:, 0], root.pairs[:, 1]] = root.bound
    return bounds[problem.real]


def row_margins(program: Program, problem: Problem, method: str) -> Tensor:
    """From the outputs' bounds: of each disjunct the margin of its best row `[all]`."""
    box = problem.box.reshape(-1, *program.graph.input_shape)
    outputs = output_interval(program, box, method, Effort(MEMORY // 2))
    lower, upper = flat(outputs.lower), flat(outputs.upper)
    which, slot = problem.real.nonzero().T
    objective = objective_of(problem, program, which, slot)
    rows = flat(objective.rows[program.graph.output], 2)
    ends = torch.where(rows > 0, lower[which].unsqueeze(1), upper[which].unsqueeze(1))
    margins = (rows * ends).sum(2) + objective.offset
    return margins.amax(1)


def lack(bounds: Tensor, rows: Tensor) -> float:
    return float(torch.nan_to_num(-bounds.clamp(max=0), nan=torch.inf)[rows].mean())


def timed(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    began = time.monotonic()
    value = function()
    return time.monotonic() - began, value


if __name__ == "__main__":
    main()
