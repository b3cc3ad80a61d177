"""The command line: one file per command, and here the way from errors to exit codes.

    0  any answer (with --sat-exit-codes: 10 for sat, 20 for unsat)      2  the call is wrong
    3  a file cannot be used        4  a solver is missing or failed     70  internal error
    130  interrupted                                                    141  the reader of the output went away

Nothing heavy is imported before a command needs it: `--help` and `--version` do not wait for torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from verifier import __version__
from verifier.cli.bounds import bounds_command
from verifier.cli.info import info_command
from verifier.cli.optimise import optimise_command
from verifier.cli.output import say
from verifier.cli.verify import verify_command
from verifier.errors import VerifierError

# How long an OpenMP thread spins before it sleeps; read when torch is loaded. The default (300,000 rounds) makes a run
# ten times slower as soon as another process wants the same cores; 2,000 costs nothing when alone.
SPINS = "2000"

INTERNAL, INTERRUPTED, READER_GONE = 70, 130, 141


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="verifier", message="%(prog)s %(version)s")
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error (or set VERIFIER_DEBUG)."
)
def group() -> None:
    """Answer questions about neural networks with a proof or a counterexample."""


group.add_command(verify_command)
group.add_command(bounds_command)
group.add_command(info_command)
group.add_command(optimise_command)


def main() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; no exception leaves, and each error is one line on stderr."""
    try:
        with group.make_context("verifier", list(arguments)) as context:
            code = group.invoke(context)
        sys.stdout.flush()
        return code or 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        say("verifier: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _abandon_output()
    except VerifierError as error:
        return _report(error, str(error), error.exit_code, arguments)
    except Exception as error:
        return _report(error, f"internal error, please report: {type(error).__name__}: {error}", INTERNAL, arguments)


def _report(error: Exception, text: str, code: int, arguments: Sequence[str]) -> int:
    if "--debug" in arguments or os.environ.get("VERIFIER_DEBUG", "0") not in ("", "0"):
        say("".join(traceback.format_exception(error)).rstrip())
    hint = " (--debug before the command shows where)" if code == INTERNAL else ""
    say("verifier: " + " ".join(text.splitlines()) + hint)
    return code


def _abandon_output() -> int:
    """Let the interpreter's own flush at exit go nowhere, so that it does not complain about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE
