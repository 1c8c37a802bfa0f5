"""Replacing one partition of a table as a whole: readers see the old rows or the new ones, and nothing else."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from recsys_data.durable import local_path, sync_all
from recsys_data.errors import Transient
from recsys_data.storage.commit import swap
from recsys_data.storage.parquet import dictionary_columns, file_schema, write_day

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

ATTEMPTS = 20


def files_of(table: "Table", partition: int | bool) -> list[tuple[str, "DataFile"]]:
    """The data files of a partition in the table's loaded snapshot, with their paths."""
    found = [task.file for task in table.scan().plan_files() if task.file.partition[0] == partition]
    return [(str(local_path(file.file_path) or file.file_path), file) for file in found]


def publish(table: "Table", partition: int, rows: "pa.RecordBatchReader") -> int:
    """Replace a partition by these rows in one commit; returns how many there are.

    The rows are streamed to one file, a batch at a time, which is on the disk before it is referred to.

    Raises:
        Transient: others kept committing to the table; nothing was changed.
    """
    parts = _fitted(table, rows)
    first = next(parts, None)
    files: list[DataFile] = []
    if first is not None:

        def all_parts() -> "Iterator[pa.Table]":
            yield first
            yield from parts

        files.append(write_day(table, partition, all_parts(), dictionary_columns(first)))
        sync_all(path for file in files if (path := local_path(file.file_path)))
    _replace(table, partition, files)
    return sum(file.record_count for file in files)


def _fitted(table: "Table", rows: "pa.RecordBatchReader") -> "Iterator[pa.Table]":
    import pyarrow as pa

    wanted = file_schema(table.schema(), [field.name for field in table.schema().fields])
    for batch in rows:
        if len(batch):
            yield pa.Table.from_batches([batch]).select(wanted.names).cast(wanted)


def _replace(table: "Table", partition: int, new: list["DataFile"]) -> None:
    from pyiceberg.exceptions import CommitFailedException
    from sqlalchemy.exc import OperationalError

    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        old = files_of(table.refresh(), partition)
        if not old and not new:
            return
        try:
            swap(table, [file for _, file in old], new, {})
            return
        except (CommitFailedException, OperationalError) as error:
            failure = error
    raise Transient(f"{'.'.join(table.name())} could not be committed in {ATTEMPTS} attempts: {failure}.")
