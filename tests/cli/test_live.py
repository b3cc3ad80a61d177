"""The observer: plain lines at intervals, sums of stages, warnings once."""

from __future__ import annotations

import pytest

from verifier.cli import live
from verifier.core.events import Notice, Progress, StageFinished


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by the test."""
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def test_a_plain_line_every_ten_seconds(clock, capsys):
    with live.Display() as display:
        for seconds in range(0, 35, 5):
            clock[0] = seconds
            display(Progress(seconds, 1234, 56789, 0.4321, -0.5))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["10.0", "20.0", "30.0"]
    assert lines[0].split("  ")[-4:] == ["1,234 open", "56,789 bounded", "43.21 % proved", "worst bound -0.5"]


def test_quiet_shows_no_progress(clock, capsys):
    with live.Display(quiet=True) as display:
        clock[0] = 100
        display(Progress(100, 1, 1, 0.0, 0.0))
        display(Notice("by the way"))
        display(Notice("mind this", loud=True))
    assert capsys.readouterr().err == "WARNING: mind this\n"


def test_stages_add_up(clock):
    display = live.Display()
    for event in (StageFinished("attack", 1.0), StageFinished("bound", 2.0), StageFinished("attack", 0.5)):
        display(event)
    assert display.stages == {"attack": 1.5, "bound": 2.0}
    assert "done: attack, bound" in display.line()


def test_a_warning_is_said_once(capsys):
    display = live.Display()
    for _ in range(2):
        display(Notice("twice"))
    assert capsys.readouterr().err == "warning: twice\n"
