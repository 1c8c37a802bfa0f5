"""What a consumer makes of hours of outage: events a second, and memory that does not grow with what waits.

    python -m benchmarks.catch_up --events 1000000 3000000 8000000

For each number of events a log is filled in a folder of its own, as collectors would have left it, and one ordinary
`recsys-data ingest --until-empty` takes it all. Its memory is sampled: `own`, and `mapped` files (the ids of stored
events), which the kernel takes back when it needs to. Own memory grows until as many ids are known as are merged at
once (`deduplicate.MERGED_ROWS`), and no further. Prints a table and ends with 1 if events are missing, or if the last
backlog took more than a tenth more of it than the one before. Linux only.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.soak.report import print_table
from benchmarks.soak.samples import size_of
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.settings import Settings

GROUP = 10_000
HOURS = 3
LATE_PERCENT = 2
MOST_LATE_DAYS = 3
GROWTH = 1.1


def main() -> int:
    """Fill, consume, and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catch_up", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 3_000_000, 8_000_000])
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    options = parser.parse_args()
    found = []
    for events in options.events:
        with tempfile.TemporaryDirectory(prefix="recsys-catch-up-", dir=options.folder) as folder:
            found.append(catch_up(Path(folder), events))
    print_table(
        (
            "events",
            "log MB",
            "seconds",
            "events/s",
            "own MB",
            "mapped MB",
            "lake files",
            "lake MB",
            "accepted",
            "balanced",
        ),
        [[f"{value:,}" if not isinstance(value, bool) else str(value) for value in one.values()] for one in found],
    )
    problems = [f"{one['events']:,} events: not all of them were accepted" for one in found if not one["balanced"]]
    if len(found) > 1 and found[-1]["own"] > GROWTH * found[-2]["own"]:
        problems.append(f"memory grows with what waits: {found[-2]['own']} -> {found[-1]['own']} MB")
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    return 1 if problems else 0


def catch_up(folder: Path, events: int) -> dict[str, Any]:
    """One log, one consumer."""
    settings = Settings(dir=str(folder / "data"))
    fill(settings, events)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_DATA_")}
    environment = {**plain, "RECSYS_DATA_DIR": settings.dir}
    command = [sys.executable, "-m", "recsys_data.cli"]
    begun = time.monotonic()
    process = subprocess.Popen([*command, "ingest", "--until-empty"], env=environment, stdout=subprocess.DEVNULL)
    own = mapped = 0.0
    while process.poll() is None:
        now = memory_mb(process.pid)
        own, mapped = max(own, now["RssAnon"]), max(mapped, now["RssFile"])
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    status = json.loads(
        subprocess.run([*command, "status", "--json"], env=environment, check=True, capture_output=True).stdout
    )
    ledger, files = status["ledger"], size_of(settings.lake_dir)
    return {
        "events": events,
        "log": round(size_of(settings.log_dir)[1] / 1e6),
        "seconds": round(seconds, 1),
        "rate": round(events / seconds),
        "own": round(own),
        "mapped": round(mapped),
        "files": files[0],
        "MB": round(files[1] / 1e6),
        "accepted": ledger["accepted"],
        "balanced": ledger["balanced"] and ledger["accepted"] == events and not status["log"]["lag_events"],
    }


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory of a process: its own, and files that it has mapped, which the kernel may take back."""
    found = {"RssAnon": 0.0, "RssFile": 0.0}
    with contextlib.suppress(OSError):
        for text in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = text.partition(":")
            if name in found:
                found[name] = int(rest.split()[0]) * 1024 / 1e6
    return found


def fill(settings: Settings, events: int) -> None:
    """Append events of the last hours as a collector stamps them, about 300 bytes each and a few of them late."""
    received = f"now()::TIMESTAMP - INTERVAL {HOURS} HOUR * (1 - i / {events})"
    late = f"CASE WHEN hash(i, 1) % 100 < {LATE_PERCENT} THEN INTERVAL 1 DAY * (1 + hash(i, 2) % {MOST_LATE_DAYS})"
    moment = "strftime({}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    sql = f"""SELECT '{{"event_id":"' || md5(i::VARCHAR) || '","type":"view","user_id":"u' || hash(i, 3) % 100000
        || '","session_id":"s' || hash(i, 4) % 1000000 || '","item_id":"i' || hash(i, 5) % 50000 || '","event_ts":"'
        || {moment.format(f"{received} - {late} ELSE INTERVAL 1 SECOND END")} || '","received_at":"'
        || {moment.format(received)} || '","position":3,"properties":{{"list":"home","theme":"dark"}},'
        || '"context":{{"page":"/home","device":{{"type":"phone"}}}}}}' FROM range(?, ?) t(i)"""
    log = open_log(settings)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for start in range(0, events, GROUP):
            rows = connection.execute(sql, [start, min(start + GROUP, events)]).fetchall()
            log.append([line.encode() for (line,) in rows])
    log.close()


if __name__ == "__main__":
    sys.exit(main())
