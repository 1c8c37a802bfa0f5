"""Stored snapshots of a dataset -> its history (SCD2): every state of every row, with the time it was known to hold.

Data flow: `NAME` (a full state a day) -> `history_sql` (what began and ended on which day) -> `NAME_history`. The
history is a function of the stored snapshots alone: a table property names those that it is made of, in the same
commit as the rows, and whatever differs from what is stored now is undone and made again from the first difference
on. So days may come late, in any order, be read again or be removed, and the next call repairs what a crash left.
"""

import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.model import history_name
from recsys_data.days import to_microseconds
from recsys_data.durable import scratch
from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.batch.history.compare import Comparison
from recsys_data.ingestion.batch.history.state import (
    Applied,
    Plan,
    State,
    commit_state,
    make_plan,
    read_state,
    stored_days,
)
from recsys_data.sql import quote
from recsys_data.storage.availability import read_failure
from recsys_data.storage.duckdb_writer import copy_rows
from recsys_data.storage.iceberg.manifest_stats import upper_bound
from recsys_data.storage.query import connect, file_path, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

ATTEMPTS = 3
# Snapshots that are compared in one statement, by the size of their files: many small days, or one large one.
DAYS_BYTES = 192 * 1024 * 1024
# Every day adds a file of closed rows; the small ones are made one when there are this many.
SMALL_BYTES = 32 * 1024 * 1024
SMALL_FILES = 30


@dataclass(frozen=True, slots=True)
class HistoryUpdate:
    """What refreshing a history did.

    Attributes:
        days: snapshot days that were applied, in the order in which they were known.
        opened: rows that were opened on those days.
        closed: rows that were closed on those days.
        rows: rows of the history.
        current: current rows of it.
        seconds: how long it took.
        by_day: opened and closed, by day.
    """

    days: list[date]
    opened: int
    closed: int
    rows: int
    current: int
    seconds: float
    by_day: dict[date, tuple[int, int]]


def refresh_history(lake: Lake, name: str, staging: Path, memory_bytes: int = 1_000_000_000) -> HistoryUpdate:
    """Make `NAME_history` what the stored snapshots of NAME say, in one commit.

    Args:
        lake: where both are.
        name: the snapshot dataset.
        staging: folder for what does not fit into memory; nothing is left there.
        memory_bytes: what DuckDB may hold in memory.

    Raises:
        Transient: others kept changing the history, or memory and disk did not suffice; nothing was changed.
        Permanent: rows of one day's snapshot do not agree on when they were known, or snapshots that would be needed
            again have expired.
    """
    import duckdb

    began = time.perf_counter()
    contract = lake.contracts[name]
    for _ in range(ATTEMPTS):
        with scratch(staging, f"{name}.history") as folder:
            comparison = Comparison(contract, folder, memory_bytes)
            try:
                update = _Update(lake, name, comparison, folder)
                if update.make():
                    return update.result(time.perf_counter() - began)
            except duckdb.Error as error:
                if (said := read_failure(error)) is None:
                    raise
                raise Transient(
                    f"The history of {name} could not be made: {said} Free memory, or space in {staging} and "
                    f"{lake.warehouse}, and try again."
                ) from None
            finally:
                comparison.close()
    raise Transient(f"The history of {name} was changed by others {ATTEMPTS} times in a row. Try again later.")


class _Update:
    """One attempt: everything is made from one state of both tables, and committed if the history is still in it."""

    def __init__(self, lake: Lake, name: str, comparison: Comparison, folder: Path) -> None:
        self.contract = lake.contracts[name]
        self.snapshots = lake.table(name)
        self.table = lake.table(history_name(name))
        self.comparison = comparison
        self.folder = folder
        self.state = read_state(self.table)
        self.current, self.closed = _files(self.table)
        self.plan = Plan([], None, [])
        self.by_day: dict[date, tuple[int, int]] = {}

    def make(self) -> bool:
        """Whether the history is what the snapshots say; False if somebody else has changed it meanwhile."""
        days = stored_days(self.snapshots, self.state, self.comparison.known_at)
        self.plan = make_plan(self.state, days, self.contract.primary_key)
        if not self.plan.differs:
            return True
        if gone := [one.day for one in self.plan.ahead if not days[one]]:
            raise Permanent(
                f"{history_name(self.contract.name)} cannot be made again from {min(gone)} on, because the "
                "snapshots of that time have expired. Did its key change, or was a snapshot added that was known "
                "before them? Undo that."
            )
        before = [*self.current, *self.closed]
        self._write({one: days[one] for one in self.plan.ahead})
        after = [*self.current, *self.closed]
        state = State(tuple(days), self.contract.primary_key, uuid.uuid4().hex)
        gone = [file for file in before if file not in after]
        return commit_state(self.table, state, gone, [file for file in after if file not in before])

    def result(self, seconds: float) -> HistoryUpdate:
        """What was done."""
        days = [one.day for one in self.plan.ahead]
        by_day = {day: self.by_day.get(day, (0, 0)) for day in days}
        opened, closed = (sum(pair[side] for pair in by_day.values()) for side in (0, 1))
        current = sum(file.record_count for file in self.current)
        rows = current + sum(file.record_count for file in self.closed)
        return HistoryUpdate(days, opened, closed, rows, current, seconds, by_day)

    def _write(self, ahead: "dict[Applied, list[DataFile]]") -> None:
        """Write the files of which the history is to consist."""
        comparison = self.comparison
        comparison.start(self._base())
        current = comparison.unchanged() if self.plan.undo_from else None
        self._rewrite_closed()
        for number, run in enumerate(runs := _runs(ahead)):
            files = [file_path(file) for one in run for file in ahead[one]]
            comparison.add_snapshots(relation(self.snapshots, files), run)
            comparison.compare(nothing_before=not self.plan.behind and number == 0)
            by_day = comparison.counts()
            self.by_day |= by_day
            if not by_day:
                continue
            if any(closed for _, closed in by_day.values()):
                self._add_closed(comparison.closed())
            current = comparison.current()
            if number + 1 < len(runs):
                comparison.put_aside(self.folder / f"{number}.parquet")
                current = comparison.unchanged()
        if current:
            written = copy_rows(comparison.connection, current, self.table, partition=True)
            self.current = [written] if written else []

    def _base(self) -> str:
        """SQL of the rows that are open before the first day that is applied."""
        undo, files = self.plan.undo_from, self.current
        if not self.plan.behind:
            return relation(self.table, [])
        if undo is None:
            return relation(self.table, [file_path(file) for file in files])
        files = [*files, *(file for file in self.closed if _may_end_since(self.table, file, undo))]
        return (
            f"FROM ({relation(self.table, [file_path(file) for file in files])}) "
            f"WHERE valid_from < TIMESTAMPTZ '{undo}' AND (valid_to IS NULL OR valid_to >= TIMESTAMPTZ '{undo}')"
        )

    def _rewrite_closed(self) -> None:
        """Leave out what is undone; and make one of many small files, because each day adds one."""
        undo = self.plan.undo_from
        if undo:
            old, condition = [f for f in self.closed if _may_end_since(self.table, f, undo)], f"valid_to < '{undo}'"
        else:
            small = [file for file in self.closed if file.file_size_in_bytes < SMALL_BYTES]
            old, condition = small if len(small) >= SMALL_FILES else [], "true"
        if old:
            self.closed = [file for file in self.closed if file not in old]
            self._add_closed(f"FROM ({relation(self.table, list(map(file_path, old)))}) WHERE {condition}")

    def _add_closed(self, rows: str) -> None:
        written = copy_rows(self.comparison.connection, rows, self.table, partition=False)
        if written:
            self.closed.append(written)


def _files(table: "Table") -> "tuple[list[DataFile], list[DataFile]]":
    """The files of current rows, and those of closed ones."""
    files = [task.file for task in table.scan().plan_files()]
    return [file for file in files if file.partition[0]], [file for file in files if not file.partition[0]]


def _may_end_since(table: "Table", file: "DataFile", moment: datetime) -> bool:
    """Whether the file may have rows that were closed at `moment` or later."""
    bound = upper_bound(file, table.schema().find_field("valid_to"))
    return bound is None or bound >= to_microseconds(moment)


def _runs(ahead: "dict[Applied, list[DataFile]]") -> list[list[Applied]]:
    """Days to be compared in one statement: as many as are small, in their order; a large one by itself."""
    runs: list[list[Applied]] = []
    size = 0
    for applied, files in ahead.items():
        more = sum(file.file_size_in_bytes for file in files)
        if not runs or size + more > DAYS_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(applied)
        size += more
    return runs


def overlaps(lake: Lake, name: str) -> int:
    """What is wrong with `NAME_history`; 0 if nothing is.

    Returns:
        Rows whose period is empty or reaches into that of the next row of their key, plus keys with more than one
        current row.
    """
    history = history_name(name)
    key = ", ".join(map(quote, lake.contracts[name].primary_key))
    with connect(lake, [history]) as connection:
        found = connection.sql(
            f"""WITH periods AS (
                SELECT {key}, is_current, valid_from, valid_to,
                    lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from, valid_to NULLS LAST) AS "#next"
                FROM {quote(history)})
            SELECT (SELECT count(*) FROM periods WHERE valid_to <= valid_from
                        OR ("#next" IS NOT NULL AND (valid_to IS NULL OR valid_to > "#next")))
                + (SELECT count(*) FROM (SELECT 1 FROM periods WHERE is_current GROUP BY {key} HAVING count(*) > 1))"""
        )
        return int(found.fetchall()[0][0])
