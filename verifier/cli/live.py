"""The observer of the command line: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from verifier.cli.output import say
from verifier.core.events import Enclosed, Event, Notice, Progress, StageFinished

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from verifier.core.extremum import Extremum

PLAIN_INTERVAL = 10.0


class Display:
    """Listens to a run and remembers its stage times in `stages`, and what is proved of each extremum in `enclosed`, by
    sense. All it shows goes to stderr.

    `quiet` hides everything but loud notices.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.stages: dict[str, float] = {}
        self.enclosed: dict[str, Extremum] = {}
        self._quiet = quiet
        self._started = self._last_line = time.monotonic()
        self._at: Progress | Enclosed | None = None
        self._shown: set[str] = set()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._live = _start_live(self)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        match event:
            case StageFinished(stage, seconds):
                self.stages[stage] = self.stages.get(stage, 0.0) + seconds
            case Notice(text, loud):
                self.notice(text, loud)
            case Progress():
                self._at = event
                self._plain_line()
            case Enclosed(_, extremum):
                self._at = event
                self.enclosed[extremum.sense] = extremum
                self._plain_line()

    def notice(self, text: str, loud: bool = False) -> None:
        """Show `text`, once however often it is said."""
        if text in self._shown or (self._quiet and not loud):
            return
        self._shown.add(text)
        line = f"WARNING: {text}" if loud else f"warning: {text}"
        if self._live is not None:
            self._live.console.print(line, style="bold yellow" if loud else None, markup=False, highlight=False)
        else:
            say(f"\033[1;33m{line}\033[0m" if loud and sys.stderr.isatty() else line)

    def line(self) -> str:
        """Where the run stands, in one line."""
        elapsed = time.monotonic() - self._started
        match self._at:
            case Progress() as at:
                state = f"{at.open:,} open  {at.bounded:,} bounded  {100 * at.proved:.2f} % proved"
                return f"{elapsed:7.1f} s  {state}  worst bound {at.bound:.4g}"
            case Enclosed(_, found):
                return f"{elapsed:7.1f} s  {found.statistics['open']:,} open  {found}"
        return f"{elapsed:7.1f} s  " + ("done: " + ", ".join(self.stages) if self.stages else "starting")

    def times(self, elapsed: float) -> str:
        """What the stages took, of `elapsed` seconds."""
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.stages.items())
        return f"{elapsed:.2f} s in all" + (f" ({stages})" if stages else "")

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(self.line(), no_wrap=True, overflow="ellipsis")

    def _plain_line(self) -> None:
        now = time.monotonic()
        if self._live is None and not self._quiet and now - self._last_line >= PLAIN_INTERVAL:
            self._last_line = now
            say(self.line())


def _start_live(display: Display) -> Live:
    """Redrawn by a thread of its own, so that the clock runs while a long batch does."""
    from rich.console import Console
    from rich.live import Live

    live = Live(display, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    live.start()
    return live
