"""Readers in the past: which snapshot of a table was current at a moment.

Data flow: the table's snapshot log -> snapshot id, for `query.connect(as_of=...)`. A snapshot is one whole commit, so
that readers of any moment see whole micro-batches. Run alone: `recsys-data sql --as-of "2026-11-25 10:00" "..."`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_data.errors import UserError

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import SnapshotLogEntry

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


class Expired(UserError):
    """What a table held at a moment has expired."""


def snapshot_at(table: "Table", moment: datetime) -> int | None:
    """The snapshot that was current at a moment (one that was committed at it included); None before the first.

    Raises:
        Expired: its snapshot has expired; says from when on the table can be read.
        UserError: the moment is yet to come.
    """
    if moment > datetime.now(UTC):
        raise UserError(f"{shown(moment)} is yet to come; expected a moment of the past. Times without a zone are UTC.")
    kept, complete = _kept(table)
    limit = (moment - EPOCH) // MILLISECOND
    for entry in reversed(kept):
        if entry.timestamp_ms <= limit:
            return entry.snapshot_id
    if complete:
        return None
    raise Expired(
        f"What {table.name()[-1]} held at {shown(moment)} has expired. The oldest moment of it that can be read is "
        f"{shown(_moment(kept[0].timestamp_ms))}."
    )


def moment_of(tables: "Iterable[Table]", snapshot_id: int) -> datetime:
    """When this snapshot of one of the tables was committed.

    Raises:
        UserError: none of them has it.
    """
    names = []
    for table in tables:
        names.append(table.name()[-1])
        if (snapshot := table.metadata.snapshot_by_id(snapshot_id)) is not None:
            return _moment(snapshot.timestamp_ms)
    raise UserError(
        f"No snapshot {snapshot_id} is kept of {', '.join(sorted(names)) or 'any dataset'}: it has expired, or never "
        "was. Take a moment instead, such as 2026-11-25T10:00:00Z."
    )


def shown(moment: datetime) -> str:
    """A moment that can be given back as it is printed.

    >>> shown(datetime(2026, 1, 2, 3, 4, 5, 678000, UTC))
    '2026-01-02T03:04:05.678Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _kept(table: "Table") -> "tuple[list[SnapshotLogEntry], bool]":
    """The newest entries of the log between which no snapshot is missing, and whether these are all there ever were.

    PyIceberg takes the parent out of a snapshot whose parent expires, so the sequence numbers tell.
    """
    numbers = {one.snapshot_id: one.sequence_number or 0 for one in table.metadata.snapshots}
    # A transaction of several snapshots has only its last one in the log.
    there = set(numbers.values())
    kept: list[SnapshotLogEntry] = []
    following: int | None = None
    for entry in reversed(table.metadata.snapshot_log):
        if (number := numbers.get(entry.snapshot_id)) is None:
            return kept[::-1], False
        if following is not None and not there.issuperset(range(number + 1, following)):
            return kept[::-1], False
        kept.append(entry)
        following = number
    return kept[::-1], following is None or there.issuperset(range(1, following))


def _moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
