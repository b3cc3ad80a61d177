"""`verifier optimise`: how small and how large can a linear form of the outputs become?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from verifier.cli.arguments import Size, device_option, model_file, property_file, writable
from verifier.cli.live import Display
from verifier.cli.output import answer, say, write
from verifier.report.record import Request, build_extrema_record, record_text
from verifier.settings import Gap, Settings

if TYPE_CHECKING:
    from verifier.core.extremum import Extremum

LEAST = 1e-3  # seconds that each end is given, however little is left
SENSES = {"min": ("min",), "max": ("max",), "both": ("min", "max")}


@click.command("optimise", short_help="Find the minimum and maximum of outputs over a property's input boxes.")
@click.argument("model", metavar="MODEL")
@click.argument("question", metavar="PROPERTY")
@click.option("--output", required=True, metavar="FORM", help="What is optimised, for example 'Y_0 - 2*Y_1/3 + 0.5'.")
@click.option("--sense", type=click.Choice(list(SENSES)), default="both", show_default=True, help="Which end.")
@click.option(
    "--gap", type=float, default=1e-6, show_default=True, metavar="SIZE", help="Width of the intervals to reach."
)
@click.option(
    "--relative-gap",
    type=float,
    default=1e-4,
    show_default=True,
    metavar="SHARE",
    help="Likewise, of the value; the larger one counts.",
)
@click.option(
    "--timeout", type=float, default=300.0, show_default=True, metavar="SECONDS", help="For everything together."
)
@device_option
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--memory", type=Size(), default="4GiB", show_default=True, help="For bounds and open subproblems.")
@click.option("--json", "record_path", metavar="FILE", help="Write a record of the run.")
@click.option("--quiet", is_flag=True, help="Only the answer, errors and loud warnings.")
def optimise_command(model: str, question: str, output: str, sense: str, **options: Any) -> int:
    """Enclose the minimum and the maximum of a linear form of the outputs over the input boxes of a property.

    Only the ranges of the property's inputs count: its other constraints play no part. For each end the answer is an
    interval that contains it for certain, and an input that attains it up to the gap. When time is up, or on Ctrl-C,
    the interval proved so far is the answer.
    """
    started, stamp = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    gap = Gap(options["gap"], options["relative_gap"])
    settings = Settings(gap=gap, **{name: options[name] for name in ("timeout", "device", "seed", "memory")})
    record_path = writable(options["record_path"])
    request = Request(model_file(model), property_file(question), settings, stamp)
    display = Display(options["quiet"])
    try:
        with display:
            _optimise(request, output, SENSES[sense], display)
    finally:  # interrupted or not, what is proved so far is worth having
        for extremum in display.enclosed.values():
            answer(_text(extremum, output))
        if record_path is not None and display.enclosed:
            elapsed = time.monotonic() - started
            record = build_extrema_record(request, output, display.enclosed.values(), display.stages, elapsed)
            write(record_path, record_text(record))
    if not options["quiet"]:
        for extremum in display.enclosed.values():
            say(f"{extremum.name}: {extremum.reason}; onnxruntime computes {extremum.value!r} there")
        say(display.times(time.monotonic() - started))
    return 0


def _optimise(request: Request, output: str, senses: Sequence[str], display: Display) -> None:
    """Load both files and ask for each end, which has its share of the time left. The display keeps the answers."""
    from verifier.core.events import StageFinished
    from verifier.frontend.vnnlib import read_property

    began = time.monotonic()
    query = read_property(request.property)
    from verifier.frontend.network import load

    network = load(request.model)
    from verifier.optimisation import optimise

    display(StageFinished("load", time.monotonic() - began))
    for number, sense in enumerate(senses):
        left = request.settings.timeout - (time.monotonic() - began)
        optimise(network, query, output, sense, request.settings, display, max(left, LEAST) / (len(senses) - number))


def _text(extremum: Extremum, output: str) -> str:
    """The interval, and the input that attains it with the outputs there."""
    from verifier.report.witness import format_point

    interval = f"between {extremum.lower!r} and {extremum.upper!r} (gap {extremum.gap:.3g})"
    return f"{extremum.name} of {output}: {interval}, attained at\n{format_point(extremum.x, extremum.y)}"
