"""What DuckDB computes is written to a lake, wherever it is."""

import pytest

from recsys_data.sql import open_session
from recsys_data.storage.commit import commit
from recsys_data.storage.duckdb_writer import copy_days, copy_rows
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.query import connect
from recsys_data_tests.storage.conftest import OpenLake

pytestmark = pytest.mark.integration

ROWS = """
    SELECT 'e' || range AS event_id, TIMESTAMPTZ '2026-01-01 12:00:00+00' + to_days((range % 3)::INTEGER) AS event_ts,
           NULL::VARCHAR AS note FROM range({})
"""
DAY = 20454


def test_rows_of_many_days_and_of_one(open_notes: OpenLake) -> None:
    table = open_notes().table("notes")
    with open_session(parallel=True) as connection:
        files = copy_days(connection, ROWS.format(30_000), table)
        one = copy_rows(connection, f"SELECT * FROM ({ROWS.format(300)}) WHERE event_id LIKE 'e3%' LIMIT 5", table, DAY)
        assert copy_rows(connection, f"SELECT * FROM ({ROWS.format(0)})", table, DAY) is None
    assert one is not None
    assert one.record_count == 5
    assert sum(file.record_count for file in files) == 30_000
    assert sorted({file.partition[0] for file in files}) == [DAY, DAY + 1, DAY + 2]
    commit(table, read_ledger(table), Ledger({0: 1}, rows=30_000), files)
    with connect(open_notes(), ["notes"]) as session:
        counts = "event_ts::DATE::VARCHAR AS day, count(*), count(DISTINCT event_id)"
        query = f"SELECT {counts} FROM notes GROUP BY ALL ORDER BY ALL"
        assert session.sql(query).fetchall() == [(f"2026-01-0{day}", 10_000, 10_000) for day in (1, 2, 3)]
    found = {file.location for file in open_notes().io.files_below(table.location()) if ".parquet" in file.location}
    assert {file.file_path for file in files} < found
