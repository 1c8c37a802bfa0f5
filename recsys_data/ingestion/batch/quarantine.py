"""Snapshots that violate a limit of their contract: on hold as read, until accepted or replaced by a good one.

Data flow: `Staged` -> `$DIR/ingest/held/NAME/DAY/` (rows.parquet, rejected.parquet, held.json, written whole or
not at all) -> `accept_snapshot`, or removed by the next snapshot of that day that is good.
"""

import shutil
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from recsys_data.contracts.model import Contract
from recsys_data.durable import sync_all, sync_file
from recsys_data.errors import UserError
from recsys_data.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

RESULT = "held.json"
# One read at a time: the readers of a staged snapshot share a connection.
OpenReader = Callable[[], "pa.RecordBatchReader"]


class Compared(msgspec.Struct, frozen=True):
    """A snapshot beside the last good one of an earlier day: its rows, and keys that are lost, new or changed."""

    rows: int
    previous_day: date | None = None
    previous: int = 0
    lost: int = 0
    new: int = 0
    changed: int = 0


class SnapshotResult(msgspec.Struct, frozen=True, rename={"violation": "held"}):
    """What a snapshot run did for one day.

    Attributes:
        violation: the limit that the snapshot violates, which puts it on hold; None when it was published.
        rejected: rejected rows by reason.
        sources: rows read, by server.
    """

    name: str
    day: date
    as_of: datetime
    compared: Compared
    violation: str | None = None
    rejected: dict[str, int] = {}
    sources: dict[str, int] = {}
    seconds: float = 0.0


def violated_limit(contract: Contract, compared: Compared) -> str | None:
    """The limit of the contract that such a snapshot violates, in words; None if it keeps to all of them."""
    for name, item in contract.checks.items():
        if item.get("severity") == "warning":
            continue
        least = item.get("mustBeGreaterThan")
        if item.get("metric") == "rowCount" and least is not None and compared.rows <= least:
            return f"{name}: it has {compared.rows:,} rows; expected more than {least:,}"
        limits = item.get("implementation")
        for option, count, verb in (
            ("maxShareLost", compared.lost, "are gone"),
            ("maxShareChanged", compared.changed, "are different"),
        ):
            most = limits.get(option) if isinstance(limits, dict) else None
            if most is not None and compared.previous and count > most * compared.previous:
                return (
                    f"{name}: {count:,} of {compared.previous:,} rows of {compared.previous_day} {verb} "
                    f"({count / compared.previous:.1%}); at most {most:.0%} may be"
                )
    return None


class Quarantined:
    """A snapshot on hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.result = msgspec.json.decode((folder / RESULT).read_bytes(), type=SnapshotResult)

    def read(self, what: str) -> "pa.RecordBatchReader":
        """Its `rows`, or its `rejected` rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self.folder / f"{what}.parquet")
        return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(50_000))


def quarantine(settings: Settings, result: SnapshotResult, rows: OpenReader, rejected: OpenReader) -> None:
    """Put a snapshot on hold, in place of one of the same day."""
    folder = _folder(settings, result.name, result.day)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write(rows(), part / "rows.parquet")
    _write(rejected(), part / "rejected.parquet")
    (part / RESULT).write_bytes(msgspec.json.encode(result))
    sync_all([*part.iterdir()])
    discard(settings, result.name, result.day)
    part.replace(folder)
    sync_file(folder.parent)


def quarantined(settings: Settings, name: str) -> list[SnapshotResult]:
    """What is on hold of a dataset, oldest first."""
    folder = _folder(settings, name, date(2000, 1, 1)).parent
    return [Quarantined(one).result for one in sorted(folder.glob("[0-9]*")) if (one / RESULT).exists()]


def open_quarantined(settings: Settings, name: str, day: date) -> Quarantined:
    """The snapshot of that day that is on hold.

    Raises:
        UserError: there is none.
    """
    folder = _folder(settings, name, day)
    if not (folder / RESULT).exists():
        days = ", ".join(str(result.day) for result in quarantined(settings, name)) or "nothing"
        raise UserError(f"{name} {day} is not on hold; on hold: {days}.")
    return Quarantined(folder)


def discard(settings: Settings, name: str, day: date) -> None:
    """Remove what is on hold of that day, if anything is; at no moment half of it can be seen."""
    folder = _folder(settings, name, day)
    removed = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        folder.replace(removed)
        sync_file(folder.parent)
        shutil.rmtree(removed)


def _folder(settings: Settings, name: str, day: date) -> Path:
    return settings.quarantine_dir / name / day.isoformat()


def _write(reader: "pa.RecordBatchReader", path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, reader.schema, compression="zstd", compression_level=1) as writer:
        for batch in reader:
            writer.write_batch(batch)
