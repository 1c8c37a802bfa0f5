"""Upkeep of a table: the many small files of a day become few, without disturbing readers or writers."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from recsys_data.errors import Transient
from recsys_data.lake.files import local_path, sync_all
from recsys_data.lake.write import dictionary_columns, file_schema, write_day

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

# Files above this are left as they are.
LARGE_BYTES = 256 * 1024 * 1024
PART_ROWS = 100_000
ATTEMPTS = 5


def compact_day(table: "Table", day: int) -> int:
    """Rewrite the small files of one UTC day (days since 1970) as one; returns how many were replaced.

    Rows stay as they are. Readers of earlier snapshots keep their files, which expire with the snapshots.

    Raises:
        Transient: others kept changing the same files; nothing was changed.
    """
    for _ in range(ATTEMPTS):
        small = [f for f in _files_of(table.refresh(), day) if f.file_size_in_bytes < LARGE_BYTES]
        if len(small) < 2:
            return 0
        compacted = _rewrite(table, day, small)
        if _replace(table, day, small, compacted):
            return len(small)
    raise Transient(f"Day {day} of {'.'.join(table.name())} keeps being rewritten by others. Try again later.")


def _files_of(table: "Table", day: int) -> list["DataFile"]:
    return [task.file for task in table.scan().plan_files() if task.file.partition[0] == day]


def _rewrite(table: "Table", day: int, files: list["DataFile"]) -> "DataFile":
    wanted = file_schema(table.schema(), [field.name for field in table.schema().fields])
    parts = _parts(table, files, wanted)
    first = next(parts)
    compacted = write_day(table, day, _chain(first, parts), dictionary_columns(first))
    path = local_path(compacted.file_path)
    if path:
        sync_all([path])
    return compacted


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _parts(table: "Table", files: list["DataFile"], wanted: pa.Schema) -> Iterator[pa.Table]:
    """The rows of the files in bounded parts of the table's present schema."""
    for file in files:
        with table.io.new_input(file.file_path).open() as stream, pq.ParquetFile(stream) as parquet:
            for batch in parquet.iter_batches(PART_ROWS):
                part = pa.Table.from_batches([batch])
                for field in wanted:
                    if field.name not in part.column_names:
                        part = part.append_column(field.name, pa.nulls(len(part), field.type))
                yield part.select(wanted.names).cast(wanted)


def _replace(table: "Table", day: int, old: list["DataFile"], new: "DataFile") -> bool:
    """Swap files in one commit; False when one of the old files is no longer part of the table."""
    from pyiceberg.exceptions import CommitFailedException

    for _ in range(ATTEMPTS):
        live = {file.file_path for file in _files_of(table.refresh(), day)}
        if not live.issuperset(file.file_path for file in old):
            return False
        transaction = table.transaction()
        with transaction.update_snapshot().overwrite() as overwrite:
            for file in old:
                overwrite.delete_data_file(file)
            overwrite.append_data_file(new)
        # A drain that committed meanwhile moved the table on; the swap is made again on top of it.
        with contextlib.suppress(CommitFailedException):
            transaction.commit_transaction()
            return True
    return False
