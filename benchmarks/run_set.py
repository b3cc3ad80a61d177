#!/usr/bin/env python3
"""Run the instances of a benchmark folder, each in a process of its own, and write the competition's result table.

DIR holds families, each a folder with an instances.csv of rows `onnx,vnnlib,timeout` (or is one such folder itself).
OUT.csv gets one row an instance: category,onnx,vnnlib,prepare_time,result,run_time. Rows already there are not run
again, so an interrupted run goes on where it stopped. OUT.d keeps for each instance the record (.json), the answer
with its witness (.out) and what was said on the way (.log).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("sat", "unsat", "unknown", "timeout")
KILL_GRACE = 3.0


@dataclass(frozen=True)
class Instance:
    folder: Path
    category: str
    onnx: str
    vnnlib: str
    timeout: float

    @property
    def key(self) -> tuple[str, str, str]:
        return self.category, self.onnx, self.vnnlib

    @property
    def stem(self) -> str:
        """A file name of its own in OUT.d."""
        names = [self.category, *(re.sub(r"\.(onnx|vnnlib)(\.gz)?$", "", path) for path in (self.onnx, self.vnnlib))]
        return re.sub(r"[^\w.-]+", "_", "__".join(name.removeprefix("onnx/").removeprefix("vnnlib/") for name in names))


@dataclass(frozen=True)
class Outcome:
    result: str
    seconds: float
    peak_bytes: int
    reason: str


def read_instances(folder: Path) -> list[Instance]:
    lists = (
        [folder / "instances.csv"] if (folder / "instances.csv").exists() else sorted(folder.glob("*/instances.csv"))
    )
    if not lists:
        sys.exit(f"no instances.csv in '{folder}' or in a folder of it")
    return [
        Instance(path.parent, path.parent.resolve().name, row[0].strip(), row[1].strip(), float(row[2]))
        for path in lists
        for row in csv.reader(path.read_text().splitlines())
        if len(row) >= 3
    ]


def already_done(table: Path) -> set[tuple[str, str, str]]:
    """Instances in the table. A last line that an interruption tore is cut off."""
    if not table.exists():
        return set()
    whole = table.read_bytes()
    os.truncate(table, whole.rfind(b"\n") + 1)
    rows = csv.reader(whole[: whole.rfind(b"\n") + 1].decode().splitlines())
    return {(row[0], row[1], row[2]) for row in rows if len(row) == 6}


def run(instance: Instance, limit: float, kept: Path, options: list[str]) -> Outcome:
    """Run one instance; it is told a little less than `limit`, and an answer after `limit` does not count."""
    record, out, log = (kept / f"{instance.stem}.{suffix}" for suffix in ("json", "out", "log"))
    record.unlink(missing_ok=True)
    files = [str((instance.folder / name).resolve()) for name in (instance.onnx, instance.vnnlib)]
    command = [sys.executable, "-m", "verifier", "verify", *files]
    command += ["--timeout", f"{max(0.98 * limit - 1, limit / 2):.3f}", "--json", str(record.resolve()), *options]
    started = time.monotonic()
    with out.open("w") as stdout, log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr, start_new_session=True)
        late = threading.Timer(limit + KILL_GRACE, kill_group, [process.pid])
        late.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            late.cancel()
            kill_group(process.pid)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    result, reason = judge(process.returncode, seconds, limit, (out, log, record))
    if not record.exists():
        record.write_text(json.dumps({"verdict": result, "reason": reason}) + "\n")
    return Outcome(result, seconds, usage.ru_maxrss * 1024, reason)


def judge(code: int, seconds: float, limit: float, files: tuple[Path, Path, Path]) -> tuple[str, str]:
    """Result word and reason, from the exit code and what was written to `files`: answer, log, record."""
    out, log, record = files
    lines = log.read_text(errors="replace").strip().splitlines()
    if seconds > limit:
        return "timeout", f"still running after {limit:g} s" if code < 0 else "the answer came too late"
    if code != 0:
        return "error", lines[-1] if lines else f"exit code {code}"
    word = out.read_text().partition("\n")[0]
    if word not in WORDS:
        return "error", f"the answer begins with '{word[:40]}'"
    return word, str(json.loads(record.read_text())["reason"])


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Options after these go to `verifier verify`, for example --device cpu.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("table", type=Path, metavar="OUT.csv")
    parser.add_argument("--cap", type=float, default=float("inf"), metavar="SECONDS", help="most seconds an instance")
    parser.add_argument("--family", action="append", metavar="NAME", help="only this family; may be repeated")
    parser.add_argument("--match", default="", metavar="TEXT", help="only instances with TEXT in a file name")
    return parser.parse_known_args()


def main() -> int:
    arguments, options = parse()
    chosen = [
        instance
        for instance in read_instances(arguments.folder)
        if (not arguments.family or instance.category in arguments.family)
        and arguments.match in f"{instance.onnx} {instance.vnnlib}"
    ]
    done = already_done(arguments.table)
    kept = arguments.table.with_suffix(".d")
    kept.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with arguments.table.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, instance in enumerate(chosen, start=1):
            if instance.key in done:
                continue
            outcome = run(instance, min(instance.timeout, arguments.cap), kept, options)
            writer.writerow([*instance.key, "0.0", outcome.result, f"{outcome.seconds:.3f}"])
            file.flush()
            counts[outcome.result] += 1
            print(
                f"{number}/{len(chosen)} {instance.stem}  {outcome.result}  {outcome.seconds:.2f} s  "
                f"{outcome.peak_bytes / 2**20:.0f} MiB  {outcome.reason}",
                flush=True,
            )
    summary = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    print(f"{len(chosen)} chosen, {sum(counts.values())} run" + (f": {summary}" if summary else ""))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
