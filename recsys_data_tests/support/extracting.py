"""Reading a source the way a snapshot does, and giving its rows as Python values."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_data.contracts.servers import Server
from recsys_data.contracts.types import arrow_type
from recsys_data.sources.casting.arrow import Caster
from recsys_data.sources.extract import extract
from recsys_data.sources.source import ColumnRequest

DAY = date(2026, 1, 2)
Row = dict[str, Any]


def today() -> date:
    return datetime.now(UTC).date()


def wanted(types: dict[str, str], sources: dict[str, str] | None = None) -> list[ColumnRequest]:
    return [ColumnRequest(name, kind, (sources or {}).get(name, name)) for name, kind in types.items()]


def read(
    server: Server, types: dict[str, str], folder: Path, day: date = DAY, sizes: list[int] | None = None
) -> list[Row]:
    """All rows; batches that are not of the contract's types, or too large, fail the test."""
    rows: list[Row] = []
    with extract(server, wanted(types, dict(server.columns)), day, folder, rest_seconds=0) as found:
        names = [*found.columns, "_problems"]
        expected = [*(arrow_type(types[name]) for name in found.columns), pa.list_(pa.string())]
        for batch in found.batches:
            batch.validate(full=True)
            assert batch.schema.names == names
            assert batch.schema.types == expected
            assert batch.num_rows <= 100_000
            if sizes is not None:
                sizes.append(batch.num_rows)
            rows += batch.to_pylist()
    return rows


def cast(array: pa.Array, logical: str) -> tuple[list[Any], list[Any]]:
    """A column of a source as values of a logical type, and what is wrong with each."""
    caster = Caster(wanted({"x": logical}), "server s")
    batches = list(caster.cast(pa.RecordBatch.from_arrays([array], ["x"])))
    caster.close()
    for batch in batches:
        assert batch.schema.types == [arrow_type(logical), pa.list_(pa.string())]
    return [v for b in batches for v in b["x"].to_pylist()], [v for b in batches for v in b["_problems"].to_pylist()]
