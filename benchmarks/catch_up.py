"""What a drain makes of hours of outage: events a second, and memory that does not grow with what waits.

    python -m benchmarks.catch_up --events 1000000 3000000

For each number of events a log is filled in a folder of its own, as collectors would have left it, and one ordinary
`recsys-data ingest --until-empty` takes it all; its peak resident memory is what the kernel counted. Prints a table and
ends with 1 if events are missing or the last peak is above the first by more than a tenth.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.soak_report import print_table
from benchmarks.soak_samples import size_of
from recsys_data.ingestion.log.open import open_log
from recsys_data.settings import Settings

GROUP = 10_000
HOURS = 3
LATE = 0.02
MOST_LATE_DAYS = 3
GROWTH = 1.1
OLD_TIME = timedelta(hours=HOURS)


def main() -> int:
    """Fill, drain, and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catch_up", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 3_000_000])
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    options = parser.parse_args()
    found = []
    for events in options.events:
        with tempfile.TemporaryDirectory(prefix="recsys-catch-up-", dir=options.folder) as folder:
            found.append(catch_up(Path(folder), events))
    print_table(
        ("events", "log MB", "seconds", "events/s", "peak MB", "lake files", "lake MB", "accepted", "balanced"),
        [[f"{value:,}" if not isinstance(value, bool) else str(value) for value in one.values()] for one in found],
    )
    problems = [f"{one['events']:,} events: not all of them were accepted" for one in found if not one["balanced"]]
    if found[-1]["peak"] > GROWTH * found[0]["peak"]:
        problems.append(f"memory grows with what waits: {found[0]['peak']} -> {found[-1]['peak']} MB")
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    return 1 if problems else 0


def catch_up(folder: Path, events: int) -> dict[str, Any]:
    """One log, one drain."""
    settings = Settings(dir=str(folder / "data"))
    fill(settings, events)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    environment = {**plain, "RECSYS_DATA_DIR": settings.dir}
    command = [sys.executable, "-m", "recsys_data.cli"]
    begun = time.monotonic()
    process = subprocess.Popen([*command, "ingest", "--until-empty"], env=environment, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"ingest ended with {process.returncode}")
    status = json.loads(
        subprocess.run([*command, "status", "--json"], env=environment, check=True, capture_output=True).stdout
    )
    ledger, files = status["ledger"], size_of(settings.lake_dir)
    return {
        "events": events,
        "log": round(size_of(settings.log_dir)[1] / 1e6),
        "seconds": round(seconds, 1),
        "rate": round(events / seconds),
        "peak": round(usage.ru_maxrss / 1000),
        "files": files[0],
        "MB": round(files[1] / 1e6),
        "accepted": ledger["accepted"],
        "balanced": ledger["balanced"] and ledger["accepted"] == events and not status["log"]["lag_events"],
    }


def fill(settings: Settings, events: int) -> None:
    """Append events of the last hours, some of them late, a few thousand at once."""
    rng, now = random.Random(1), datetime.now(UTC)
    log = open_log(settings)
    for start in range(0, events, GROUP):
        received = now - OLD_TIME * (1 - start / events)
        log.append([line(rng, received) for _ in range(min(GROUP, events - start))])
    log.close()


def line(rng: random.Random, received: datetime) -> bytes:
    """One event as a collector stamps it, of about 300 bytes."""
    late = timedelta(days=rng.randint(1, MOST_LATE_DAYS)) if rng.random() < LATE else timedelta(seconds=rng.random())
    return (
        f'{{"event_id":"{rng.getrandbits(128):032x}","type":"view","user_id":"u{rng.randrange(100_000)}",'
        f'"session_id":"s{rng.randrange(1_000_000)}","item_id":"i{rng.randrange(50_000)}",'
        f'"event_ts":"{(received - late).isoformat()}","received_at":"{received.isoformat()}","position":3,'
        f'"properties":{{"list":"home","theme":"dark"}},"context":{{"page":"/home","device":{{"type":"phone"}}}}}}'
    ).encode()


if __name__ == "__main__":
    sys.exit(main())
