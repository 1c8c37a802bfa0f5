"""Rows -> Parquet files, one per UTC day, on the disk before anybody refers to them.

The files are written with pyarrow and described to Iceberg here, because PyIceberg's own append costs twice
the time where late events spread over many days.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys_data.lake.files import local_path, sync_all

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

MICROSECONDS_PER_DAY = 86_400_000_000
# Bounds in the manifests let readers skip files: by time, and by log position after a restart.
BOUNDED = ("log_partition", "log_offset")
SAMPLE_ROWS = 1000
# Below this share of distinct values a dictionary makes a column smaller and no slower.
DICTIONARY_SHARE = 0.5


def days_of(moments: pa.ChunkedArray) -> np.ndarray:
    """UTC days since 1970 of a timestamp column; int32, shape (rows,)."""
    return (moments.cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY).astype(np.int32)


def write_days(table: "Table", rows: pa.Table, pool: ThreadPoolExecutor | None = None) -> list["DataFile"]:
    """Write rows to one new Parquet file per day and sync them; they are not part of the table yet.

    Args:
        table: where the files will be appended.
        rows: columns by the names of the table's schema; columns that it has beyond them are left empty.
        pool: writes days side by side where there are many.
    """
    if len(rows) == 0:
        return []
    schema = table.schema()
    time = schema.find_column_name(table.spec().fields[0].source_id) or ""
    rows = rows.cast(_file_schema(schema, rows.column_names))
    days = days_of(rows[time])
    present, counts = np.unique(days, return_counts=True)
    if len(present) > 1:
        rows = rows.take(pa.array(np.argsort(days, kind="stable")))
    dictionary = _dictionary_columns(rows)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    parts = [
        (table, int(day), rows.slice(int(start), int(count)), dictionary, time)
        for day, start, count in zip(present, starts, counts, strict=True)
    ]
    run = pool.map if pool and len(parts) > 1 else map
    files = list(run(_write_day, *zip(*parts, strict=True)))
    sync_all(path for path in (local_path(file.file_path) for file in files) if path)
    return files


def _file_schema(schema: "Schema", names: list[str]) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    stored = schema_to_pyarrow(schema, include_field_ids=True)
    return pa.schema([stored.field(name) for name in names])


def _dictionary_columns(rows: pa.Table) -> list[str]:
    sample = rows.slice(0, SAMPLE_ROWS)
    return [
        name
        for name in sample.column_names
        if pa.types.is_string(sample.schema.field(name).type) or pa.types.is_large_string(sample.schema.field(name).type)
        if pc.count_distinct(sample[name]).as_py() < DICTIONARY_SHARE * len(sample)
    ]


def _write_day(table: "Table", day: int, rows: pa.Table, dictionary: list[str], time: str) -> "DataFile":
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    date = np.datetime64(day, "D")
    location = f"{table.location()}/data/{table.spec().fields[0].name}={date}/{uuid.uuid4()}.parquet"
    output = table.io.new_output(location)
    path = local_path(location)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        target, size = path, lambda: path.stat().st_size
    else:
        target, size = output.create(), lambda: len(output)
    pq.write_table(
        rows,
        target,
        compression="zstd",
        compression_level=1,
        use_dictionary=dictionary,
        write_statistics=[time, *(name for name in BOUNDED if name in rows.column_names)],
    )
    ids = {field.name: field.field_id for field in table.schema().fields}
    lower, upper = _bounds(table.schema(), rows, [time, *BOUNDED])
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        record_count=len(rows),
        file_size_in_bytes=size(),
        value_counts={ids[name]: len(rows) for name in rows.column_names},
        null_value_counts={ids[name]: rows[name].null_count for name in rows.column_names},
        lower_bounds=lower,
        upper_bounds=upper,
        sort_order_id=None,
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
    )


def _bounds(schema: "Schema", rows: pa.Table, names: list[str]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    from pyiceberg.conversions import to_bytes

    lower, upper = {}, {}
    for name in names:
        if name not in rows.column_names:
            continue
        field = schema.find_field(name)
        extremes = pc.min_max(rows[name].cast(pa.int64())).as_py()
        if extremes["min"] is not None:
            lower[field.field_id] = to_bytes(field.field_type, extremes["min"])
            upper[field.field_id] = to_bytes(field.field_type, extremes["max"])
    return lower, upper
