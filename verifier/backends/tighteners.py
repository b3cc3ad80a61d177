"""Neurons tightened by several processes at once: each has a part of the elements of a node."""

from __future__ import annotations

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from verifier.backends.elsewhere import Process
from verifier.backends.tightening import NodeTask, Tightening
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.bounding.tighten import Tightener
from verifier.core.interval import Interval
from verifier.errors import BackendError

HOME = "verifier.backends.tighteners:Worker"
MOST_PROCESSES = 8


class Worker:
    """What works in a process. Everything comes and goes as bytes: tensors would be shared otherwise."""

    def __init__(self, content: bytes) -> None:
        torch.set_num_threads(1)
        self.program = prepare(pickle.loads(content), torch.float64)

    def ready(self) -> bool:
        return True

    def bounds(self, asked: bytes, seconds: float) -> bytes:
        """Of a `NodeTask`."""
        tightening = Tightening(self.program, pickle.loads(asked), time.monotonic() + seconds)
        tightening.improve()
        return pickle.dumps(tightening.bounds())


class Tighteners:
    """`count` processes that know `program`, which is in double precision and on the CPU. A context: they end with it.
    What fails in a process costs the bounds of its part of one node."""

    def __init__(self, program: Program, count: int | None = None) -> None:
        content = pickle.dumps(program.graph)
        count = count or min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        self.processes = [Process(HOME, content) for _ in range(count)]
        self.pool = ThreadPoolExecutor(count)

    def __enter__(self) -> Tighteners:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.processes:
            process.stop()
        self.pool.shutdown(cancel_futures=True)

    def over(self, box: Interval) -> Tightener:
        """Of nodes over `box` `[1, *input]`; of the elements asked about the first ones come first."""

        def tighten(found: NodeBounds, source: int, index: Tensor, deadline: float) -> tuple[Tensor, Tensor]:
            known, count = NodeBounds(found.upto(source).intervals), len(self.processes)
            tasks = [NodeTask(box, known, source, part) for k in range(count) if len(part := index[k::count])]
            pairs = list(self.pool.map(_asked, self.processes, tasks, [deadline] * len(tasks)))
            bounds = torch.full((2, len(index)), torch.inf, dtype=torch.float64)
            bounds[0] = -torch.inf
            for k, pair in enumerate(pairs):
                if pair is not None:
                    bounds[:, k::count] = torch.stack(pair)
            return bounds[0], bounds[1]

        return tighten


def _asked(process: Process, task: NodeTask, deadline: float) -> tuple[Tensor, Tensor] | None:
    """The bounds of a task by a process; None where it has none."""
    try:
        process.start()
        seconds = deadline - time.monotonic()
        reply = process.ask(seconds, "bounds", pickle.dumps(task), seconds) if seconds > 0 else None
    except BackendError:
        return None
    return None if reply is None else pickle.loads(reply)
