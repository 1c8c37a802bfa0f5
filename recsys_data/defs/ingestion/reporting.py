"""What a drain did, gathered per dataset and day, so that it is told to Dagster now and then and not each second."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import dagster as dg

from recsys_data.days import day_number
from recsys_data.defs.markdown import table
from recsys_data.durable import local_path
from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.rejected import Rejected
from recsys_data.sql import quote
from recsys_data.storage.iceberg.manifest_stats import DayStats, days
from recsys_data.storage.query import relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from recsys_data.ingestion.streaming.stream_writer import CommitResult

EVERY_SECONDS = 30.0
# Late events touch dozens of older days, and telling of each takes a write to Dagster's storage.
RECENT_DAYS = 2
LATE_SECONDS = 300.0
# An import of thousands of days must not stall the drain; what is left out here is told by reconciliation.
MOST_DAYS = 60
SAMPLE_ROWS = 5
CELL_CHARACTERS = 60


@dataclass(slots=True)
class Gathered:
    """Sums over the commits since the last report."""

    rows: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    commits: int = 0
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    seconds: float = 0.0
    p50: float | None = None
    p95: float | None = None

    def newest_days(self, name: str) -> list[int]:
        """The days of a dataset that got rows, at most `MOST_DAYS`, newest first."""
        return sorted((day for day, rows in self.rows[name].items() if rows), reverse=True)[:MOST_DAYS]


class Reporter:
    """Gathers commits, and says when it is time to report: after the first commit, then every half minute.

    Days before a dataset's newest are told of every five minutes, for the drain waits until all is told.
    """

    def __init__(self) -> None:
        self._gathered = Gathered()
        self._due = self._late_due = 0.0

    def add(self, flushed: "CommitResult") -> None:
        gathered = self._gathered
        for name, added in flushed.rows.items():
            for day, rows in added.items():
                gathered.rows[name][day] += rows
        gathered.commits += 1
        gathered.read += flushed.read
        gathered.accepted += flushed.accepted
        gathered.duplicates += flushed.duplicates
        gathered.dead_letters += flushed.dead_letters
        gathered.seconds += flushed.seconds
        if flushed.latency:
            gathered.p50 = flushed.latency.deciles[len(flushed.latency.deciles) // 2]
            gathered.p95 = flushed.latency.deciles[-1]

    @property
    def is_due(self) -> bool:
        return self._gathered.commits > 0 and time.monotonic() >= self._due

    def take(self, everything: bool = False) -> Gathered:
        """What was gathered, without what is for later unless `everything` is wanted; gathering starts anew."""
        gathered, self._gathered = self._gathered, Gathered()
        now = time.monotonic()
        self._due = now + EVERY_SECONDS
        if everything or now >= self._late_due:
            self._late_due = now + LATE_SECONDS
            return gathered
        for name, rows in gathered.rows.items():
            for day in sorted(rows)[:-RECENT_DAYS]:
                self._gathered.rows[name][day] = rows.pop(day)
        return gathered


def wanted_days(partition_keys: Sequence[str], first_day: date) -> list[int]:
    """The days of a run (days since 1970).

    Raises:
        UserError: a key is not a day, or outside the partitions. Dagster's command line does not look.
    """
    today = datetime.now(UTC).date()
    days = []
    for key in partition_keys:
        try:
            day = date.fromisoformat(key)
        except ValueError:
            raise UserError(f"Partition {key!r} is not a day. Give one as YYYY-MM-DD, e.g. {today}.") from None
        if not first_day <= day <= today:
            raise UserError(f"Partition {key} is outside {first_day} to {today} (UTC). Choose a day in between.")
        days.append(day_number(day))
    return days


def day_facts(lake: Lake, name: str) -> dict[int, DayStats]:
    """Rows and files of a dataset by day, as of now."""
    return days(lake.table(name))


def sample(connection: "DuckDBPyConnection", lake: Lake, name: str, day: int) -> str:
    """A few rows of a day as a markdown table, without columns that are marked as personal."""
    shown = [column.name for column in lake.contracts[name].columns if not column.classification]
    stored = lake.table(name)
    files = [
        str(local_path(task.file.file_path) or task.file.file_path)
        for task in stored.scan().plan_files()
        if task.file.partition[0] == day
    ]
    rows = connection.execute(
        f"SELECT {', '.join(map(quote, shown))} FROM ({relation(stored, files[:1])}) LIMIT {SAMPLE_ROWS}"
    ).fetchall()
    filled = [i for i in range(len(shown)) if any(row[i] is not None for row in rows)]
    return table([shown[i] for i in filled], [[_cell(row[i]) for i in filled] for row in rows])


def rejections(found: Sequence[Rejected]) -> dg.MarkdownMetadataValue:
    """What was rejected by reason, without the rows themselves: those may hold personal data."""
    head = ["reason", "of", "count", "first", "last", "example"]
    rows = [
        [r.reason, r.dataset, r.count, f"{r.first:%Y-%m-%d %H:%M}", f"{r.last:%Y-%m-%d %H:%M}", r.place] for r in found
    ]
    return dg.MetadataValue.md(table(head, rows))


def _cell(value: object) -> str:
    text = value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else str(value)
    return "" if value is None else text[:CELL_CHARACTERS]
