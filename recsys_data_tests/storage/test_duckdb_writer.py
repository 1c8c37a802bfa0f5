"""What DuckDB writes is a data file like any other: described to those who skip files, readable by column id."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import GreaterThan

from recsys_data.durable import local_path
from recsys_data.storage.duckdb_writer import copy_rows
from recsys_data_tests.support.histories import Histories, moment, things

ROWS = """SELECT id, 7::BIGINT AS a, NULL::VARCHAR AS "it's b", ['p', NULL] AS tags, MAP {'k': 'v'} AS more,
    TIMESTAMPTZ '2026-01-02' + to_days(day::INTEGER) AS valid_from,
    CASE WHEN day < 9 THEN TIMESTAMPTZ '2026-01-03' + to_days(day::INTEGER) END AS valid_to, []::VARCHAR[] AS changed,
    false AS is_current FROM (VALUES ('x', 0), ('y', 1), ('z', 9)) t(id, day)"""


@pytest.fixture
def lake(tmp_path: Path) -> Histories:
    return Histories(tmp_path, things(tmp_path / "contracts"))


@pytest.fixture
def connection() -> Any:
    with duckdb.connect() as made:
        made.execute("SET TimeZone = 'UTC'")
        yield made


def test_a_file_is_described_by_rows_nulls_and_bounds(lake: Histories, connection: duckdb.DuckDBPyConnection) -> None:
    table = lake.lake.table("things_history")
    file = copy_rows(connection, ROWS, table, partition=False)
    assert file
    schema = table.schema()
    path = local_path(file.file_path)
    assert path
    assert (file.record_count, file.file_size_in_bytes, file.partition[0]) == (3, path.stat().st_size, False)
    nulls = {schema.find_column_name(number): count for number, count in file.null_value_counts.items()}
    assert nulls == {"id": 0, "a": 0, "it's b": 3, "valid_from": 0, "valid_to": 1, "is_current": 0}

    def days(bounds: dict[int, bytes]) -> dict[str | None, float]:
        found = {schema.find_field(number): value for number, value in bounds.items()}
        start = moment(0).timestamp() * 1_000_000
        return {f.name: (int(from_bytes(f.field_type, v)) - start) / 86_400_000_000 for f, v in found.items()}

    assert days(file.lower_bounds) == {"valid_from": 1, "valid_to": 2}
    assert days(file.upper_bounds) == {"valid_from": 10, "valid_to": 3}
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        append.append_data_file(file)
    assert len(list(table.scan().plan_files())) == 1
    later = GreaterThan("valid_to", "2026-01-05T00:00:00+00:00")  # pyright: ignore[reportCallIssue]
    assert len(list(table.scan(later).plan_files())) == 0


def test_columns_and_what_they_hold_carry_their_ids(lake: Histories, connection: duckdb.DuckDBPyConnection) -> None:
    table = lake.lake.table("things_history")
    file = copy_rows(connection, ROWS, table, partition=False)
    assert file
    path = local_path(file.file_path)
    assert path
    stored = pq.read_schema(path)
    for name in table.schema().column_names:
        top, *inner = name.split(".")
        field = stored.field(top)
        if inner:
            kind = field.type
            field = (
                kind.value_field
                if inner[0] == "element"
                else getattr(kind, f"{inner[0].replace('value', 'item')}_field")
            )
        number = (field.metadata or {}).get(b"PARQUET:field_id", b"").decode()
        assert number == str(table.schema().find_field(name).field_id), name


def test_no_rows_are_no_file(lake: Histories, connection: duckdb.DuckDBPyConnection) -> None:
    table = lake.lake.table("things_history")
    assert copy_rows(connection, f"{ROWS} WHERE false", table, partition=False) is None
    assert list(lake.settings.lake_dir.rglob("*.parquet")) == []
