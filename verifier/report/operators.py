"""Which operators are read, and what each method does with them: for the terminal and, generated, for the README.

    python -m verifier.report.operators README.md

writes the table into the file, between the two comments that mark its place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from verifier.frontend.onnx_ops import NEWEST, OLDEST, registered
from verifier.ops import OPERATORS
from verifier.ops.support import LEGEND, METHODS, support
from verifier.report.table import format_table

WIDTH = 120
BEGIN, END = "<!-- operators: begin, written by `python -m verifier.report.operators README.md` -->", "<!-- end -->"


def onnx_operators() -> str:
    """A sentence with the names of all ONNX operators that are read."""
    names = sorted({f"{domain}:{name}" if domain else name for domain, name, _ in registered()})
    return fill(f"ONNX operators, opsets {OLDEST} to {NEWEST}: {', '.join(names)}.", WIDTH)


def operators_text() -> str:
    """For the terminal: a row for each canonical operator."""
    rows = [(kind.__name__, *support(kind).values()) for kind in OPERATORS]
    return f"{onnx_operators()}\n\n{format_table(('operator', *METHODS), rows)}\n\n{LEGEND}"


def operators_markdown() -> str:
    """For the README: operators that all methods treat alike share a row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for kind in OPERATORS:
        groups.setdefault(tuple(support(kind).values()), []).append(kind.__name__)
    rows = [(", ".join(names), *answers) for answers, names in groups.items()]
    lines = [("they become", *METHODS), ("---",) * (1 + len(METHODS)), *rows]
    return "\n".join([onnx_operators(), "", *(f"| {' | '.join(line)} |" for line in lines), "", f"({LEGEND}.)"])


def with_table(text: str) -> str:
    """`text` with what is between the marks replaced by the table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{operators_markdown()}\n{END}{after}"


def main(arguments: Sequence[str]) -> None:
    (name,) = arguments
    path = Path(name)
    path.write_text(with_table(path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
