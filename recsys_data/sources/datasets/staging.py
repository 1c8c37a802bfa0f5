"""Rows in any order -> lines in event-time order, in bounded memory.

Data flow: Arrow batches -> a DuckDB table that spills to the temporary folder (`TMPDIR`) -> sorted lines.
Everything is read before the first line is handed out: a file that turns out to be damaged loads nothing.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa

from recsys_data.errors import Transient
from recsys_data.sources.datasets import Import

BATCH_LINES = 10_000
MAX_THREADS = 4


class Staging:
    """Collects rows, numbered as they come, and hands them out by their time.

    The table has the columns `happened` (BIGINT, microseconds since 1970 UTC; null where the time cannot be
    read), `ordinal` (BIGINT), `line` (BLOB), and those that the importer adds.
    """

    def __init__(self, columns: str = "", memory: str = "512MB") -> None:
        """Make the table.

        Args:
            columns: SQL of further columns.
            memory: what DuckDB may hold before it spills.
        """
        self._folder = Path(tempfile.gettempdir()) / f"recsys-data-{uuid4().hex}"
        # DuckDB makes the folder when it first spills, and removes it with the last reference to the session.
        # Each thread takes its share of the memory, so that many of them would not get along with little.
        self._session = duckdb.connect(
            config={
                "temp_directory": str(self._folder),
                "memory_limit": memory,
                "threads": min(MAX_THREADS, os.cpu_count() or 1),
                "preserve_insertion_order": False,
            }
        )
        extra = f", {columns}" if columns else ""
        self._session.execute(f"CREATE TABLE staged (happened BIGINT, ordinal BIGINT, line BLOB{extra})")
        self._total = 0

    def add(self, rows: pa.RecordBatch, select: str) -> None:
        """Append rows.

        Args:
            rows: a batch of any columns.
            select: SQL that makes columns of the table from those of `rows`.
        """
        ordinals = pa.array(np.arange(self._total, self._total + rows.num_rows))
        self._session.register("rows", rows.append_column("ordinal", ordinals))
        with self._room():
            self._session.execute(f"INSERT INTO staged BY NAME SELECT ordinal, {select} FROM rows")
        self._session.unregister("rows")
        self._total += rows.num_rows

    def add_lines(self, lines: Sequence[bytes], happened: Sequence[int | None] | None = None) -> None:
        """Append finished lines; without a time they come first."""
        times = pa.array(happened or [None] * len(lines), pa.int64())
        self.add(pa.record_batch({"happened": times, "line": pa.array(lines, pa.binary())}), "happened, line")

    def load(self, line: str = "line") -> Import:
        """Everything in event-time order; what happened at once, or at no time, in the order it came.

        Args:
            line: SQL of the line, a BLOB, from the columns of the table.
        """
        return Import(self._total, self._lines(line))

    def _lines(self, line: str) -> Iterator[list[bytes]]:
        with self._room():
            reader = self._session.sql(
                f"SELECT {line} AS line FROM staged ORDER BY happened NULLS FIRST, ordinal"
            ).to_arrow_reader(BATCH_LINES)
            for batch in reader:
                yield batch.column("line").to_pylist()

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            found = str(error).splitlines()[0]
            raise Transient(
                f"There is no room to sort: {found}. Free space in {self._folder.parent}, or set TMPDIR to a "
                "folder with more, and load again."
            ) from None
