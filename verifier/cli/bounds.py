"""`verifier bounds`: ranges that the outputs cannot leave while the input stays in a property's boxes."""

from __future__ import annotations

import click

from verifier.cli.arguments import device_option, model_file, property_file
from verifier.cli.output import answer
from verifier.settings import Settings

MOST_BOXES, MOST_OUTPUTS = 5, 50


@click.command("bounds", short_help="Bound the outputs over a property's input boxes.")
@click.argument("model", metavar="MODEL")
@click.argument("question", metavar="PROPERTY")
@click.option(
    "--method",
    type=click.Choice(["interval", "forward", "crown"]),
    default="crown",
    show_default=True,
    help="From fast to tight.",
)
@device_option
def bounds_command(model: str, question: str, method: str, device: str) -> int:
    """Print sound bounds of every output for each input box of a property (its output constraints play no part)."""
    settings = Settings(device=device)
    model_path, property_path = model_file(model), property_file(question)
    from verifier.frontend.vnnlib import read_property

    query = read_property(property_path)
    from verifier.frontend.network import load
    from verifier.pipeline import bounds
    from verifier.report.table import format_table

    found = bounds(load(model_path), query, method, settings)
    if not found:
        answer("The property has no input box: its constraints contradict each other.")
    for number, (lower, upper) in enumerate(found[:MOST_BOXES], start=1):
        ends = list(zip(lower.ravel().tolist(), upper.ravel().tolist(), strict=True))
        rows = [(f"Y_{index}", repr(low), repr(high)) for index, (low, high) in enumerate(ends[:MOST_OUTPUTS])]
        answer(f"box {number} of {len(found)}, {method}")
        answer(format_table(("output", "lower", "upper"), rows, right=(1, 2)))
        if len(ends) > MOST_OUTPUTS:
            answer(f"... the first {MOST_OUTPUTS} of {len(ends)} outputs; verifier.bounds gives all")
    if len(found) > MOST_BOXES:
        answer(f"... the first {MOST_BOXES} of {len(found)} boxes; verifier.bounds gives all")
    return 0
