"""Rows to Parquet files, a split each, whose bytes depend on the rows and nothing else.

Batches from DuckDB differ in size with its threads, so that rows are gathered into row groups of one size first.
"""

from collections.abc import Collection, Iterator, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.durable import sync_all
from recsys_data.training.sets.manifest import File

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

GROUP_ROWS = 100_000
BATCH_ROWS = 100_000
DIGITS = 6
SPLIT, LABEL, ID = "#split", "label", "event_id"
# Columns of the spine that feature views cannot name -> those of the files.
NAMED = {"#label": LABEL, "#type": "label_type", "#negative": "negative"}


class _Files:
    """The files of a set while they are written."""

    def __init__(self, folder: Path, schema: "pa.Schema") -> None:
        self.folder, self.schema = folder, schema
        self.parts: dict[str, _Part] = {}

    def add(self, split: str, rows: "pa.Table") -> None:
        """Append rows to the file of a split."""
        if split not in self.parts:
            self.parts[split] = _Part(self.folder / f"{split}.parquet", self.schema)
        self.parts[split].add(rows)

    def finish(self) -> dict[str, File]:
        """Close and sync all files; returns what is in each by name."""
        for part in self.parts.values():
            part.close()
        sync_all(part.path for part in self.parts.values())
        return {part.path.name: part.described() for _, part in sorted(self.parts.items())}


class _Part:
    def __init__(self, path: Path, schema: "pa.Schema") -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.writer: pq.ParquetWriter = pq.ParquetWriter(path, schema, compression="zstd")
        self.waiting: list[pa.Table] = []
        self.size = self.rows = self.positives = 0
        self.ids = sha256()

    def add(self, rows: "pa.Table") -> None:
        import pyarrow.compute as pc

        self.rows += len(rows)
        self.positives += pc.sum(pc.greater(rows[LABEL], 0)).as_py() or 0
        self.waiting.append(rows)
        self.size += len(rows)
        while self.size >= GROUP_ROWS:
            self._write(GROUP_ROWS)

    def _write(self, count: int) -> None:
        import pyarrow as pa

        # In one chunk: the borders of chunks would be borders of pages.
        whole = pa.concat_tables(self.waiting)
        group = whole.slice(0, count).combine_chunks()
        self.writer.write_table(group, row_group_size=count)
        self.ids.update("\n".join(map(str, group[ID].to_pylist())).encode() + b"\n")
        self.waiting = [whole.slice(count)]
        self.size -= count

    def close(self) -> None:
        if self.size:
            self._write(self.size)
        self.writer.close()

    def described(self) -> File:
        with self.path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        return File(self.rows, self.positives, self.path.stat().st_size, digest)


def write_rows(
    rows: "duckdb.DuckDBPyRelation", folder: Path, rounded: Collection[str] = (), beside: Sequence[Path] = ()
) -> tuple[dict[str, File], dict[str, int], str]:
    """Write rows, in their order, to a file for each value of their column `#split`.

    Args:
        rows: with `#split`, `event_id`, and columns for labels whose names begin with `#`.
        folder: where.
        rounded: columns of doubles of which DIGITS digits are kept.
        beside: Parquet files with further columns of the same rows in the same order, which come first.

    Returns:
        The files by name; rows by split, those without one under `gap`; the SHA-256 of the ids of the test rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    reader = rows.to_arrow_reader(BATCH_ROWS)
    types: dict[str, pa.DataType] = {}
    further = []
    for path in beside:
        further.append(_Beside(path, types.keys()))
        types |= further[-1].types
    types |= {field.name: field.type for field in reader.schema}
    columns = {name: NAMED.get(name, name) for name in types if name in NAMED or not name.startswith("#")}
    schema = pa.schema([(named, types[name]) for name, named in columns.items()])
    written = _Files(folder, schema)
    counts: dict[str, int] = {"train": 0, "validation": 0, "test": 0, "gap": 0}
    for batch in reader:
        of = batch.column(SPLIT)
        given = dict(zip(batch.schema.names, batch.columns, strict=True))
        for one in further:
            given |= one.next(len(batch))
        values = pa.table([_rounded(given[name], name in rounded) for name in columns], schema=schema)
        for split in pc.unique(of).to_pylist():
            part = values.filter(pc.is_null(of) if split is None else pc.equal(of, split))
            counts[split or "gap"] += len(part)
            if split:
                written.add(split, part)
    files = written.finish()
    test = written.parts.get("test")
    return files, counts, test.ids.hexdigest() if test else ""


class _Beside:
    """The columns of a file, as many rows at a time as are asked for.

    Args:
        path: of the file.
        without: columns that are not read.
    """

    def __init__(self, path: Path, without: Collection[str]) -> None:
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        self.types = {field.name: field.type for field in file.schema_arrow if field.name not in without}
        self._batches: Iterator[pa.RecordBatch] = file.iter_batches(BATCH_ROWS, columns=list(self.types))
        self._left = file.schema_arrow.empty_table().select(list(self.types))

    def next(self, count: int) -> "dict[str, pa.ChunkedArray]":
        """The columns of the next `count` rows by name."""
        import pyarrow as pa

        while len(self._left) < count:
            self._left = pa.concat_tables([self._left, pa.Table.from_batches([next(self._batches)])])
        found, self._left = self._left.slice(0, count), self._left.slice(count)
        return dict(zip(found.column_names, found.columns, strict=True))


def _rounded(values: "pa.Array", wanted: bool) -> "pa.Array":
    """Doubles to DIGITS significant digits; anything else as it is."""
    import numpy as np
    import pyarrow as pa

    if not wanted or not pa.types.is_floating(values.type):
        return values
    given = values.to_numpy(zero_copy_only=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(given))))
        short = np.where((given == 0) | ~np.isfinite(given * scale), given, np.round(given * scale) / scale)
    return pa.array(short, mask=np.asarray(values.is_null()))
