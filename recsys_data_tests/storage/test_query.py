"""SQL sees the lake as of now, and nothing beside it."""

from pathlib import Path

import duckdb
import pytest
from pyiceberg.expressions import GreaterThanOrEqual

from recsys_data.storage.guard.read_only import only_query
from recsys_data.storage.query import connect, data_files
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.histories import Histories, moment, things
from recsys_data_tests.support.rows import append, rows


def test_an_empty_table_is_an_empty_view_with_its_columns(open_notes: OpenLake) -> None:
    with connect(open_notes(), ["notes"]) as connection:
        view = connection.sql("SELECT * FROM notes")
        assert (view.columns, view.fetchall()) == (["event_id", "event_ts", "note"], [])
        assert [str(kind) for kind in view.types] == ["VARCHAR", "TIMESTAMP WITH TIME ZONE", "VARCHAR"]


def test_views_are_of_the_moment_they_were_made(open_notes: OpenLake) -> None:
    lake = open_notes()
    append(lake.table("notes"), rows(("a", 0), note=["it's"]), 1)
    with connect(lake, ["notes"]) as connection:
        append(lake.table("notes"), rows(("b", 3)), 2)
        found = connection.sql("SELECT event_id, note, event_ts::VARCHAR FROM notes").fetchall()
        assert found == [("a", "it's", "2026-01-01 00:00:00+00")]
    with connect(lake, ["notes"]) as connection:
        assert connection.sql("SELECT count(*) FROM notes").fetchall() == [(2,)]


STATEMENTS = [
    "SELECT * FROM read_csv('{outside}/secret.csv')",
    "SELECT * FROM '{outside}/secret.csv'",
    "SELECT * FROM read_text('{lake}/../../secret.csv')",
    "SELECT * FROM read_blob('{lake}/catalog.db')",
    "SELECT * FROM glob('{outside}/*')",
    "SELECT * FROM glob('{lake}/*')",
    "COPY (SELECT 1) TO '{outside}/new.csv'",
    "COPY (SELECT 1) TO '{lake}/catalog.db'",
    "COPY (SELECT 1) TO '{lake}/new.csv'",
    "EXPORT DATABASE '{lake}/export'",
    "ATTACH '{lake}/new.db' AS other",
    "ATTACH '{outside}/new.db' AS other",
    "INSTALL httpfs",
    "LOAD sqlite",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "SET allowed_paths = ['{outside}/secret.csv']",
    "SELECT * FROM 'https://example.com/x.csv'",
]


def test_sql_reaches_nothing_but_the_data(open_notes: OpenLake, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    lake = open_notes()
    append(lake.table("notes"), rows(("a", 0)), 1)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    with connect(lake, ["notes"]) as connection:
        for statement in STATEMENTS:
            with pytest.raises(duckdb.Error):
                connection.sql(statement.format(outside=tmp_path, lake=lake.warehouse)).fetchall()
            assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before, statement
        assert connection.sql("SELECT count(*) FROM notes").fetchall() == [(1,)]


def test_only_files_that_may_hold_what_is_asked_for_are_listed(open_notes: OpenLake) -> None:
    table = open_notes().table("notes")
    append(table, rows(("a", 0), ("b", 1), ("c", 2)), 1)
    assert len(data_files(table)) == 3
    later = GreaterThanOrEqual("event_ts", "2026-01-02T12:00:00+00:00")  # pyright: ignore[reportCallIssue]
    assert len(data_files(table, later)) == 1
    assert all(table.io.new_input(path).exists() for path in data_files(table))


AS_OF = [
    ("DATE '2026-01-01'", []),
    ("'2026-01-02'", [("it's", 1)]),
    ("'2026-01-03 01:59:59.999999+02'", [("it's", 1)]),
    ("TIMESTAMPTZ '2026-01-03 02:00+02'", [("it's", 2), ("new", None)]),
    ("now()", [("it's", 2), ("new", None)]),
    ("NULL", []),
]


def test_a_history_has_a_macro_that_gives_the_rows_of_a_moment(tmp_path: Path) -> None:
    lake = Histories(tmp_path, things(tmp_path / "contracts"))
    lake.take(0, [{"id": "it's", "a": 1}])
    lake.take(1, [{"id": "it's", "a": 2}, {"id": "new"}])
    lake.bring()
    names = ["things", "things_history"]
    with connect(lake.open_lake(), names) as connection:
        for at, found in AS_OF:
            query = only_query(f"WITH t AS (SELECT * FROM things_as_of({at})) SELECT id, a FROM t ORDER BY id")
            assert connection.sql(query).fetchall() == found, at
        columns = ["id", "a", "it's b", "tags", "more", "valid_from", "valid_to"]
        assert connection.sql("FROM things_as_of('2026-01-02')").columns == columns
        with pytest.raises(duckdb.ConversionException, match="yesterday"):
            connection.sql("FROM things_as_of('yesterday')").fetchall()
        with pytest.raises(duckdb.CatalogException):
            connection.sql("FROM things_history_as_of('2026-01-02')")
    assert [row[0] for row in lake.as_of(moment(1.5))] == ['"it\'s"']
