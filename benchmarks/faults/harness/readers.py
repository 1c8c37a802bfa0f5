"""Readers beside everything else: they see whole micro-batches, and go on reading what they began with.

To be run in processes of their own; one that sees anything else ends with words that say so.
"""

import itertools
import os
import signal
import time
from pathlib import Path

from recsys_data.contracts import load_contracts
from recsys_data.settings import Settings
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake, open_lake

NAMES = ("interactions", "identities", "contexts", "dead_letters")
LINE = ("log_partition", "log_offset")


class Watching(Lake):
    """A lake that knows the ledger of what it gave out last."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake.catalog, lake.contracts, lake.warehouse, lake.folder)
        self.ledgers: dict[str, Ledger] = {}

    def _load(self, name: str):
        table = super()._load(name)
        self.ledgers[name] = read_ledger(table)
        return table


def open_watching() -> Watching:
    return Watching(open_lake(Settings.from_env(), load_contracts()))


def read_on() -> None:
    """Plan reads, stop until continued, and only then read: the rows must be those of the plan."""
    lake = open_watching()
    with connect(lake, NAMES) as connection:
        scans = {name: lake.table(name).scan() for name in NAMES}
        planned = {name: sorted(map(str, scan.to_arrow()["event_id"].to_pylist())) for name, scan in scans.items()}
        os.kill(os.getpid(), signal.SIGSTOP)
        for name, scan in scans.items():
            by_sql = sorted(str(row[0]) for row in connection.sql(f"SELECT event_id FROM {name}").fetchall())
            by_scan = sorted(map(str, scan.to_arrow()["event_id"].to_pylist()))
            if not planned[name] == by_scan == by_sql:
                found = f"{len(by_sql)} by SQL, {len(by_scan)} by PyIceberg"
                raise SystemExit(f"{name}: {len(planned[name])} rows when planned, when read {found}")


def read_all_the_time(report: Path) -> None:
    """Read every table over and over; each look that found what it should is a byte in the file `report`."""
    lake = open_watching()
    last: dict[str, int] = dict.fromkeys(NAMES, 0)
    with report.open("ab", buffering=0) as file:
        for look in itertools.cycle((by_duckdb, by_pyiceberg)):
            for name, rows in look(lake).items():
                if rows != lake.ledgers[name].rows or rows < last[name]:
                    raise SystemExit(f"{name}: {rows} rows; {lake.ledgers[name].rows} in its ledger, {last} before")
                last[name] = rows
                file.write(b".")
            time.sleep(0.02)


def by_duckdb(lake: Lake) -> dict[str, int]:
    """How many different lines each table holds."""
    with connect(lake, NAMES) as connection:
        lines = "count(DISTINCT (log_partition, log_offset))"
        return {name: connection.sql(f"SELECT {lines} FROM {name}").fetchall()[0][0] for name in NAMES}


def by_pyiceberg(lake: Lake) -> dict[str, int]:
    """The same, through PyIceberg."""
    tables = {name: lake.table(name) for name in NAMES}
    arrows = {name: table.scan(selected_fields=LINE).to_arrow() for name, table in tables.items()}
    return {name: arrow.group_by(list(LINE)).aggregate([]).num_rows for name, arrow in arrows.items()}
