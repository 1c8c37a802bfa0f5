"""Replacing one partition of a table as a whole: readers see the old rows or the new ones, and nothing else."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from recsys_data.durable import local_path, sync_all
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.parquet import dictionary_columns, file_schema, write_day

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table


def files_of(table: "Table", partition: int | bool) -> list[tuple[str, "DataFile"]]:
    """The data files of a partition in the table's loaded snapshot, with their paths."""
    found = [task.file for task in table.scan().plan_files() if task.file.partition[0] == partition]
    return [(str(local_path(file.file_path) or file.file_path), file) for file in found]


def publish(table: "Table", partition: int, rows: "pa.RecordBatchReader") -> int:
    """Replace a partition by these rows in one commit; returns how many there are.

    The rows are streamed to one file, a batch at a time, which is on the disk before it is referred to.

    Raises:
        Transient: the catalog cannot be written now, or others keep committing to the table.
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

    def replace(table: "Table") -> Change | bool:
        old = [file for _, file in files_of(table, partition)]
        same = {file.file_path for file in old} == {file.file_path for file in files}
        return same or Change(old, files)

    compare_and_set(table.refresh(), replace)
    return sum(file.record_count for file in files)


def _fitted(table: "Table", rows: "pa.RecordBatchReader") -> "Iterator[pa.Table]":
    import pyarrow as pa

    wanted = file_schema(table.schema(), [field.name for field in table.schema().fields])
    for batch in rows:
        if len(batch):
            yield pa.Table.from_batches([batch]).select(wanted.names).cast(wanted)
