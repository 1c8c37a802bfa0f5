"""What the manifests say of a table, without reading data: rows, files and bounds per UTC day."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_data.lake.damage import naming_damage

if TYPE_CHECKING:
    from pyiceberg.table import Table

EPOCH = date(1970, 1, 1)
MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass(slots=True)
class DayStats:
    """One partition of a table: rows, files, and the newest time in it (microseconds since 1970)."""

    rows: int = 0
    files: int = 0
    newest: int | None = None


def day_key(day: int) -> str:
    """A day as counted by Iceberg (days since 1970) -> partition key, e.g. 2026-01-02."""
    return (EPOCH + timedelta(days=day)).isoformat()


def day_number(key: str) -> int:
    """A partition key, e.g. 2026-01-02 -> days since 1970."""
    return (date.fromisoformat(key) - EPOCH).days


@naming_damage
def days(table: "Table") -> dict[int, DayStats]:
    """Statistics per day (days since 1970) of the table's loaded snapshot."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import BooleanType, DateType

    schema = table.schema()
    time = schema.find_field(table.spec().fields[0].source_id)
    if isinstance(time.field_type, BooleanType):
        time = schema.find_field("valid_from")
    unit = MICROSECONDS_PER_DAY if isinstance(time.field_type, DateType) else 1
    found: dict[int, DayStats] = defaultdict(DayStats)
    for task in table.scan().plan_files():
        stats = found[task.file.partition[0]]
        stats.rows += task.file.record_count
        stats.files += 1
        bound = (task.file.upper_bounds or {}).get(time.field_id)
        if bound is not None:
            newest = int(from_bytes(time.field_type, bound)) * unit
            stats.newest = newest if stats.newest is None else max(stats.newest, newest)
    return dict(found)


def committed_at(table: "Table") -> datetime | None:
    """When the table last took rows or moved its position; None if it never did."""
    snapshot = table.current_snapshot()
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC) if snapshot else None
