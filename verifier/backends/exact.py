"""Decide one disjunct over one box exactly, over the phases of the neurons that its bounds leave undecided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.backends.encoding import encode
from verifier.backends.highs import HighsSolver
from verifier.backends.protocol import Answer, Budget, LinearProgram, LinearSolver
from verifier.backends.tree import Tree
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program
from verifier.core.flat import flat
from verifier.core.interval import Interval
from verifier.core.operator import Elementwise
from verifier.core.problem import Problem
from verifier.core.stacked import cast
from verifier.core.verdict import Status
from verifier.errors import BackendError

MOST_ENTRIES = 1 << 24  # of the matrix of a linear program, as numbers in memory (128 MiB)


def obstacle(program: Program, found: NodeBounds, problem: Problem) -> str | None:
    """Why `solve` cannot be asked, or None: operators with bends or choices only, all bounds finite, and few enough
    neurons undecided. `found` has batch 1."""
    devices = {program.device.type, *(bounds.lower.device.type for bounds in found.intervals.values())}
    if program.dtype is not torch.float64 or devices != {"cpu"}:
        return "exact reasoning needs the network in double precision, and all on the CPU"
    if not problem.exact and problem.output_rows.dtype is not torch.float64:
        return "the property's coefficients were rounded to single precision"
    rows = columns = 0
    for node in program.graph.nodes[: program.graph.output + 1]:
        if not isinstance(node.op, Elementwise):
            continue
        boxes = [found.intervals[source] for source in node.inputs]
        if not all(bool(box.lower.isfinite().all() and box.upper.isfinite().all()) for box in boxes):
            return f"the bounds of {node} are not finite"
        undecided = int(node.op.unstable(*boxes).sum())
        if node.op.kinks() is None and not node.op.extreme():
            return f"no exact form of {node}"
        each = len(node.inputs) if node.op.extreme() else 1 + len(node.op.kinks() or ())
        rows, columns = rows + each * undecided, columns + each * undecided
    if (rows + 1) * (columns + program.graph.nodes[0].size) > MOST_ENTRIES:
        return f"{columns} columns of undecided neurons are too many"
    return None


def solve(
    program: Program,
    found: NodeBounds,
    problem: Problem,
    box: Interval,
    which: int,
    disjunct: int,
    budget: Budget | None = None,
    confirm: Callable[[Tensor], bool] = lambda point: True,
    solver: Callable[[LinearProgram], LinearSolver] = HighsSolver,
) -> Answer:
    """Whether disjunct `disjunct` of box `which` of the problem has a violation in `box` `[1, *input]`, a part of it.

    `found` (of batch 1) holds over that part, or over what splits of neurons left of it: their bounds become rows.
    UNSAT counts only where the answer is `checked`. `confirm(point)` `[*input]` is asked about points that violate in
    double precision (of the whole box, whatever splits left); SAT is answered with the first that it agrees to.
    Raises `BackendError` where the solver is missing or fails, or where `obstacle` names a reason.
    """
    found, box = cast(found, torch.float64), cast(box, torch.float64)
    reason = obstacle(program, found, problem)
    if reason is None and not bool((problem.owner[which] == disjunct).any()):
        reason = f"disjunct {disjunct} of box {which} has no rows"
    if reason is not None:
        raise BackendError(reason)
    box = box.reshape(1, *program.graph.input_shape)

    def violates(point: np.ndarray) -> bool:
        x = torch.from_numpy(point).reshape(program.graph.input_shape)
        return margin(program, problem, x, which, disjunct) <= 0 and confirm(x)

    with torch.no_grad():
        for bounds in found.intervals.values():
            if bool((bounds.lower > bounds.upper).any()):
                return Answer(Status.UNSAT, "the bounds of the neurons contradict each other", checked=True)
        try:
            encoding = encode(program, found, problem, box, which, disjunct)
            answer = Tree(encoding, solver, violates, budget or Budget()).run()
        except MemoryError as error:
            raise BackendError("exact reasoning ran out of memory") from error
    return answer if answer.point is None else replace(answer, point=answer.point.reshape(program.graph.input_shape))


def margin(program: Program, problem: Problem, point: Tensor, which: int, disjunct: int) -> float:
    """Of the disjunct at an input, in double precision: at most 0 where it seems to be violated."""
    x = point.reshape(1, *program.graph.input_shape)
    y = flat(program.graph.evaluate(x))
    box = torch.tensor([which])
    exact = cast(problem, torch.float64)
    return float(exact.disjunct_margins(x, y, box)[0, disjunct])
