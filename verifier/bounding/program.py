"""A graph made ready for bounding: cast to a precision and device, with what every pass needs worked out once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.bounding.contraction import Contraction, contraction_at
from verifier.core.graph import Constant, Graph, Input, Node
from verifier.core.interval import Interval
from verifier.core.memory import keep_freed_memory
from verifier.core.operator import Affine, Elementwise
from verifier.errors import UnsupportedError

if TYPE_CHECKING:
    from verifier.bounding.crop import Patch


@dataclass(frozen=True, eq=False)
class Program:
    """`graph` in the precision and on the device in which bounds are computed.

    `read`: by nonlinear node, a mask `[1, *shape]` of the elements that the question depends on; all where missing."""

    graph: Graph
    dtype: torch.dtype
    device: torch.device
    read: dict[int, Tensor] = field(default_factory=dict, kw_only=True)

    @property
    def number_size(self) -> int:
        """Bytes of one number."""
        return torch.finfo(self.dtype).bits // 8

    @cached_property
    def absolute(self) -> tuple[Affine | None, ...]:
        """|L| of each affine node, by position."""
        return tuple(node.op.absolute() if isinstance(node.op, Affine) else None for node in self.graph.nodes)

    @cached_property
    def bent(self) -> tuple[bool, ...]:
        """For each node, whether a nonlinear operator lies between the input and it (itself included)."""
        bent: list[bool] = []
        for node in self.graph.nodes:
            bent.append(isinstance(node.op, Elementwise) or any(bent[source] for source in node.inputs))
        return tuple(bent)

    @cached_property
    def mixings(self) -> tuple[int, ...]:
        """For each node, how many operators that mix coordinates lie on a path from the input to it, at most."""
        counts: list[int] = []
        for node in self.graph.nodes:
            own = int(isinstance(node.op, Affine) and node.op.fan_in > 1)
            counts.append(own + max((counts[source] for source in node.inputs), default=0))
        return tuple(counts)

    @cached_property
    def origins(self) -> tuple[int, ...]:
        """For each node, the one whose numbers it moves unchanged (copies, columns, other shapes), else itself."""
        found: list[int] = []
        for position, node in enumerate(self.graph.nodes):
            moves = isinstance(node.op, Affine) and len(node.inputs) == 1 and node.op.fan_in == 0
            moves = moves and node.op.offset() is None  # type: ignore[attr-defined]
            found.append(found[node.inputs[0]] if moves else position)
        return tuple(found)

    @cached_property
    def copies(self) -> dict[int, tuple[int, ...]]:
        """For each node that is its own origin, the nodes to which its numbers are moved, in order."""
        found: dict[int, tuple[int, ...]] = {}
        for position, origin in enumerate(self.origins):
            found[origin] = (*found.get(origin, ()), *((position,) if position != origin else ()))
        return found

    @cached_property
    def contractions(self) -> dict[int, Contraction]:
        """By node, the products of variable matrices that backward passes for bounds of neurons cross in one step."""
        found = {position: contraction_at(self.graph, position) for position in range(len(self.graph.nodes))}
        return {position: contraction for position, contraction in found.items() if contraction is not None}

    @cached_property
    def inside(self) -> frozenset[int]:
        """The nodes of these products that nothing else reads: passes that cross them in one step do not see them."""
        products = {contraction.product for contraction in self.contractions.values()}
        products = {product for product in products if len(self.graph.consumers[product]) == 1}
        copies = {copy for product in products for copy in self.graph.nodes[product].inputs}
        return frozenset(products | {copy for copy in copies if products.issuperset(self.graph.consumers[copy])})

    def moves_to(self, position: int) -> tuple[int, ...]:
        """The nodes on the way from a node's origin to it: not the origin, but itself unless it is that; in order."""
        path: list[int] = []
        while position != self.origins[position]:
            path.append(position)
            position = self.graph.nodes[position].inputs[0]
        return tuple(reversed(path))

    def places_at(self, position: int, origin: int) -> Tensor:
        """The place among the elements of its origin, or of a node on the way from there, counted from 1, that each
        element of a node has its number from, `[size]`; 0 if it is a constant 0."""
        first = self.graph.nodes[origin]
        places = torch.arange(1, 1 + first.size, device=self.device).reshape(1, *first.shape)
        for moved in self.moves_to(position):
            op = self.graph.nodes[moved].op
            assert isinstance(op, Affine)
            places = op.linear(places) if moved > origin else places
        return places.flatten()

    @cached_property
    def splittable(self) -> tuple[int, ...]:
        """Positions of the arguments of nonlinear nodes, in order: the pre-activations, whose bounds matter most."""
        sources = [s for node in self.graph.nodes if isinstance(node.op, Elementwise) for s in node.inputs]
        return tuple(dict.fromkeys(sources))

    def unstable(self, position: int, bounds: dict[int, Interval]) -> Tensor:
        """Where tighter bounds of its arguments could still tighten what a nonlinear node sends to the question: a mask
        `[batch, *shape]`."""
        node = self.graph.nodes[position]
        assert isinstance(node.op, Elementwise)
        mask = node.op.unstable(*(bounds[source] for source in node.inputs))
        return mask & self.read[position] if position in self.read else mask

    def asked(self, rows: Tensor) -> Program:
        """For questions about these rows `[n, outputs]` of the output alone. A property of an image's parts, say, does
        not see most neurons of the last layers, whose bounds would be the dearest ones."""
        output = self.graph.nodes[self.graph.output]
        pending = {self.graph.output: (rows != 0).any(0).to(self.dtype).reshape(1, *output.shape)}
        read = {}
        for position in range(self.graph.output, 0, -1):
            node, mask = self.graph.nodes[position], pending.pop(position, None)
            if isinstance(node.op, Constant) or (mask is None and not isinstance(node.op, Elementwise)):
                continue
            if mask is None:
                mask = torch.zeros((1, *node.shape), dtype=self.dtype, device=self.device)
            if isinstance(node.op, Elementwise):
                read[position] = mask > 0
                sent: tuple[Tensor, ...] = (mask,) * len(node.inputs)
            else:
                absolute = self.absolute[position]
                assert absolute is not None
                sent = tuple((~(part <= 0)).to(self.dtype) for part in absolute.adjoint(mask))  # NaN: 0 by infinity
            for source, part in zip(node.inputs, sent, strict=True):
                pending[source] = torch.maximum(pending[source], part) if source in pending else part
        return replace(self, read={position: mask for position, mask in read.items() if not bool(mask.all())})

    def up_to(self, position: int) -> Program:
        """The network that ends at a node."""
        nodes = self.graph.nodes[: position + 1]
        return Part(Graph(nodes, position), self.dtype, self.device, self.absolute[: position + 1], read=self.read)

    @cached_property
    def patches(self) -> dict[tuple[int, bool], tuple[float, tuple[Patch, ...]]]:
        """By node, and by whether one at a time, the share of undecided elements that was expected, and the tiles in
        which they are bounded: filled in by `crop.patches_of` and `crop.lone_patches` on first use."""
        return {}

    @cached_property
    def untiled(self) -> dict[int, float]:
        """By node, the operations of whole passes for it before tiles were looked for, counted by `crop`."""
        return {}

    def operations_to(self, position: int) -> float:
        """Floating-point operations to take one row from a node back to the input."""
        nodes = self.graph.nodes[1 : position + 1]
        return float(sum(2 * node.size * max(1, getattr(node.op, "fan_in", 1)) for node in nodes))


@dataclass(frozen=True, eq=False)
class Part(Program):
    """A program whose |L| are those of a larger one, shared or restricted: it has no copies of its own."""

    restricted: tuple[Affine | None, ...]

    @cached_property
    def absolute(self) -> tuple[Affine | None, ...]:
        return self.restricted


def prepare(graph: Graph, dtype: torch.dtype, device: torch.device | str = "cpu") -> Program:
    """Refuses a graph with an operator that has no bounds, naming each such operator with its node and shape."""
    missing = unbounded_nodes(graph)
    if missing:
        names = "; ".join(str(node) for node in missing[:5]) + ("; ..." if len(missing) > 5 else "")
        raise UnsupportedError(f"no bounds for {len(missing)} operator(s) of this network: {names}")
    device = torch.device(device)
    _honest_arithmetic()
    keep_freed_memory()
    return Program(graph.to(dtype, device), dtype, device)


def _honest_arithmetic() -> None:
    """Only sums of products in full precision obey the error bounds of `core.rounding`: no TF32, and neither cuDNN nor
    NNPACK, which may choose Winograd or Fourier transforms for convolutions. (oneDNN is asked for direct ones.)"""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.enabled = False
    torch.backends.nnpack.set_flags(False)


def unbounded_nodes(graph: Graph) -> list[Node]:
    """The nodes that can be evaluated but not bounded."""
    known = (Affine, Elementwise, Input, Constant)
    return [node for node in graph.nodes if not isinstance(node.op, known)]
