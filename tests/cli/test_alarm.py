"""Work that does not look at the clock is ended. The tests send the signal themselves: none waits for a timer."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.cli.fakes import UNSAT
from verifier.cli import run
from verifier.cli.alarm import LONGEST, TimeIsUp, alarm


def ring(*arguments: object) -> None:
    signal.raise_signal(signal.SIGALRM)


def test_the_alarm_ends_the_block_past_everything_that_handles_faults():
    with pytest.raises(TimeIsUp), alarm(100.0):
        try:
            ring()
        except Exception:
            pytest.fail("taken for a fault")


@pytest.mark.parametrize(("seconds", "expected"), [(100.0, 100.0), (LONGEST, 0.0), (float("inf"), 0.0)])
def test_the_timer_is_set_in_the_block_alone(seconds, expected):
    before = signal.getsignal(signal.SIGALRM)
    with alarm(seconds):
        assert 0.9 * expected <= signal.getitimer(signal.ITIMER_REAL)[0] <= expected
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("where", ["verifier.frontend.vnnlib.read_property", "verifier.pipeline.verify"])
def test_verification_that_is_interrupted_is_a_timeout(where, pretend, files, tmp_path, monkeypatch, capsys):
    pretend(UNSAT)
    module, _, name = where.rpartition(".")
    monkeypatch.setattr(sys.modules[module], name, ring)
    record = tmp_path / "r.json"
    assert run(["verify", *files, "--timeout", "1000", "--json", str(record), "--sat-exit-codes"]) == 0
    out, err = capsys.readouterr()
    assert out == "timeout\n" and "interrupted" in err
    assert json.loads(record.read_text())["verdict"] == "timeout"
