"""Whether memory and delay stay within their limits, whatever waits in the event log or in the landing folder.

    python -m benchmarks.bounded [--only NAME ...] [--folder FOLDER]

Each case fills an event log (or a landing folder) of its own, runs the ordinary commands in processes of their own,
reads their peak memory from the kernel, and compares what the tables hold with what was planted. Prints a table and
ends with 1 if anything is lost or a limit is exceeded. Linux only; the largest case needs 3 GB of disk.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.bounded import lines
from benchmarks.bounded.runs import Found, Place, grouped
from benchmarks.soak.report import print_table
from recsys_data.ingestion.streaming.log.open import open_log

LIMIT_SECONDS = 60
LIMIT_P95 = 5
EVERY = lines.UNREADABLE | lines.BROKEN
HEAD = ("case", "planted", "peak MB", "seconds", "CPU s", "p95 s", "limits", "holds")
STEP_SECONDS = 0.1


def backlog(place: Place, found: Found, planted: Iterable[bytes], good: int, bad: Counter[str]) -> None:
    """Ingest a backlog of `good` events and `bad` lines by reason, and compare."""
    place.fill(planted)
    place.start("ingest", "--until-empty").finish(found)
    compare(place, found, good, bad)


def compare(place: Place, found: Found, good: int, bad: Counter[str]) -> None:
    """Whether the tables hold the planted events and dead letters, and the ledger agrees."""
    stored = place.rows("SELECT count(*) AS rows, count(DISTINCT event_id) AS ids FROM interactions")[0]
    found.require(stored == {"rows": good, "ids": good}, f"of {good:,} events there are {stored}")
    rows = place.rows("SELECT reason, count(*) AS rows FROM dead_letters GROUP BY 1")
    letters = {str(row["reason"]): row["rows"] for row in rows}
    found.require(letters == dict(bad), f"dead letters are {letters}; planted were {dict(bad)}")
    ledger = place.status()
    counts = {name: ledger[name] for name in ("read", "accepted", "duplicates", "dead_letters", "lag", "balanced")}
    expected = {"read": good + bad.total(), "accepted": good, "duplicates": 0, "dead_letters": bad.total()}
    found.require(counts == {**expected, "lag": 0, "balanced": True}, f"the ledger is {counts}")


def planted_bad(count: int, kinds: dict[str, str]) -> Counter[str]:
    """How many lines of each kind `bad_lines` makes."""
    names = list(kinds)
    return Counter({name: len(range(number, count, len(names))) for number, name in enumerate(names)})


def long_events(place: Place) -> Found:
    """36 KiB each, one long property."""
    found = Found("long events", "30,000 of 36 KiB")
    backlog(place, found, lines.long_events(range(30_000)), 30_000, Counter())
    return found


def wide_events(place: Place) -> Found:
    """36 KiB each, thousands of small fields."""
    found = Found("wide events", "30,000 of 36 KiB")
    backlog(place, found, lines.wide_events(range(30_000)), 30_000, Counter())
    return found


def _dead(case: str, count: int, size: int, kinds: dict[str, str]) -> Callable[[Place], Found]:
    def run(place: Place) -> Found:
        found = Found(case, f"{count:,} of {size:,} bytes")
        backlog(place, found, lines.bad_lines(range(count), size, kinds), 0, planted_bad(count, kinds))
        return found

    return run


def many_days(place: Place) -> Found:
    """Each commit writes thousands of files."""
    found = Found("event days", "100,000 events of 10,000 days")
    backlog(place, found, lines.days_of_events(range(100_000), 10_000), 100_000, Counter())
    return found


def all_at_once(place: Place) -> Found:
    """Long, wide and bad lines among events of thousands of days."""
    planted = chain(
        lines.long_events(range(5_000)),
        lines.bad_lines(range(5_000), lines.LONG_BYTES, EVERY),
        lines.days_of_events(range(5_000, 55_000), 10_000),
        lines.wide_events(range(55_000, 60_000)),
        lines.bad_lines(range(5_000, 300_000), lines.SHORT_BYTES, EVERY),
        lines.days_of_events(range(60_000, 70_000), 3_000, f',"properties":{{"text":"{lines.filler(1, 20_000)}"}}'),
    )
    found = Found("all at once", "70,000 events, 300,000 dead letters")
    backlog(place, found, planted, 70_000, planted_bad(300_000, EVERY))
    return found


def _burst(case: str, apart: bool) -> Callable[[Place], Found]:
    def run(place: Place) -> Found:
        return burst(place, Found(case, "40 s of 1,000 events/s, 700,000 dead letters"), apart)

    return run


def burst(place: Place, found: Found, apart: bool, rate: int = 1000, seconds: int = 40, bad: int = 700_000) -> Found:
    """Good events at a steady rate, and in the middle bad lines as fast as one writer appends them.

    Args:
        place: where.
        found: what is found.
        apart: the bad lines come by a collector of their own, hence in another partition; else by the same.
        rate: events a second.
        seconds: how long they come.
        bad: how many bad lines.
    """
    log = open_log(place.settings)
    other = open_log(place.settings) if apart else log
    consumer = place.start("ingest")
    # The first commit of a consumer creates the tables.
    log.append(list(lines.plain_events(range(1))))
    while not place.settings.lake_dir.exists() or place.status()["lag"]:
        time.sleep(0.5)

    # Made beforehand: a client that makes them meanwhile would take the processor from the consumer.
    groups = list(grouped(lines.bad_lines(range(bad), lines.SHORT_BYTES, EVERY)))

    def spill() -> None:
        time.sleep(seconds / 4)
        for group in groups:
            for first in range(0, len(group), 1000):
                other.append(group[first : first + 1000])

    spilling = threading.Thread(target=spill)
    spilling.start()
    sent, begun = 1, time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        due = 1 + int(elapsed * rate)
        log.append(list(lines.plain_events(range(sent, due))))
        sent = due
        consumer.sample()
        time.sleep(STEP_SECONDS)
    spilling.join()
    while place.status()["lag"]:
        consumer.sample()
        time.sleep(0.5)
    consumer.process.send_signal(signal.SIGINT)
    consumer.finish(found)
    found.p95 = float(np.quantile(place.delays(), 0.95))
    found.limit(found.p95, LIMIT_P95, "s p95")
    compare(place, found, sent, planted_bad(bad, EVERY))
    for one in {log, other}:
        one.close()
    return found


def _landing(kind: str) -> Callable[[Place], Found]:
    def run(place: Place) -> Found:
        found = Found(f"landing files, {kind}", "20,000 of 5 rows")
        day = datetime.now(UTC).date() - timedelta(days=1)
        folder = place.settings.data_dir / "landing" / "item_catalog" / day.isoformat()
        lines.landing_files(folder, kind, 20_000, 5)
        place.start("snapshot", "take", "item_catalog", "--day", day.isoformat()).finish(found)
        found.limit(found.seconds, LIMIT_SECONDS, "s")
        stored = place.rows("SELECT count(*) AS rows, count(DISTINCT item_id) AS ids FROM item_catalog")[0]
        found.require(stored == {"rows": 100_000, "ids": 100_000}, f"of 100,000 items there are {stored}")
        return found

    return run


CASES: dict[str, Callable[[Place], Found]] = {
    "long_events": long_events,
    "wide_events": wide_events,
    "dead_short_unreadable": _dead("dead letters, unreadable", 1_000_000, lines.SHORT_BYTES, lines.UNREADABLE),
    "dead_short_broken": _dead("dead letters, rules broken", 1_000_000, lines.SHORT_BYTES, lines.BROKEN),
    "dead_long_unreadable": _dead("long dead letters, unreadable", 30_000, lines.LONG_BYTES, lines.UNREADABLE),
    "dead_long_broken": _dead("long dead letters, rules broken", 30_000, lines.LONG_BYTES, lines.BROKEN),
    "event_days": many_days,
    "all_at_once": all_at_once,
    "burst_apart": _burst("burst, other partition", apart=True),
    "burst_together": _burst("burst, same partition", apart=False),
    **{f"landing_{kind}": _landing(kind) for kind in ("csv", "jsonl", "parquet")},
}


def main() -> int:
    """Run the cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounded", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="recsys-bounded-", dir=options.folder) as folder:
            found.append(CASES[name](Place(Path(folder))))
        print_table(HEAD, [found[-1].row])
    print_table(HEAD, [one.row for one in found])
    problems = [problem for one in found for problem in one.problems]
    for problem in problems:
        sys.stdout.write(f"FAILED: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
