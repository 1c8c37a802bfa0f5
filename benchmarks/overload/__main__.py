"""A collector that is offered far more than it can take: it refuses in time, stays small, and loses nothing.

    python -m benchmarks.overload

Data flow: clients in processes of their own -> one ordinary `recsys-data collect` -> event log -> every line counted.
Stage after stage the same collector meets its capacity, ten times as many clients, requests too large to be held at
once, no connection left to take, a log that is slow, and one that fails. Prints a row for each, with the largest
resident memory and how long normal service took to come back, and ends with 1 if a claim does not hold. Linux only.
"""

import argparse
import errno
import json
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.cases.collector import free_port, post
from benchmarks.faults.harness.processes import Child, kill_all
from benchmarks.faults.harness.state import State
from benchmarks.overload.clients import Tally, body_of, offer
from benchmarks.soak.report import print_table
from recsys_data.ingestion.streaming.collector.connections import HEAD_SECONDS
from recsys_data.ingestion.streaming.collector.server import MAX_CONNECTIONS
from recsys_data.ingestion.streaming.log.embedded.log import EmbeddedLog
from recsys_data.ingestion.streaming.log.embedded.writer import PartitionWriter

PROCESSES = 2
CLIENTS = 16
SLOW_SECONDS = 1.0
# The collector itself has about 70 MB, and what is held of requests is bounded; see docs/benchmarks.md.
MOST_MB = 400
NORMAL_SECONDS = 5.0
HEAD = (
    "stage", "clients", "events a request", "acknowledged events/s", "p50 s", "p99 s", "200", "429", "503",
    "no answer", "most MB", "normal after s",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """What is offered, and what the log does meanwhile: nothing special, `slow`, `fail`.

    `idle` connections are opened before and send nothing, until the collector closes them.
    """

    name: str
    clients: int
    events: int
    log: str = ""
    refused: tuple[str, ...] = ()
    idle: int = 0


STAGES = (
    Stage("capacity", CLIENTS, 100),
    Stage("ten times the clients", CLIENTS * 10, 100),
    Stage("and large requests", CLIENTS * 10, 2300, refused=("429",)),
    Stage("all connections taken by idle ones", CLIENTS * 10, 100, refused=("503",), idle=MAX_CONNECTIONS),
    Stage("a slow log", CLIENTS * 10, 2300, "slow", refused=("429",)),
    Stage("a log that fails", CLIENTS * 10, 100, "fail", refused=("503",)),
)


def main() -> int:
    """Go through the stages and judge."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="recsys-overload-"))
    state = State(folder / "one", random.Random(1), SEGMENT_BYTES=str(64 * 1024 * 1024))
    state.tight = False
    port = free_port()
    collector = state.command("collect", "--port", str(port), prepare=lambda: watch_log(state.folder / "log-does"))
    problems: list[str] = []
    whole = Tally()
    try:
        wait_for(port, collector)
        print_table(HEAD, [])
        for stage in STAGES:
            if options.only in stage.name:
                problems += run(stage, state, collector, port, options.seconds, whole)
        problems += stop(collector)
        problems += compare(state, whole)
    finally:
        kill_all()
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    if not problems:
        shutil.rmtree(folder)
    return 1 if problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each stage")
    parser.add_argument("--only", default="", help="stages whose name has this in it")
    return parser.parse_args()


def watch_log(control: Path) -> None:
    """In the collector: let appends be slow, or fail, while the file `control` says so."""
    append = PartitionWriter.append

    def watched(writer: PartitionWriter, data: bytes) -> object:
        does = control.read_text() if control.exists() else ""
        if does == "slow":
            time.sleep(SLOW_SECONDS)
        elif does == "fail":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(writer, data)

    PartitionWriter.append = watched  # type: ignore[method-assign,assignment]


def run(stage: Stage, state: State, collector: Child, port: int, seconds: float, whole: Tally) -> list[str]:
    """Offer what the stage says, and print its row; returns what is wrong."""
    control = state.folder / "log-does"
    control.write_text(stage.log)
    held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(stage.idle)]
    seconds += HEAD_SECONDS if held else 0
    tally, most, begun = Tally(), 0.0, time.monotonic()
    reports = [state.folder / f"report-{number}" for number in range(PROCESSES)]
    children = [
        state.child(lambda n=number: offer(port, names_of(stage, n), stage.events, seconds, reports[n]))
        for number in range(PROCESSES)
    ]
    while any(child.poll() is None for child in children) and collector.poll() is None:
        most = max(most, resident_mb(collector.pid))
        # Half of the stage is left for what comes after.
        if stage.log and time.monotonic() - begun > seconds / 2:
            control.write_text("")
        time.sleep(0.05)
    lasted = time.monotonic() - begun
    control.write_text("")
    for connection in held:
        connection.close()
    after = normal_after(port)
    for child, report in zip(children, reports, strict=True):
        child.wait()
        tally.add(json.loads(report.read_text()))
        report.unlink()
    whole.add(vars(tally))
    show(stage, tally, lasted, most, after)
    return verify(stage, tally, most, after, collector)


def show(stage: Stage, tally: Tally, lasted: float, most: float, after: float) -> None:
    p50, p99 = np.quantile(tally.seconds, [0.5, 0.99]) if tally.seconds else (float("nan"), float("nan"))
    unanswered = sum(count for answer, count in tally.answers.items() if not answer.isdecimal())
    rate = len(tally.acknowledged) * stage.events / lasted
    cells = (
        stage.name, f"{stage.clients:,}", f"{stage.events:,}", f"{rate:,.0f}",
        f"{p50:.2f}", f"{p99:.2f}", *(f"{tally.count(code):,}" for code in ("200", "429", "503")), f"{unanswered:,}",
        f"{most:.0f}", f"{after:.1f}",
    )  # fmt: skip
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def verify(stage: Stage, tally: Tally, most: float, after: float, collector: Child) -> list[str]:
    """What of the claims does not hold in a stage."""
    problems = []
    known = {"200", *stage.refused, "429", "503"}
    odd = {answer: count for answer, count in tally.answers.items() if answer not in known}
    if collector.poll() is not None:
        problems.append(f"the collector ended with {collector.code}: {collector.text()[-2000:]}")
    if odd:
        problems.append(f"answers were {odd}")
    if not tally.acknowledged:
        problems.append("nothing was acknowledged")
    problems += [f"nobody was answered {code}" for code in stage.refused if not tally.count(code)]
    if tally.without_retry_after:
        problems.append(f"{tally.without_retry_after} refusals do not say when to come again")
    if most > MOST_MB:
        problems.append(f"the collector took {most:.0f} MB, more than {MOST_MB}")
    if after > NORMAL_SECONDS:
        problems.append(f"normal service came back after {after:.1f} s")
    return [f"{stage.name}: {problem}" for problem in problems]


def names_of(stage: Stage, number: int) -> list[str]:
    """The names of the clients of one process; no two stages share any."""
    first = STAGES.index(stage) * 10_000
    return [str(first + client) for client in range(number, stage.clients, PROCESSES)]


def wait_for(port: int, collector: Child) -> None:
    while collector.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"the collector did not start: {collector.text()}")


def normal_after(port: int) -> float:
    """Seconds until ten requests in a row are acknowledged, each within a fifth of a second."""
    begun, good = time.monotonic(), 0
    while good < 10 and time.monotonic() - begun < 60:
        before = time.monotonic()
        taken = post(port, body_of(f"probe-{before}", 1))
        good = good + 1 if taken and time.monotonic() - before < 0.2 else 0
    return time.monotonic() - begun


def resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def stop(collector: Child) -> list[str]:
    """End the collector as a service manager does."""
    collector.signal(15)
    code = collector.wait(60)
    return [] if code == 0 else [f"the collector ended with {code}: {collector.text()[-2000:]}"]


def compare(state: State, whole: Tally) -> list[str]:
    """Whether each acknowledged batch is in the log once, whole, and no refused one at all."""
    found = batches_in(state)
    by_name = {stage.name: stage.events for stage in STAGES}
    events = list(by_name.values())
    size = {batch: events[int(batch.split("-")[0]) // 10_000] for batch in {*whole.acknowledged, *whole.unknown}}
    lost = sum(found[batch] < size[batch] for batch in whole.acknowledged)
    doubled = sum(count > size.get(batch, 0) for batch, count in found.items() if batch in size)
    refused = sum(batch not in size for batch in found)
    acknowledged = sum(size[batch] for batch in whole.acknowledged)
    sys.stdout.write(
        f"\n{acknowledged:,} events acknowledged in {len(whole.acknowledged):,} requests: {lost} requests lost, "
        f"{doubled} doubled, {refused} refused ones in the log; {len(whole.unknown)} without an answer\n"
    )
    return ["acknowledged and logged differ"] if lost or doubled or refused else []


def batches_in(state: State) -> "Counter[str]":
    """How many events of each batch the log holds, without those of the probes."""
    log = EmbeddedLog(state.dir / "log")
    found: Counter[str] = Counter()
    for partition, start in log.begin_offsets().items():
        at = start
        while len(piece := log.read(partition, at, 16 * 1024 * 1024)):
            found.update(name.decode() for name in re.findall(rb'"event_id":"(\d+-\d+)-\d+"', bytes(piece.data)))
            at = piece.end
    log.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
