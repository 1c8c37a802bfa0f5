"""Rows -> Parquet files, one per UTC day, on the disk before anybody refers to them.

The files are written with pyarrow and described to Iceberg here, because PyIceberg's own append costs twice
the time where late events spread over many days.
"""

import contextlib
import itertools
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from recsys_data.days import MICROSECONDS_PER_DAY
from recsys_data.durable import local_path, make_folder, sync_all
from recsys_data.storage.availability import reported
from recsys_data.storage.tables import event_time

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

# Bounds in the manifests let readers skip files: by time, and by log position after a restart.
BOUNDED = ("log_partition", "log_offset", "ingested_at", "valid_from", "valid_to")
SAMPLE_ROWS = 1000
FEW_ROWS = 100
LOCAL = LocalFileSystem()
# Below this share of distinct values a dictionary makes a column smaller and no slower.
DICTIONARY_SHARE = 0.5


class Selection(NamedTuple):
    """Selected rows of a table: those at which the mask (bool, shape (rows,)) is set.

    They are copied once, by day, when they are written.
    """

    table: pa.Table
    mask: npt.NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """The number of selected rows."""
        return int(np.count_nonzero(self.mask))

    @classmethod
    def all(cls, table: pa.Table) -> "Selection":
        """Every row."""
        return cls(table, np.ones(len(table), bool))


def days_of(moments: pa.ChunkedArray) -> np.ndarray:
    """UTC days since 1970 of a timestamp column; int32, shape (rows,)."""
    return (moments.cast(pa.int64()).fill_null(0).to_numpy() // MICROSECONDS_PER_DAY).astype(np.int32)


def write_days(
    table: "Table", selections: Sequence[Selection], pool: ThreadPoolExecutor | None = None
) -> list["DataFile"]:
    """Write rows to one new Parquet file per day and sync them; they are not part of the table yet.

    Args:
        table: where the files will be appended.
        selections: rows with columns by the names of the table's schema; columns that one lacks are left empty.
        pool: picks rows and writes days side by side where there are many.
    """
    run = pool.map if pool else map
    time = event_time(table)
    split = list(run(lambda one: _split(one, time), [one for one in selections if one.rows]))
    pieces = [rows for one in split for rows in (one.rows, one.late)]
    # Columns that are empty throughout are left out; readers take them from the schema.
    filled = {name for rows in pieces for name in rows.column_names if rows[name].null_count < len(rows)}
    schema = table.schema()
    days = _Days(split, file_schema(schema, [name for name in schema.column_names if name in filled]))
    if not days.counts:
        return []
    dictionary = dictionary_columns(days.rows(max(days.counts, key=days.counts.__getitem__)))
    files = list(run(lambda day: write_day(table, day, [_without_empty(days.rows(day))], dictionary), days.counts))
    sync_all(path for path in (local_path(file.file_path) for file in files) if path)
    return files


def _without_empty(rows: pa.Table) -> pa.Table:
    """Few rows without the columns that are empty throughout: a column costs more than a value."""
    if len(rows) > FEW_ROWS:
        return rows
    return rows.select([name for name in rows.column_names if rows[name].null_count < len(rows)])


class _Split(NamedTuple):
    """Rows of one day, and the others with their days; int32, shape (rows,)."""

    day: int
    rows: pa.Table
    late: pa.Table
    days: npt.NDArray[np.int32]


def _split(selection: Selection, time: str) -> _Split:
    """The selected rows: most are of one day, and the few others are copied once more, by day."""
    rows, mask = selection
    days = days_of(rows[time])
    present, counts = np.unique(days[mask], return_counts=True)
    main = int(present[np.argmax(counts)])
    late = mask & (days != main)
    return _Split(main, rows.filter(pa.array(mask & (days == main))), rows.filter(pa.array(late)), days[late])


class _Days:
    """Rows by day, each day's gathered when it is asked for: of thousands the tables alone would take much memory.

    Attributes:
        counts: rows by day, in order.
    """

    def __init__(self, split: Sequence[_Split], schema: pa.Schema) -> None:
        self._schema = schema
        self._main: dict[int, list[pa.Table]] = {}
        for one in split:
            self._main.setdefault(one.day, []).append(one.rows)
        days = np.concatenate([np.zeros(0, np.int32), *(one.days for one in split)])
        order = np.argsort(days, kind="stable")
        late = [schema.empty_table(), *(_fitted(one.late, schema) for one in split)]
        self._late = pa.concat_tables(late).take(pa.array(order))
        present, begins, counts = np.unique(days[order], return_index=True, return_counts=True)
        self._places = {
            int(day): (int(begin), int(count)) for day, begin, count in zip(present, begins, counts, strict=True)
        }
        every = sorted(self._main.keys() | self._places.keys())
        self.counts = {day: sum(map(len, self._main.get(day, ()))) + self._places.get(day, (0, 0))[1] for day in every}

    def rows(self, day: int) -> pa.Table:
        """The rows of one day."""
        main = [_fitted(rows, self._schema) for rows in self._main.get(day, ())]
        return pa.concat_tables([*main, self._late.slice(*self._places.get(day, (0, 0)))])


def _fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with the columns of a schema; those that they lack are empty."""
    given = set(rows.column_names)
    columns = [rows[field.name] if field.name in given else pa.nulls(len(rows), field.type) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def file_schema(schema: "Schema", names: list[str]) -> pa.Schema:
    """The Arrow schema of a data file with these columns, which carries their Iceberg field ids."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    stored = schema_to_pyarrow(schema, include_field_ids=True)
    return pa.schema([stored.field(name) for name in names])


def dictionary_columns(rows: pa.Table) -> list[str]:
    """Columns that repeat themselves, judged by the first rows."""
    sample = rows.slice(0, SAMPLE_ROWS)
    return [
        name
        for name in sample.column_names
        if pa.types.is_string(sample.schema.field(name).type)
        or pa.types.is_large_string(sample.schema.field(name).type)
        if pc.count_distinct(sample[name]).as_py() < DICTIONARY_SHARE * len(sample)
    ]


def write_day(table: "Table", day: int | bool, parts: Iterable[pa.Table], dictionary: list[str]) -> "DataFile":
    """Write rows of one partition, given in parts of one schema, to a new file; it is not synced yet.

    Args:
        table: where the file will be appended.
        day: the partition: days since 1970, or the value of a true-or-false column.
        parts: the rows, at least one part; at most one is in memory at a time.
        dictionary: columns that repeat themselves.
    """
    location = new_location(table, day)
    path = local_path(location)
    parts = iter(parts)
    first = next(parts)
    nulls: Counter[str] = Counter()
    footers: list[pq.FileMetaData] = []
    options: dict[str, Any] = {
        "write_statistics": [name for name in bounded_columns(table, day) if name in first.column_names],
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [name for name in dictionary if name in first.column_names],
        # Nothing else distinguishes flipped bits from values: see `integrity.py`.
        "write_page_checksum": True,
        "metadata_collector": footers,
    }
    if path:
        # Without it pyarrow would look at each path to find out which one it is on.
        options["filesystem"] = LOCAL
    with (
        reported(),
        # Nobody else writes under this name, so that it needs not be looked for.
        contextlib.nullcontext(path) if path else table.io.new_output(location).create(overwrite=True) as target,
    ):
        with pq.ParquetWriter(target, first.schema, **options) as writer:
            for part in itertools.chain([first], parts):
                writer.write_table(part)
                nulls.update({name: part[name].null_count for name in part.column_names})
        size = target.stat().st_size if isinstance(target, Path) else target.tell()
    return from_footer(table, location, day, size, footers[0], nulls)


def new_location(table: "Table", partition: int | bool) -> str:
    """Where a new file of a partition is to be written; a local folder is made."""
    label = str(partition).lower() if isinstance(partition, bool) else np.datetime64(partition, "D")
    location = f"{table.location()}/data/{table.spec().fields[0].name}={label}/{uuid.uuid4()}.parquet"
    path = local_path(location)
    if path is not None:
        make_folder(path.parent.parent)
        # The folder of the partition is synced with its files.
        path.parent.mkdir(exist_ok=True)
    return location


def bounded_columns(table: "Table", partition: int | bool) -> set[str]:
    """The columns whose bounds manifests have."""
    return {*BOUNDED, *(() if isinstance(partition, bool) else [event_time(table)])}


def from_footer(
    table: "Table",
    location: str,
    partition: int | bool,
    size: int,
    footer: pq.FileMetaData,
    nulls: Mapping[str, int] | None = None,
) -> "DataFile":
    """The manifest entry of a file of `size` bytes, by its footer; `nulls` by column, where the footer lacks them."""
    from pyiceberg.conversions import to_bytes

    counts, lower, upper = {}, {}, {}
    columns = {footer.schema.column(index).path: index for index in range(footer.num_columns)}
    bounded = bounded_columns(table, partition)
    for field in table.schema().fields:
        if not field.field_type.is_primitive or field.name not in columns:
            continue
        at = columns[field.name]
        chunks = [footer.row_group(group).column(at).statistics for group in range(footer.num_row_groups)]
        if nulls is not None:
            counts[field.field_id] = nulls[field.name]
        elif all(chunk and chunk.has_null_count for chunk in chunks):
            counts[field.field_id] = sum(chunk.null_count for chunk in chunks)
        ranges = [(one.min_raw, one.max_raw) for one in chunks if one and one.has_min_max]
        if ranges and field.name in bounded:
            lower[field.field_id] = to_bytes(field.field_type, min(low for low, _ in ranges))
            upper[field.field_id] = to_bytes(field.field_type, max(high for _, high in ranges))
    return described(table, location, partition, footer.num_rows, size, counts, lower, upper)


def described(
    table: "Table",
    location: str,
    partition: int | bool,
    rows: int,
    size: int,
    nulls: Mapping[int, int],
    lower: Mapping[int, bytes],
    upper: Mapping[int, bytes],
) -> "DataFile":
    """What a manifest says of a file: rows, bytes, and by field id nulls and bounds."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(partition),
        record_count=rows,
        file_size_in_bytes=size,
        value_counts=dict.fromkeys(nulls, rows),
        null_value_counts=dict(nulls),
        lower_bounds=dict(lower),
        upper_bounds=dict(upper),
        sort_order_id=None,
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
    )
