"""Rows in any order -> lines in event-time order, in bounded memory.

Data flow: Arrow batches -> a DuckDB table that spills to the temporary folder (`TMPDIR`) -> sorted lines.
Everything is read before the first line is handed out: a file that turns out to be damaged loads nothing.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa

from recsys_data.errors import Transient
from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.landing import State
from recsys_data.sql import open_session

BATCH_LINES = 10_000


class Scratch:
    """A DuckDB session that holds little in memory and spills the rest."""

    def __init__(self, memory_bytes: int = 512_000_000) -> None:
        """Open it.

        Args:
            memory_bytes: what DuckDB may hold before it spills.
        """
        self._folder = Path(tempfile.gettempdir()) / f"recsys-data-{uuid4().hex}"
        # DuckDB makes the folder when it first spills, and removes it with the last reference to the session.
        self._session = open_session(True, memory_bytes, self._folder, preserve_insertion_order=False)

    def run(self, statement: str) -> None:
        with self.room():
            self._session.execute(statement)

    def insert(self, table: str, rows: pa.RecordBatch, select: str) -> None:
        """Append rows to a table.

        Args:
            table: its name.
            rows: a batch of any columns.
            select: SQL that makes columns of the table from those of `rows`.
        """
        self._session.register("rows", rows)
        self.run(f"INSERT INTO {table} BY NAME SELECT {select} FROM rows")
        self._session.unregister("rows")

    def values(self, query: str) -> list[Any]:
        """The first column of the answer, which has to be small."""
        with self.room():
            return [row[0] for row in self._session.sql(query).fetchall()]

    def lines(self, query: str) -> Iterator[list[bytes]]:
        """The column `line`, a BLOB, in batches; several answers may be read at once."""
        with self.room():
            reader = self._session.cursor().sql(query).to_arrow_reader(BATCH_LINES)
            for batch in reader:
                yield batch.column("line").to_pylist()

    @contextmanager
    def room(self) -> Iterator[None]:
        """Explain a full disk."""
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            found = str(error).splitlines()[0]
            raise Transient(
                f"There is no room to sort: {found}. Free space in {self._folder.parent}, or set TMPDIR to a "
                "folder with more, and load again."
            ) from None


class Staging:
    """Collects rows, numbered as they come, and hands them out by their time.

    The table has the columns `happened` (BIGINT, microseconds since 1970 UTC; null where the time cannot be
    read), `ordinal` (BIGINT), `line` (BLOB), and those that the importer adds.
    """

    def __init__(self, columns: str = "", memory_bytes: int = 512_000_000) -> None:
        """Make the table.

        Args:
            columns: SQL of further columns.
            memory_bytes: what DuckDB may hold before it spills.
        """
        self.scratch = Scratch(memory_bytes)
        extra = f", {columns}" if columns else ""
        self.scratch.run(f"CREATE TABLE staged (happened BIGINT, ordinal BIGINT, line BLOB{extra})")
        self._total = 0

    def add(self, rows: pa.RecordBatch, select: str) -> None:
        """Append rows.

        Args:
            rows: a batch of any columns.
            select: SQL that makes columns of the table from those of `rows`.
        """
        ordinals = pa.array(np.arange(self._total, self._total + rows.num_rows))
        self.scratch.insert("staged", rows.append_column("ordinal", ordinals), f"ordinal, {select}")
        self._total += rows.num_rows

    def add_lines(self, lines: Sequence[bytes], happened: Sequence[int | None] | None = None) -> None:
        """Append finished lines; without a time they come first."""
        times = pa.array(happened or [None] * len(lines), pa.int64())
        self.add(pa.record_batch({"happened": times, "line": pa.array(lines, pa.binary())}), "happened, line")

    def newest(self) -> date | None:
        """The UTC day of the last of them, damaged times in the future aside; None where no time can be read."""
        last = "max(happened) FILTER (happened <= epoch_us(now()))"
        return self.scratch.values(f"SELECT make_timestamp({last})::DATE FROM staged")[0]

    def load(self, line: str = "line", states: Sequence[State] = ()) -> Import:
        """Everything in event-time order; what happened at once, or at no time, in the order it came.

        Args:
            line: SQL of the line, a BLOB, from the columns of the table.
            states: what the data set has about users and items.
        """
        query = f"SELECT {line} AS line FROM staged ORDER BY happened NULLS FIRST, ordinal"
        return Import(self._total, self.scratch.lines(query), states)
