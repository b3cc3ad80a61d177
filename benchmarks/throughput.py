"""How fast bounding is, beside what the machine can do at all, and what sound rounding costs.

    python benchmarks/throughput.py [--device cpu|cuda] [--batch 512] [--seconds 3]

For a 6 x 256 dense network and two small convolutional ones (random weights: 16 channels with layers of half the
height and width each; 32 channels and an even size) it prints: subproblems bounded per second (all nodes and one row),
the rate of floating-point operations of a backward pass of several rows per domain, in blocks as the searches make
them, this rate as a share of the measured peak of a large matrix product, and the time of the pass over that of the
same pass without error accounting. Only affine operators count as operations; all else is overhead.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import torch

from verifier.bounding import backward as backward_module
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.bounding.specification import bound_rows
from verifier.core.graph import Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.operator import Affine
from verifier.ops import Conv, Linear, Relu, Reshape
from verifier.ops.window import Window

PEAK_SIZE = 2048
ROWS = 16  # rows of each domain in the backward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    peak = matrix_peak(options.device, options.seconds)
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{name}, torch {torch.__version__}, float32 matrix product {peak / 1e9:.0f} GFLOP/s")
    print(f"{'network':16s} {'domains/s':>10s} {'GFLOP/s':>9s} {'of peak':>8s} {'rounding':>9s}")
    for label, graph in networks().items():
        program = prepare(graph, torch.float32, options.device)
        box = small_boxes(program, options.batch)
        domains = options.batch / seconds_of(lambda: bound_nodes(program, box), options)  # noqa: B023
        found = bound_nodes(program, box, "forward" if box.lower[0].numel() < 100 else "interval")
        sound = seconds_of(lambda: one_pass(program, found, options.batch), options)  # noqa: B023
        with without_rounding():
            bare = seconds_of(lambda: one_pass(program, found, options.batch), options)  # noqa: B023
        rate = options.batch * ROWS * operations(program) / sound
        print(f"{label:16s} {domains:10.0f} {rate / 1e9:9.1f} {rate / peak:8.2f} {sound / bare:8.2f}x")


def networks() -> dict[str, Graph]:
    return {
        "dense 6x256": dense(),
        "conv 16, halving": convolutional(16, 16, 2),
        "conv 32, even": convolutional(8, 32, 1),
    }


def dense() -> Graph:
    nodes = [Node("x", Input(), (), (1, 256))]
    for layer in range(6):
        layer_op = Linear(torch.randn(256, 256) / 16, torch.randn(256) / 8)
        nodes.append(Node(f"z{layer}", layer_op, (len(nodes) - 1,), (1, 256)))
        nodes.append(Node(f"y{layer}", Relu(), (len(nodes) - 1,), (1, 256)))
    nodes.append(Node("out", Linear(torch.randn(10, 256) / 16), (len(nodes) - 1,), (1, 10)))
    return Graph(tuple(nodes), len(nodes) - 1)


def convolutional(size: int, out: int, stride: int) -> Graph:
    nodes, channels = [Node("x", Input(), (), (1, 3, size, size))], 3
    for layer in range(3):
        wide, size = size, size // stride
        window = Window((wide, wide), (size, size), (3, 3), (stride, stride), dilation=(1, 1), begin=(1, 1))
        weight = torch.randn(out, channels, 3, 3) / (9 * channels) ** 0.5
        nodes.append(Node(f"z{layer}", Conv(weight, window), (len(nodes) - 1,), (1, out, size, size)))
        nodes.append(Node(f"y{layer}", Relu(), (len(nodes) - 1,), (1, out, size, size)))
        channels = out
    flat = out * size * size
    nodes.append(Node("flat", Reshape((1, out, size, size), (1, flat)), (len(nodes) - 1,), (1, flat)))
    nodes.append(Node("out", Linear(torch.randn(10, flat) / flat**0.5), (len(nodes) - 1,), (1, 10)))
    return Graph(tuple(nodes), len(nodes) - 1)


def small_boxes(program: Program, batch: int) -> Interval:
    center = torch.randn(batch, *program.graph.input_shape, device=program.device)
    return Interval(center - 0.01, center + 0.01)


def one_pass(program: Program, found: NodeBounds, batch: int) -> object:
    rows = torch.randn(batch, ROWS, *program.graph.output_shape, device=program.device)
    bias = torch.zeros(batch, ROWS, device=program.device)
    return bound_rows(program, found, {program.graph.output: rows}, bias, Effort())


def operations(program: Program) -> float:
    """Floating-point operations to take one row from the output to the input."""
    nodes = program.graph.nodes
    return float(sum(2 * node.op.fan_in * node.size for node in nodes if isinstance(node.op, Affine)))


def without_rounding() -> AbstractContextManager[object]:
    """Backward passes that carry no debt for affine operators (unsound; the pass over the rows is what it costs)."""
    return mock.patch.object(backward_module.Walk, "_error_vector", lambda walk, position: None)


def matrix_peak(device: str, seconds: float) -> float:
    a = torch.randn(PEAK_SIZE, PEAK_SIZE, device=device)
    options = argparse.Namespace(device=device, seconds=seconds)
    return 2 * PEAK_SIZE**3 / seconds_of(lambda: a @ a, options)


def seconds_of(work: Callable[[], object], options: argparse.Namespace) -> float:
    """The fastest of the runs that fit in the time."""
    wait = torch.cuda.synchronize if options.device == "cuda" else (lambda: None)
    work()
    wait()
    best, end = float("inf"), time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
