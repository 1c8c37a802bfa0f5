"""Whether drift is found on its day, and quiet days raise no alarm, in the traffic of the simulator.

    python -m benchmarks.drift                 # --events 2000000 --days 37 --seed 0

Simulates weeks of a shop into a lake of its own and compares each day from the eighth on: alarms of quiet days are
counted. Then the last day is changed (a type of event that doubles, a currency that switches, a column that is NULL in
a fifth of the rows that have it) and compared again. Prints a table and ends with 1 if a quiet day raised an alarm or a
planted change was not found.
"""

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime

from benchmarks.soak.report import print_table
from recsys_data.contracts import load_contracts
from recsys_data.days import day_key
from recsys_data.ingestion.streaming.consumer import Until, consume
from recsys_data.ingestion.streaming.log.open import open_log
from recsys_data.ingestion.streaming.log.received_at import with_received_at
from recsys_data.monitoring.drift import drift
from recsys_data.settings import Settings
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.sql import open_session, quote
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.duckdb_writer import copy_rows
from recsys_data.storage.iceberg.manifest_stats import days as days_of
from recsys_data.storage.partition import files_of
from recsys_data.storage.query import relation
from recsys_data.storage.tables import Lake, open_lake

NAME = "interactions"
END = datetime(2026, 6, 1, tzinfo=UTC)
# Column -> SQL in place of its value, and whether it must be found.
PLANTED = {
    "nothing": ("event_id", "event_id", False),
    "views double": (
        "type",
        "CASE WHEN type = 'impression' AND hash(event_id) % 5 = 0 THEN 'view' ELSE type END",
        True,
    ),
    "a currency switches": ("currency", "CASE WHEN currency IS NOT NULL THEN 'XXX' END", True),
    "a fifth is NULL": ("session_id", "CASE WHEN hash(event_id) % 5 > 0 THEN session_id END", True),
}


def filled(settings: Settings, events: int, days: float, seed: int) -> Lake:
    """A lake with simulated events."""
    lake, log = open_lake(settings, load_contracts()), open_log(settings)
    for batch in simulate(Plan(events=events, end=END, days=days, seed=seed)):
        log.append(with_received_at(batch.lines, END))
    for _ in consume(log, lake, settings, Until()):
        pass
    log.close()
    return lake


def replace_day(lake: Lake, day: int, column: str, value: str, original: str) -> None:
    """Put rows of a day with another value in place of those that are there."""
    table = lake.table(NAME)
    old = [file for _, file in files_of(table, day)]
    with open_session() as connection:
        new = copy_rows(connection, f"SELECT * REPLACE ({value} AS {quote(column)}) FROM ({original})", table, day)
    compare_and_set(table, lambda _: Change(old, [new] if new else []))


def main(arguments: argparse.Namespace) -> int:
    """Run it; 1 if it failed."""
    folder = tempfile.mkdtemp(prefix="drift-")
    settings = Settings(dir=folder)
    lake = filled(settings, arguments.events, arguments.days, arguments.seed)
    days = sorted(days_of(lake.table(NAME)))[-int(arguments.days) :]
    rows, failed = [], False
    for day in days[7:-1]:
        began = time.perf_counter()
        report = drift(lake, settings, NAME, day_key(day))
        alarms = ", ".join(f"{one.column} {one.measure}" for one in report.drifted)
        failed |= bool(alarms)
        rows.append(
            [report.day or "", f"{report.rows:,}", "quiet", alarms or "-", f"{time.perf_counter() - began:.1f}"]
        )
    last = days[-2]
    table = lake.table(NAME)
    # The files stay on disk after they have left the table.
    original = relation(table, [path for path, _ in files_of(table, last)])
    for what, (column, value, found) in PLANTED.items():
        replace_day(lake, last, column, value, original)
        report = drift(lake, settings, NAME, day_key(last))
        drifted = {one.column for one in report.drifted}
        failed |= (column in drifted) != found
        rows.append([report.day or "", f"{report.rows:,}", what, ", ".join(sorted(drifted)) or "-", ""])
    print_table(("day", "rows", "planted", "found", "seconds"), rows)
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=float, default=37)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(parser.parse_args()))
