"""What the manifests say of a table, without reading data: rows, files and bounds per UTC day."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache, cached

from recsys_data.days import MICROSECONDS_PER_DAY
from recsys_data.storage.integrity import names_corrupt_file

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.types import NestedField

# A busy table has some dozens; each takes some kilobytes here.
MANIFESTS_KNOWN = 1024


@dataclass(slots=True)
class DayStats:
    """One partition of a table: rows, files, and the newest time in it (microseconds since 1970)."""

    rows: int = 0
    files: int = 0
    newest: int | None = None


@names_corrupt_file
def days(table: "Table") -> dict[int, DayStats]:
    """Statistics per day (days since 1970) of the table's loaded snapshot."""
    snapshot = table.current_snapshot()
    found: dict[int, DayStats] = defaultdict(DayStats)
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        for day, part in _days_in(manifest, table.io, _time_field(table)).items():
            stats = found[day]
            stats.rows += part.rows
            stats.files += part.files
            stats.newest = max((one for one in (stats.newest, part.newest) if one is not None), default=None)
    return dict(found)


def _time_field(table: "Table") -> "NestedField":
    from pyiceberg.types import BooleanType

    schema = table.schema()
    field = schema.find_field(table.spec().fields[0].source_id)
    return schema.find_field("valid_from") if isinstance(field.field_type, BooleanType) else field


@cached(LRUCache(MANIFESTS_KNOWN), key=lambda manifest, io, time: (manifest.manifest_path, time), lock=Lock())
def _days_in(manifest: "ManifestFile", io: "FileIO", time: "NestedField") -> dict[int, DayStats]:
    """What one manifest lists. It never changes, and a commit makes one or two: the others are read only once."""
    from pyiceberg.types import DateType

    unit = MICROSECONDS_PER_DAY if isinstance(time.field_type, DateType) else 1
    found: dict[int, DayStats] = defaultdict(DayStats)
    for entry in manifest.fetch_manifest_entry(io):
        file = entry.data_file
        stats = found[file.partition[0]]
        stats.rows += file.record_count
        stats.files += 1
        bound = upper_bound(file, time)
        if bound is not None:
            stats.newest = max(bound * unit, bound * unit if stats.newest is None else stats.newest)
    return found


def upper_bound(file: "DataFile", field: "NestedField") -> Any:
    """The largest value of a column in a file, times in microseconds, by its manifest; None if that lacks it."""
    from pyiceberg.conversions import from_bytes

    bound = (file.upper_bounds or {}).get(field.field_id)
    return None if bound is None else from_bytes(field.field_type, bound)


def committed_at(table: "Table") -> datetime | None:
    """When the table last took rows or moved its position; None if it never did."""
    snapshot = table.current_snapshot()
    return datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC) if snapshot else None


def read_manifests(table: "Table") -> None:
    """Read the manifests of the table's loaded snapshot that are not remembered yet."""
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        manifest.fetch_manifest_entry(table.io)
