"""`verifier verify`: is there a violation of this property?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verifier.cli.alarm import TimeIsUp, alarm
from verifier.cli.arguments import Size, device_option, model_file, property_file, writable
from verifier.cli.live import Display
from verifier.cli.output import answer, say, write
from verifier.errors import UsageError
from verifier.report.record import Request, build_record, record_text
from verifier.settings import METHODS, SOLVERS, TRUSTS, Settings

if TYPE_CHECKING:
    from verifier.core.verdict import Verdict

ASKED = ("timeout", "device", "seed", "memory", "method", "solver", "trust")  # options that are settings
SAT_EXIT_CODES = {"sat": 10, "unsat": 20}
GRACE = 0.1  # seconds after the timeout, for answers that are nearly there; then everything is interrupted


@click.command("verify", short_help="Decide a property of a network.", options_metavar="[OPTIONS]")
@click.argument("paths", nargs=-1, required=True, metavar="MODEL PROPERTY")
@click.option(
    "--network", "networks", multiple=True, metavar="NAME=MODEL", help="The network; PROPERTY then stands alone."
)
@click.option(
    "--timeout", type=float, default=300.0, show_default=True, metavar="SECONDS", help="For everything together."
)
@device_option
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="auto",
    show_default=True,
    help="auto: whatever serves. bab: bounds and splits. milp, smt: a solver, for what the first bounds leave open.",
)
@click.option(
    "--solver",
    type=click.Choice(SOLVERS),
    help="Of milp: highs (the default), gurobi, cbc. Of smt: z3.",
)
@click.option(
    "--trust",
    type=click.Choice(TRUSTS),
    default="checked",
    show_default=True,
    help="checked: what a solver only says is proved again, or unknown. solver: its word will do, and is marked.",
)
@click.option("--memory", type=Size(), default="4GiB", show_default=True, help="For bounds and open subproblems.")
@click.option("--json", "record_path", metavar="FILE", help="Write a record of the run.")
@click.option("--witness", "witness_path", metavar="FILE", help="Write the counterexample to a file too.")
@click.option("--sat-exit-codes", is_flag=True, help="Exit with 10 for sat, 20 for unsat.")
@click.option("--quiet", is_flag=True, help="Only the answer, errors and loud warnings.")
def verify_command(paths: tuple[str, ...], networks: tuple[str, ...], **options: Any) -> int:
    """Decide whether a network can violate a property.

    The property (VNN-LIB) describes a violation. The first line of the output is sat (there is one, and it follows),
    unsat (there is none), unknown or timeout. All else goes to stderr.

    Also in the form of VNN-LIB 2.0: verify PROPERTY --network NAME=MODEL --timeout SECONDS
    """
    started, stamp = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    model, question = _split_paths(paths, networks)
    settings = Settings(**{name: options[name] for name in ASKED})
    record_path, witness_path = writable(options["record_path"]), writable(options["witness_path"])
    model_path, property_path = model_file(model), property_file(question)

    with Display(options["quiet"]) as display:
        verdict = _in_time(model_path, property_path, settings, display)
    elapsed = time.monotonic() - started
    witness = _witness_text(verdict)
    try:
        answer("\n".join(filter(None, (verdict.status.value, witness))))
    finally:
        if record_path is not None:
            request = Request(model_path, property_path, settings, stamp)
            write(record_path, record_text(build_record(request, verdict, display.stages, elapsed)))
        if witness_path is not None and witness:
            write(witness_path, witness + "\n")
    _summarise(verdict, display, elapsed, options["quiet"])
    return SAT_EXIT_CODES.get(verdict.status.value, 0) if options["sat_exit_codes"] else 0


def _split_paths(paths: Sequence[str], networks: Sequence[str]) -> tuple[str, str]:
    """Model and property from either form of the call."""
    if networks:
        if len(paths) != 1:
            raise UsageError(f"with --network exactly one property is needed, not {len(paths)} files")
        if len(networks) != 1:
            raise UsageError(f"exactly one network is supported, not {len(networks)}; give --network once")
        name, separator, model = networks[0].partition("=")
        if not (name and separator and model):
            raise UsageError(f"--network takes NAME=MODEL, not '{networks[0]}'")
        return model, paths[0]
    if len(paths) != 2:
        raise UsageError(f"MODEL and PROPERTY are needed, in this order, not {len(paths)} file(s); see verify --help")
    if ".vnnlib" in Path(paths[0]).suffixes and ".onnx" in Path(paths[1]).suffixes:
        raise UsageError("the network comes first, then the property: verify MODEL PROPERTY")
    return paths[0], paths[1]


def _in_time(model: Path, question: Path, settings: Settings, display: Display) -> Verdict:
    """What is not decided when time is up is a timeout, wherever it stands."""
    try:
        with alarm(settings.timeout + GRACE):
            return _decide(model, question, settings, display)
    except TimeIsUp:
        from verifier.core.verdict import Status, Verdict

        return Verdict(Status.TIMEOUT, f"interrupted {GRACE:g} s after time was up")


def _decide(model: Path, question: Path, settings: Settings, display: Display) -> Verdict:
    """Load both files and ask. What loading took is taken off the timeout: it is for everything together."""
    started = time.monotonic()
    from verifier.core.events import StageFinished
    from verifier.core.verdict import Status, Verdict
    from verifier.frontend.vnnlib import read_property

    query = read_property(question)
    from verifier.frontend.network import load

    network = load(model)
    from verifier.pipeline import verify

    spent = time.monotonic() - started
    display(StageFinished("load", spent))
    if spent >= settings.timeout:
        return Verdict(Status.TIMEOUT, f"loading alone took {spent:.1f} s", warnings=query.warnings)
    return verify(network, query, replace(settings, timeout=settings.timeout - spent), display)


def _witness_text(verdict: Verdict) -> str:
    from verifier.report.witness import format_witness

    return "" if verdict.witness is None else format_witness(verdict.witness).rstrip("\n")


def _summarise(verdict: Verdict, display: Display, elapsed: float, quiet: bool) -> None:
    for warning in verdict.warnings:
        display.notice(warning)
    if quiet:
        return
    say(str(verdict))
    if verdict.status.value in ("unknown", "timeout") and verdict.proved is not None:
        bound = "" if verdict.bound is None else f", worst open bound {verdict.bound:.6g}"
        say(f"proved {100 * verdict.proved:.3f} % of the input set{bound}")
    say(display.times(elapsed))
