"""`verifier info`: what a network consists of, and what can be bounded of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from verifier.cli.arguments import model_file
from verifier.cli.output import answer

if TYPE_CHECKING:
    from verifier.core.graph import Graph, Node
    from verifier.core.operator import Op


@click.command("info", short_help="Show what a network consists of, or which operators there are.")
@click.argument("model", metavar="[MODEL]", required=False)
def info_command(model: str | None) -> int:
    """Show a network's input and output, its operators, and what each method can do with them. Without MODEL: all
    operators that can be read."""
    if model is None:
        from verifier.report.operators import operators_text

        answer(operators_text())
        return 0
    path = model_file(model)
    from verifier.frontend.network import load
    from verifier.ops.support import METHODS
    from verifier.report.table import format_table

    network = load(path)
    graph = network.graph
    nonlinear = sum(node.size for node in graph.nodes if _kind(node.op) in ("elementwise", "other"))
    facts = [
        ("file", f"{path}  (sha256 {network.sha256})"),
        ("input", f"{network.input_name}  {network.input_dtype}  {list(network.input_shape)}"),
        ("output", f"{network.output_name}  {list(graph.output_shape)}"),
        ("opset", str(network.opset)),
        ("parameters", f"{sum(_parameters(node.op) for node in graph.nodes):,}"),
        ("nonlinear neurons", f"{nonlinear:,}"),
    ]
    answer("\n".join(f"{name:18s} {value}" for name, value in facts))
    answer("\n" + format_table(("operator", "nodes", "values", "from ONNX", *METHODS), _operators(graph), right=(1, 2)))
    refused = sorted({str(node) for node in graph.nodes if _kind(node.op) == "other"})
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        answer(f"\nNo bounds, so violations can be found but nothing proved: {refused[0]}{more}")
    return 0


def _operators(graph: Graph) -> list[tuple[str, ...]]:
    """A row for each operator: name, nodes, values computed, where it came from, and what each method does with it."""
    from verifier.ops.support import support

    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if _kind(node.op) not in ("input", "constant"):
            groups.setdefault(node.op.name, []).append(node)
    return [
        (
            name,
            f"{len(nodes):,}",
            f"{sum(node.size for node in nodes):,}",
            ", ".join(sorted({node.origin for node in nodes if node.origin})),
            *support(type(nodes[0].op)).values(),
        )
        for name, nodes in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _kind(op: Op) -> str:
    from verifier.core.graph import Constant, Input
    from verifier.core.operator import Affine, Elementwise

    kinds = {"input": Input, "constant": Constant, "affine": Affine, "elementwise": Elementwise}
    return next((name for name, kind in kinds.items() if isinstance(op, kind)), "other")


def _parameters(op: Op) -> int:
    """Floating-point constants of an operator; a broadcast one counts as what is stored of it."""
    from torch import Tensor

    values = (getattr(op, field.name) for field in dataclasses.fields(op))  # type: ignore[arg-type]
    return sum(
        min(value.numel(), value.untyped_storage().nbytes() // value.element_size())
        for value in values
        if isinstance(value, Tensor) and value.is_floating_point()
    )
