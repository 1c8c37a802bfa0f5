"""Compaction by Spark, and what a table refers to as Spark reads it.

Data flow: a fork of the table in the catalog -> Iceberg's `rewrite_data_files` on some days of the fork -> its new data
files, which the table gets in one commit of the project's own -> the fork is dropped.
Spark may take minutes, while consumers commit to the table every second, and no commit to a table of the lake may be
made again on another head without a look at what it is based on. Nobody else commits to a fork. See
docs/decisions/0018-spark.md.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from recsys_data.days import date_of
from recsys_data.durable import local_path, sync_all
from recsys_data.errors import Permanent
from recsys_data.settings import Settings
from recsys_data.sql import literal
from recsys_data.storage.iceberg.catalog import NAME
from recsys_data.storage.integrity import names_corrupt_file
from recsys_data.storage.maintenance.engine import LARGE_BYTES, Rewritten, small_files
from recsys_data.storage.parquet import bounded_columns, described
from recsys_data.storage.spark.session import explained, spark_session
from recsys_data.storage.tables import event_time

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyspark.sql import Row

# The namespace of forks.
FORKS = "recsys_compaction"
FORK_SECONDS = 86_400
OPTIONS = {
    "min-input-files": 2,
    "min-file-size-bytes": LARGE_BYTES,
    "target-file-size-bytes": 2 * LARGE_BYTES,
    "max-file-size-bytes": 4 * LARGE_BYTES,
}
# What the snapshots of a table refer to.
REFERENCES = """SELECT DISTINCT location FROM (
    SELECT file_path AS location FROM {table}.all_files
    UNION ALL SELECT path FROM {table}.all_manifests
    UNION ALL SELECT manifest_list FROM {table}.snapshots)"""


class SparkMaintenance:
    """What maintenance of tables leaves to Spark.

    Args:
        settings: name the engine and the catalog.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def rewrite_days(self, table: "Table", days: Sequence[int]) -> Rewritten:
        """Write the small files of some days (since 1970) again as few; they are synced, but not part of the table yet.

        Raises:
            UserError, Transient: as `spark_session`; or Spark failed.
            Permanent: the new files have fewer or more rows.
        """
        small = {day: files for day, files in small_files(table, days).items() if len(files) > 1}
        if not small:
            return Rewritten([], [])
        with self._fork(table) as fork:
            column = event_time(table)
            options = ", ".join(f"{literal(name)}, {literal(str(value))}" for name, value in OPTIONS.items())
            self._rows(
                f"CALL {NAME}.system.rewrite_data_files(table => {literal('.'.join((NAME, *fork)))}, "
                f"where => {literal(' OR '.join(_within(column, day) for day in small))}, options => map({options}))"
            )
            after = _files(table.catalog.load_table(fork))
        before = _files(table)
        old = [file for path, file in before.items() if path not in after]
        new = [_described(table, file) for path, file in after.items() if path not in before]
        rows, written = (sum(file.record_count for file in files) for files in (old, new))
        if rows != written:
            raise Permanent(f"Spark wrote {rows} rows of {'.'.join(table.name())} as {written}; nothing was changed.")
        sync_all(path for file in new if (path := local_path(file.file_path)))
        return Rewritten(old, new)

    def references(self, table: "Table") -> Iterator[str]:
        """Everything that the current metadata, any of its snapshots or its log of earlier metadata refers to."""
        yield table.metadata_location
        yield from (entry.metadata_file for entry in table.metadata.metadata_log)
        yield from (file.statistics_path for file in table.metadata.statistics)
        yield from (file.statistics_path for file in table.metadata.partition_statistics)
        yield from (row[0] for row in self._rows(REFERENCES.format(table=f"{NAME}.{'.'.join(table.name())}")))

    def _rows(self, statement: str) -> "list[Row]":
        """Run one statement of SQL."""
        session = spark_session(self._settings)
        with explained(self._settings):
            return session.sql(statement).collect()

    @contextlib.contextmanager
    def _fork(self, table: "Table") -> Iterator[tuple[str, str]]:
        """A table with the loaded metadata of another, which nobody else knows; yields its name."""
        from pyiceberg.serializers import ToOutputFile

        catalog, prefix = table.catalog, f"{table.name()[-1]}_"
        catalog.create_namespace_if_not_exists(FORKS)
        for _, name in catalog.list_tables(FORKS):
            began = name.removeprefix(prefix).partition("_")[0]
            # Of a process that was killed.
            if name.startswith(prefix) and began.isdecimal() and int(began) < time.time() - FORK_SECONDS:
                catalog.drop_table((FORKS, name))
        unique = uuid.uuid4()
        fork = (FORKS, f"{prefix}{int(time.time())}_{unique.hex}")
        # Commits to the table remove its metadata file after a while; those to the fork are to remove none of it.
        location = f"{table.location()}/metadata/00000-{unique}.metadata.json"
        ToOutputFile.table_metadata(
            table.metadata.model_copy(update={"metadata_log": []}), table.io.new_output(location)
        )
        catalog.register_table(fork, location)
        try:
            yield fork
        finally:
            # Its data files stay: the table has them soon, or they are orphans.
            catalog.drop_table(fork)


def _within(column: str, day: int) -> str:
    begins, ends = date_of(day), date_of(day + 1)
    return f"({column} >= TIMESTAMP '{begins} 00:00:00 UTC' AND {column} < TIMESTAMP '{ends} 00:00:00 UTC')"


@names_corrupt_file
def _files(table: "Table") -> "dict[str, DataFile]":
    return {task.file.file_path: task.file for task in table.scan().plan_files()}


def _described(table: "Table", file: "DataFile") -> "DataFile":
    """A file of Spark's as the project describes its own: with the bounds that readers use."""
    wanted = bounded_columns(table, file.partition[0])
    bounded = {field.field_id for field in table.schema().fields if field.name in wanted}
    lower, upper = (
        {number: value for number, value in (bounds or {}).items() if number in bounded}
        for bounds in (file.lower_bounds, file.upper_bounds)
    )
    size, nulls = file.file_size_in_bytes, file.null_value_counts or {}
    return described(table, file.file_path, file.partition[0], file.record_count, size, nulls, lower, upper)
