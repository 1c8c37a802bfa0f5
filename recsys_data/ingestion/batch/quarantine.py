"""Snapshots that were held back: kept as they were read, until somebody accepts them or a better one is taken.

Data flow: `Staged` -> `$DIR/ingest/held/NAME/DAY/` (rows.parquet, rejected.parquet, held.json, written whole or
not at all) -> `accept_held`, or removed by the next snapshot of that day that is good.
"""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from recsys_data.durable import sync_all, sync_file
from recsys_data.errors import UserError
from recsys_data.ingestion.batch.taken import Taken
from recsys_data.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = "held.json"
# One read at a time: the readers of a staged snapshot share a connection.
Reading = Callable[[], "pa.RecordBatchReader"]


class Held:
    """A snapshot that is held back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken = msgspec.json.decode((folder / FACTS).read_bytes(), type=Taken)

    def read(self, what: str) -> "pa.RecordBatchReader":
        """Its `rows`, or its `rejected` rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(self.folder / f"{what}.parquet")
        return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(50_000))


def hold(settings: Settings, taken: Taken, rows: Reading, rejected: Reading) -> None:
    """Keep a snapshot aside, in place of one of the same day."""
    folder = _folder(settings, taken.name, taken.day)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write(rows(), part / "rows.parquet")
    _write(rejected(), part / "rejected.parquet")
    (part / FACTS).write_bytes(msgspec.json.encode(taken))
    sync_all([*part.iterdir()])
    discard(settings, taken.name, taken.day)
    part.replace(folder)
    sync_file(folder.parent)


def held_back(settings: Settings, name: str) -> list[Taken]:
    """What is held back of a dataset, oldest first."""
    folder = _folder(settings, name, date(2000, 1, 1)).parent
    return [Held(one).taken for one in sorted(folder.glob("[0-9]*")) if (one / FACTS).exists()]


def open_held(settings: Settings, name: str, day: date) -> Held:
    """The snapshot of that day that is held back.

    Raises:
        UserError: there is none.
    """
    folder = _folder(settings, name, day)
    if not (folder / FACTS).exists():
        days = ", ".join(taken.day.isoformat() for taken in held_back(settings, name)) or "none"
        raise UserError(f"No snapshot of {name} of {day} is held back; held back are those of: {days}.")
    return Held(folder)


def discard(settings: Settings, name: str, day: date) -> None:
    """Forget what is held back of that day, if anything is; at no moment half of it can be seen."""
    folder = _folder(settings, name, day)
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.replace(gone)
        sync_file(folder.parent)
        shutil.rmtree(gone)


def _folder(settings: Settings, name: str, day: date) -> Path:
    return settings.quarantine_dir / name / day.isoformat()


def _write(reader: "pa.RecordBatchReader", path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, reader.schema, compression="zstd", compression_level=1) as writer:
        for batch in reader:
            writer.write_batch(batch)
