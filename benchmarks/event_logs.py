"""What the event log costs a consumer: processor seconds for a million events, from Kafka and from the embedded log.

    python -m benchmarks.event_logs --kafka 127.0.0.1:9092

The same events are put into an embedded log and into a new topic. Then `recsys-data ingest --until-empty` takes each
into a new lake, by turns; a log without events shows what a process costs by itself, which is subtracted. The best
round of each counts, because whatever else the machine does only adds to it. Ends with 1 if events are missing, or if
Kafka costs more than a fifth more.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.catch_up import fill
from benchmarks.soak.report import print_table
from recsys_data.contracts import load_contracts
from recsys_data.ingestion.streaming.latency import main_ledger
from recsys_data.settings import Settings
from recsys_data.storage.tables import open_lake

LIMIT = 1.2


@dataclass(frozen=True, slots=True)
class Run:
    """What one consumer took: processor seconds, seconds, and events accepted."""

    cpu: float
    seconds: float
    accepted: int


def main() -> int:
    """Fill both logs, consume by turns, and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.event_logs", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT", help="a broker")
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsys-event-logs-") as folder:
        topics = [f"kafka://{options.kafka}/benchmark-{uuid.uuid4().hex}?create=true" for _ in range(2)]
        logs = {
            "embedded": Settings(dir=f"{folder}/embedded"),
            "kafka": Settings(dir=f"{folder}/kafka", event_log=topics[0]),
        }
        none = {"embedded": "embedded", "kafka": topics[1]}
        for settings in logs.values():
            fill(settings, options.events)
        runs: dict[str, list[Run]] = {name: [] for name in logs}
        idle: dict[str, list[Run]] = {name: [] for name in logs}
        for number in range(options.rounds):
            for name, settings in logs.items():
                idle[name].append(consume(Settings(dir=f"{folder}/{name}-no-{number}", event_log=none[name]), None))
                one = msgspec.structs.replace(settings, dir=f"{folder}/{name}-{number}")
                runs[name].append(consume(one, settings.log_dir))
    best = {name: min(found, key=lambda run: run.cpu) for name, found in runs.items()}
    alone = {name: min(run.cpu for run in found) for name, found in idle.items()}
    cost = {name: (run.cpu - alone[name]) / options.events * 1e6 for name, run in best.items()}
    print_table(
        ("event log", "events", "CPU s per 1M events", "seconds", "accepted"),
        [
            [name, f"{options.events:,}", f"{cost[name]:.1f}", f"{run.seconds:.1f}", f"{run.accepted:,}"]
            for name, run in best.items()
        ],
    )
    ratio = cost["kafka"] / cost["embedded"]
    sys.stdout.write(f"Kafka costs {ratio:.2f} times as much as the embedded log; at most {LIMIT} is allowed.\n")
    whole = all(run.accepted == options.events for found in runs.values() for run in found)
    if not whole:
        sys.stdout.write("FAILED: events are missing\n")
    return 0 if whole and ratio <= LIMIT else 1


def consume(settings: Settings, log: Path | None) -> Run:
    """Consume the whole log into a new lake, in a process of its own."""
    if log and log.is_dir():
        settings.data_dir.mkdir()
        shutil.copytree(log, settings.log_dir)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    given = {"RECSYS_DATA_DIR": settings.dir, "RECSYS_DATA_EVENT_LOG": settings.event_log}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "recsys_data.cli", "ingest", "--until-empty"],
        env=plain | given,
        stdout=subprocess.DEVNULL,
    )
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise RuntimeError(f"`ingest` ended with {process.returncode}.")
    ledger = main_ledger(open_lake(settings, load_contracts()))
    return Run(used.ru_utime + used.ru_stime, time.monotonic() - begun, ledger.accepted)


if __name__ == "__main__":
    sys.exit(main())
