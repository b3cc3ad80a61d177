"""Bounds over receptive fields are those of the whole network, on graphs of every operator that can be cropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from tests.soundness.graphs import Builder
from verifier.bounding import crop, engine, fields
from verifier.bounding.crop import lone_patches, patchwork
from verifier.bounding.engine import Effort, bound_nodes
from verifier.bounding.nodes import NodeBounds
from verifier.bounding.program import Program, prepare
from verifier.core.graph import Constant, Graph
from verifier.core.interval import Interval
from verifier.ops import (
    Add,
    Concat,
    Conv,
    ConvTranspose,
    Linear,
    Maximum,
    Multiply,
    Permute,
    Relu,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sum,
)
from verifier.ops.window import Window


class Images(Builder):
    """Layers on nodes of shape `[1, channels, *sizes]`."""

    def conv(
        self,
        source: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        dilation: int = 1,
        groups: int = 1,
    ) -> int:
        _, width, *wide = self.nodes[source].shape
        reach = dilation * (kernel - 1) + 1
        narrow = [(size + sum(pads) - reach) // stride + 1 for size in wide]
        window = self._window(wide, narrow, kernel, stride, dilation, pads[0], groups)
        weight = self.normal(channels, width // groups, *window.kernel) / (width * kernel) ** 0.5
        return self.add(Conv(weight, window, self.normal(channels) / 3), [source], (1, channels, *narrow))

    def spread(self, source: int, channels: int, kernel: int, stride: int, begin: int = 0, end: int = 0) -> int:
        _, width, *narrow = self.nodes[source].shape
        wide = [(size - 1) * stride + kernel - begin - end for size in narrow]
        window = self._window(wide, narrow, kernel, stride, 1, begin, 1)
        weight = self.normal(width, channels, *window.kernel) / width**0.5
        return self.add(ConvTranspose(weight, window, self.normal(channels) / 3), [source], (1, channels, *wide))

    def _window(
        self,
        wide: Sequence[int],
        narrow: Sequence[int],
        kernel: int,
        stride: int,
        dilation: int,
        begin: int,
        groups: int,
    ) -> Window:
        all_axes = lambda number: (number,) * len(wide)  # noqa: E731
        return Window(
            tuple(wide),
            tuple(narrow),
            all_axes(kernel),
            all_axes(stride),
            all_axes(dilation),
            all_axes(begin),
            groups,
        )

    def relu(self, source: int) -> int:
        return self.same(Relu(), source)

    def moved(self, source: int, move: Callable[[Tensor], Tensor]) -> int:
        """A Select, by what `move` does to the positions."""
        shape = self.nodes[source].shape
        index = move(torch.arange(self.nodes[source].size).reshape(shape)).contiguous()
        return self.add(Select(index, shape), [source], index.shape)


def plain(b: Images) -> None:
    z = b.relu(b.conv(0, 3, 3, 1, (1, 1)))
    z = b.relu(b.conv(z, 2, 3, 2, (0, 1)))
    z = b.relu(b.conv(z, 4, 2, 1, (1, 0)))
    b.relu(b.conv(z, 2, 3, 1, (2, 2), dilation=2, groups=2))


def residual(b: Images) -> None:
    """A skip over two layers, and a strided projection beside two others."""
    first = b.relu(b.conv(0, 3, 3, 1, (1, 1)))
    z = b.conv(b.relu(b.conv(first, 3, 3, 1, (1, 1))), 3, 3, 1, (1, 1))
    total = b.same(Add((1, -1)), z, first)
    z = b.conv(b.relu(b.conv(total, 4, 3, 2, (1, 1))), 4, 3, 1, (1, 1))
    b.relu(b.same(Add((1, 1)), z, b.conv(total, 4, 1, 2)))


def pooled(b: Images) -> None:
    """The maximum of a window with a padded border, an average of each channel."""
    z = b.relu(b.conv(0, 4, 3, 1, (1, 1)))
    parts = [b.moved(z, lambda p, i=i, j=j: p[:, :, i::2, j::2]) for i in (0, 1) for j in (0, 1)]
    z = b.same(Maximum(), *parts)
    z = b.conv(b.relu(b.conv(z, 4, 3, 1, (1, 1))), 4, 2, 1, groups=4)
    b.relu(z)


def branching(b: Images) -> None:
    """Down and up again, joined with what came before (U-Net)."""
    first = b.relu(b.conv(0, 2, 3, 1, (1, 1)))
    z = b.relu(b.conv(first, 3, 2, 2))
    up = b.spread(z, 2, 2, 2)
    z = b.add(Concat(1, (2, 2)), [up, first], (1, 4, *b.nodes[first].shape[2:]))
    z = b.relu(b.conv(z, 3, 3, 1, (1, 1)))
    b.relu(b.spread(z, 2, 3, 2, 1, 0))


def moved(b: Images) -> None:
    """Padding, nearest neighbours, a slice of the channels, and an end whose axes are not those of an image."""
    z = b.moved(0, lambda p: torch.nn.functional.pad(p[:, :1], (1, 2, 2, 0), value=-1))
    z = b.relu(b.conv(z, 2, 3))
    z = b.moved(z, lambda p: p.repeat_interleave(2, 2).repeat_interleave(2, 3))
    z = b.relu(b.conv(z, 2, 3, 1, (1, 1)))
    _, channels, height, width = b.nodes[z].shape
    z = b.add(Permute((0, 3, 2, 1)), [z], (1, width, height, channels))
    z = b.add(Reshape((1, width, height, channels), (width * height, channels)), [z], (width * height, channels))
    z = b.add(Linear(b.normal(3, channels), b.normal(3)), [z], (width * height, 3))
    b.same(Sigmoid(), z)


def with_constants(b: Images) -> None:
    """Constants that differ from place to place, a sum over channels, a product."""
    z = b.relu(b.conv(0, 2, 3, 1, (1, 1)))
    shape = b.nodes[z].shape
    z = b.same(Scale(b.normal(*shape[1:]), b.normal(2, 1, 1)), z)
    constant = b.add(Constant(b.normal(1, 1, shape[-1]).expand(shape).contiguous()), [], shape)
    z = b.conv(b.relu(b.same(Add((1, 1)), z, constant)), 2, 3, 1, (1, 1))
    total = b.add(Sum((1,), shape), [z], (1, 1, *shape[2:]))
    z = b.same(Multiply(), b.same(Sigmoid(), z), b.moved(total, lambda p: p.repeat(1, 2, 1, 1)))
    b.relu(b.conv(z, 2, 3, 1, (1, 1)))


def gated(b: Images) -> None:
    """Numbers that two nonlinear operators read, and no affine one."""
    z = b.conv(b.relu(b.conv(0, 3, 3, 1, (1, 1))), 2, 3, 1, (1, 1))
    z = b.same(Multiply(), z, b.same(Sigmoid(), z))
    b.relu(b.conv(z, 2, 3, 1, (1, 1)))


def generated(b: Images) -> None:
    """Behind a dense layer, so that the boxes end there."""
    source = b.add(Reshape(b.nodes[0].shape, (1, b.nodes[0].size)), [0], (1, b.nodes[0].size))
    z = b.relu(b.dense(b.relu(b.dense(source, 5)), 2 * 8 * 9))
    z = b.add(Reshape((1, 144), (1, 2, 8, 9)), [z], (1, 2, 8, 9))
    z = b.relu(b.conv(z, 3, 3, 1, (1, 1)))
    b.relu(b.conv(z, 2, 3, 1, (1, 1)))


SHAPES = {
    "plain": (plain, (1, 2, 8, 9)),
    "line": (plain, (1, 2, 15)),
    "volume": (plain, (1, 1, 5, 6, 5)),
    "residual": (residual, (1, 2, 8, 7)),
    "pooled": (pooled, (1, 2, 8, 10)),
    "branching": (branching, (1, 2, 6, 8)),
    "moved": (moved, (1, 2, 5, 6)),
    "constants": (with_constants, (1, 2, 6, 5)),
    "gated": (gated, (1, 2, 6, 5)),
    "generated": (generated, (1, 2, 3, 2)),
}


def graph_of(name: str, seed: int = 0) -> Graph:
    layers, shape = SHAPES[name]
    builder = Images(*shape, seed=seed)
    layers(builder)
    return builder.graph()


def boxes(graph: Graph, count: int, dtype: torch.dtype, seed: int = 1) -> Interval:
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(count, *graph.input_shape, dtype=dtype, generator=generator)
    width = torch.rand(count, *graph.input_shape, dtype=dtype, generator=generator) / 2
    return Interval(center - width, center + width)


@pytest.fixture(params=[1, 2, 3], ids=["small", "medium", "large"])
def always(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles wherever there can be any; of several sizes."""
    monkeypatch.setattr(crop, "FEW", 0)
    monkeypatch.setattr(crop, "WORTH", float("inf"))
    monkeypatch.setattr(fields, "FOLLOWED", 0.0)
    monkeypatch.setattr(fields, "CROSSED", 1e2)
    monkeypatch.setattr(fields, "GATHERED", 0.0)
    monkeypatch.setattr(fields, "MOST_TILES", {1: 1000, 2: 30, 3: 6}[request.param])


def never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop, "FEW", float("inf"))


def bounded(program: Program, found: NodeBounds, source: int, mask: Tensor, box: Interval) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds by backward passes where `mask`, 0 elsewhere."""
    lower, upper = torch.zeros_like(mask, dtype=program.dtype), torch.zeros_like(mask, dtype=program.dtype)
    for domains, index, low, high in engine._passes(program, found, source, mask, box, Effort()):
        lower[domains.unsqueeze(1), index] = low
        upper[domains.unsqueeze(1), index] = high
    return lower * mask, upper * mask


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("domains", [1, 3])
@pytest.mark.parametrize("name", list(SHAPES))
def test_bounds_are_those_of_whole_passes(name: str, domains: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(name)
    box = boxes(graph, domains, torch.float64)
    program = prepare(graph, torch.float64)
    found = bound_nodes(program, box, "interval")
    found = NodeBounds({**found.intervals, 0: box}, found.planes)
    generator = torch.Generator().manual_seed(2)
    tiled, results = 0, {}
    for source in program.splittable:
        mask = torch.rand(domains, graph.nodes[source].size, generator=generator) < 0.6
        results[source] = mask, bounded(program, found, source, mask, box)
        tiled += bool(program.patches[source, False][1])
    assert tiled >= 2
    cuts = {patch.cut for _, patches in program.patches.values() for patch in patches}
    assert (max(cuts) > 0) == (name == "generated")
    fresh = prepare(graph, torch.float64)
    never(monkeypatch)
    for source, (mask, got) in results.items():
        expected = bounded(fresh, found, source, mask, box)
        assert not fresh.patches
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("always", [1, 3], ids=["small", "large"], indirect=True)
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", list(SHAPES))
def test_bounds_contain_the_values(name: str) -> None:
    graph = graph_of(name, seed=3)
    box = boxes(graph, 3, torch.float32)
    box.upper[1:] = box.lower[1:]  # where rounding is all there is
    program = prepare(graph, torch.float32)
    found = bound_nodes(program, box)
    assert any(patches for _, patches in program.patches.values())
    generator = torch.Generator().manual_seed(4)
    exact = program.graph.to(torch.float64)
    for _ in range(10):
        share = torch.rand(box.shape, dtype=torch.float64, generator=generator).round(decimals=1)
        point = share * box.lower.double() + (1 - share) * box.upper.double()
        for position, value in exact.evaluate_all(point).items():
            bounds = found.intervals[position].to(torch.float64)
            assert (bounds.lower <= value + 1e-12).all() and (value - 1e-12 <= bounds.upper).all()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", list(SHAPES))
def test_cropped_graphs_compute_parts_of_the_whole(name: str) -> None:
    graph = graph_of(name)
    program = prepare(graph, torch.float64)
    values = graph.evaluate_all(boxes(graph, 1, torch.float64).lower)
    for source in program.splittable:
        covered = torch.zeros(graph.nodes[source].size)
        whole = torch.ones(1, graph.nodes[source].size, dtype=torch.bool)
        for patch, _ in patchwork(program, source, whole):
            count = len(patch.positions)
            offsets = crop._offsets(graph.nodes[patch.cut].shape, patch.program.graph.input_shape)
            read = values[patch.cut].flatten()[patch.starts[:, :1] + offsets]
            got = patch.program.graph.evaluate(read.reshape(count, *patch.program.graph.input_shape))
            torch.testing.assert_close(got.flatten(1), values[source].flatten()[patch.positions])
            covered[patch.positions.flatten()] += 1
        assert not program.patches[source, False][1] or bool((covered == 1).all())


@pytest.mark.usefixtures("always")
def test_only_the_elements_asked_for_get_new_bounds() -> None:
    graph = graph_of("residual")
    box = boxes(graph, 4, torch.float64)
    program = prepare(graph, torch.float64)
    every = bound_nodes(program, box, "interval")
    generator = torch.Generator().manual_seed(5)
    only = {s: torch.rand(4, graph.nodes[s].size, generator=generator) < 0.1 for s in program.splittable}
    for masks in (only, {s: torch.zeros_like(mask) for s, mask in only.items()}):
        found = bound_nodes(program, box, "crown", every.intervals, Effort(only=masks))
        for source in program.splittable:
            old, new = every.intervals[source], found.intervals[source]
            assert (new.lower >= old.lower).all() and (new.upper <= old.upper).all()
            if not any(bool(mask.any()) for mask in masks.values()):
                assert torch.equal(new.lower, old.lower) and torch.equal(new.upper, old.upper)


def test_small_questions_are_not_tiled_and_large_ones_are() -> None:
    b = Images(1, 3, 40, 40)
    z = b.relu(b.conv(0, 8, 3, 1, (1, 1)))
    b.relu(b.conv(z, 8, 3, 1, (1, 1)))
    program = prepare(b.graph(), torch.float32)
    source = program.splittable[1]
    mask = torch.zeros(1, program.graph.nodes[source].size, dtype=torch.bool)
    mask[0, 7] = True
    assert not patchwork(program, source, mask) and not program.patches
    assert patchwork(program, source, ~mask)
    assert not patchwork(program, source, torch.zeros_like(mask))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("always", [1], ids=["small"], indirect=True)
def test_tiles_are_looked_for_when_whole_passes_have_taken_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("generated")
    program = prepare(graph, torch.float64)
    source = program.splittable[-1]
    whole = torch.ones(1, graph.nodes[source].size, dtype=torch.bool)
    dear = 2 * int(whole.sum()) * fields.row_price(graph, source)
    monkeypatch.setattr(fields, "FOLLOWED", 1.0)
    monkeypatch.setattr(fields, "FOLLOWED", 2.5 * dear / fields.looking_price(graph, source))
    assert [bool(patchwork(program, source, whole)) for _ in range(4)] == [False, False, True, True]


def test_fewer_undecided_elements_are_bounded_in_larger_tiles_and_about_as_many_in_the_same() -> None:
    b = Images(1, 3, 40, 40)
    z = b.relu(b.conv(0, 8, 3, 1, (1, 1)))
    b.relu(b.conv(z, 8, 3, 1, (1, 1)))
    program, precise = (prepare(b.graph(), dtype) for dtype in (torch.float32, torch.float64))
    source = program.splittable[1]
    count = lambda patches: sum(len(patch.positions) for patch in patches)  # noqa: E731
    many, _ = lone_patches(program, precise, source, 0.5)
    assert lone_patches(program, precise, source, 0.2)[0] is many
    few, same = lone_patches(program, precise, source, 0.01)
    assert 1 < count(few) < count(many)
    for mine, others in zip(few, same, strict=True):
        assert torch.equal(mine.positions, others.positions) and others.program.dtype is torch.float64
    other = prepare(b.graph(), torch.float32)  # shares the precise one, which has tiles for another share
    wide, same = lone_patches(other, precise, source, 0.5)
    assert [patch.positions.shape for patch in wide] == [patch.positions.shape for patch in same]
    assert count(wide) == count(many)


def test_tiles_take_little_memory() -> None:
    """Rows of one pass are few enough for the budget, bounds of their tiles included."""
    b = Images(1, 3, 40, 40)
    z = b.relu(b.conv(0, 8, 3, 1, (1, 1)))
    b.relu(b.conv(z, 8, 3, 1, (1, 1)))
    program = prepare(b.graph(), torch.float32)
    source = program.splittable[1]
    mask = torch.ones(1, program.graph.nodes[source].size, dtype=torch.bool)
    for patch, _ in patchwork(program, source, mask):
        for memory in (1 << 16, 1 << 20, 1 << 30):
            rows = engine._patch_rows(program, patch, Effort(memory))
            widest = max(node.size for node in patch.program.graph.nodes)
            assert rows == 1 or 4 * rows * (2 * widest + patch.program.graph.size) <= memory
