import csv
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from recsys_data.cli.support.rows import distinct, readable
from recsys_data.cli.support.terminal import visible
from recsys_data.contracts import load_contracts
from recsys_data.errors import UserError
from recsys_data.settings import Settings
from recsys_data.storage.guard.read_only import only_query
from recsys_data.storage.tables import open_lake

Run = Callable[..., Result]

LINES = [
    b'{"event_id":"1","type":"view","user_id":"u1","item_id":"i1","event_ts":"2026-01-02T03:04:05.5Z"}',
    b'{"event_id":"2","type":"purchase","user_id":"u2","item_id":"i1","event_ts":"2026-01-03T00:00:00Z","value":9.5}',
    b'{"event_id":"3","type":"view","user_id":"caf\xff","item_id":"i1","event_ts":"2026-01-03T00:00:00Z"}',
]


@pytest.fixture
def fed(run: Run, tmp_path: Path) -> Run:
    """Commands on a lake with two interactions and a dead letter."""
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"\n".join(LINES))
    run("load", "events", str(events))
    run("ingest", "--until-empty")
    return run


def test_a_table_shows_columns_rows_and_their_number(fed: Run) -> None:
    lines = fed("sql", "SELECT event_id, value FROM interactions ORDER BY 1").stdout.splitlines()
    assert lines[0].split() == ["event_id", "value"]
    assert [line.split() for line in lines[2:4]] == [["1"], ["2", "9.5"]]
    assert lines[-1] == "2 rows"


def test_csv_holds_every_row_with_empty_fields_for_null(fed: Run) -> None:
    text = fed("sql", "SELECT event_id, event_ts, value FROM interactions ORDER BY 1", "--format", "csv").stdout
    assert list(csv.reader(io.StringIO(text))) == [
        ["event_id", "event_ts", "value"],
        ["1", "2026-01-02T03:04:05.500000Z", ""],
        ["2", "2026-01-03T00:00:00Z", "9.5"],
    ]


def test_json_is_a_list_of_objects(fed: Run) -> None:
    text = fed("sql", "SELECT event_id, event_ts, value FROM interactions ORDER BY 1", "--format", "json").stdout
    assert json.loads(text) == [
        {"event_id": "1", "event_ts": "2026-01-02T03:04:05.500000Z", "value": None},
        {"event_id": "2", "event_ts": "2026-01-03T00:00:00Z", "value": 9.5},
    ]


def test_json_has_a_form_for_every_type(run: Run) -> None:
    query = """
        SELECT 'nan'::DOUBLE AS nan, 'inf'::FLOAT AS inf, 1.50::DECIMAL(9, 2) AS money, sum(7) AS huge, true AS yes,
               DATE '2026-01-02' AS day, TIME '10:00:00' AS hour, INTERVAL 90 SECOND AS span, [1, NULL] AS list,
               {'raw': 'a\\xFF'::BLOB} AS struct, TIMESTAMP '2026-01-02 03:04:05' AS local, NULL AS none, 1 AS yes
    """
    text = run("sql", query, "--format", "json").stdout
    assert '"money":1.50' in text
    assert json.loads(text) == [
        {
            "nan": None,
            "inf": None,
            "money": 1.5,
            "huge": 7,
            "yes": True,
            "day": "2026-01-02",
            "hour": "10:00:00",
            "span": "00:01:30",
            "list": [1, None],
            "struct": {"raw": "a\\xff"},
            "local": "2026-01-02T03:04:05",
            "none": None,
            "yes_1": 1,
        }
    ]


def test_a_dead_letter_is_readable_text(fed: Run) -> None:
    rows = json.loads(fed("sql", "SELECT reason, raw FROM dead_letters", "--format", "json").stdout)
    assert rows[0]["reason"] == "invalid_utf8"
    assert '"user_id":"caf\\xff"' in rows[0]["raw"]


@pytest.mark.parametrize(("form", "expected"), [("csv", "event_id\n"), ("json", "[]\n")])
def test_no_rows_are_a_valid_answer(run: Run, form: str, expected: str) -> None:
    assert run("sql", "SELECT event_id FROM interactions", "--format", form).stdout == expected


def test_datasets_that_were_never_fed_are_empty_and_stay_so(run: Run, settings: Settings) -> None:
    assert json.loads(run("sql", "SELECT count(*) AS n FROM contexts", "--format", "json").stdout) == [{"n": 0}]
    assert not list(settings.lake_dir.rglob("*.parquet")) + list(settings.lake_dir.rglob("*.metadata.json"))


def test_many_rows_are_all_counted_and_the_first_shown(run: Run) -> None:
    lines = run("sql", "SELECT * FROM range(12345)").stdout.splitlines()
    assert lines[-1] == "12,345 rows; the first 100 are shown, --format csv gives all"
    assert len(lines) == 2 + 100 + 1
    assert run("sql", "SELECT * FROM range(12345)", "--format", "csv").stdout.count("\n") == 12346


def test_the_query_may_come_from_stdin_and_begin_with_a_comment(run: Run) -> None:
    assert run("sql", "-", "--format", "csv", stdin="-- one\nSELECT 1 AS a").stdout == "a\n1\n"
    assert run("sql", "-- one\nSELECT 1 AS a", "--format", "csv").stdout == "a\n1\n"


QUERIES = [
    "SHOW TABLES",
    "DESCRIBE interactions",
    "SUMMARIZE SELECT value FROM interactions",
    "FROM interactions",
    "VALUES (1), (2)",
    "SELECT 1 UNION ALL SELECT 2 ORDER BY 1;",
    "WITH a AS (SELECT 1) FROM a",
    "WITH RECURSIVE a(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM a WHERE i < 3) FROM a",
    "EXPLAIN SELECT 1",
    "/* why */ explain analyze SELECT count(*) FROM interactions",
    "EXPLAIN (FORMAT json) SELECT 1",
    "PIVOT interactions ON type IN ('view') USING count(*) GROUP BY source",
]


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_answered(run: Run, query: str) -> None:
    run("sql", query)


FORBIDDEN = [
    "DELETE FROM interactions",
    "INSERT INTO interactions SELECT * FROM interactions",
    "CREATE TABLE x AS SELECT 1",
    "COPY (SELECT 1) TO '{0}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{0}'",
    "EXPLAIN ANALYZE /* ( */ COPY (SELECT 1) TO '{0}'",
    "WITH a AS (COPY (SELECT 1) TO '{0}') SELECT 1",
    "SELECT * FROM (WITH a AS (COPY (SELECT 1) TO '{0}') SELECT 1)",
    "EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1) TO '{0}') SELECT 1",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{0}''')",
    "ATTACH '{0}' AS other",
    "SET threads = 1",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "EXPORT DATABASE '{0}'",
    "BEGIN",
    "PIVOT interactions ON type USING count(*)",
]


def test_what_is_no_query_is_refused_and_writes_nothing(fed: Run, settings: Settings) -> None:
    before = sorted(settings.data_dir.rglob("*"))
    place = settings.lake_dir / "new.csv"
    data_file = next(settings.lake_dir.rglob("*.parquet"))
    content = data_file.read_bytes()
    for query in FORBIDDEN:
        assert fed("sql", query.format(place), code=1).stderr.startswith("Error: "), query
        if "{0}" in query:
            fed("sql", query.format(data_file), code=1)
        assert data_file.read_bytes() == content, query
        assert sorted(settings.data_dir.rglob("*")) == before, query


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1; SELECT 2", "Found 2 SQL statements"),
        ("  ", "Found 0 SQL statements"),
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM interactions", '"nope" not found'),
        ("SELECT * FROM interaction", "Datasets: contexts, dead_letters, identities, interactions, item_attributes"),
        ("SELECT * FROM read_text('/etc/hostname')", "the function read_text reads files"),
        ("SELECT 'a'::INT", "Could not convert"),
        ("SELECT 'infinity'::TIMESTAMPTZ AS ever", "Column ever has a value that cannot be shown"),
    ],
)
def test_mistakes_are_explained(run: Run, query: str, said: str) -> None:
    assert said in run("sql", query, code=1).stderr


@pytest.mark.parametrize(
    "query",
    [
        # Comments of DuckDB nest, and one of a line ends at a carriage return.
        "EXPLAIN /* /* */ SELECT '*/ ANALYZE COPY (SELECT 1) TO \"{0}\" --'",
        "-- \rEXPLAIN ANALYZE COPY (SELECT 1) TO '{0}' /*\nEXPLAIN SELECT 1 --*/",
    ],
)
def test_what_follows_explain_is_run_as_it_was_checked(query: str, tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(only_query(query.format(tmp_path / "written")))
    assert not list(tmp_path.iterdir())


def test_a_query_in_brackets_is_not_taken_for_options_of_explain() -> None:
    with pytest.raises(UserError, match="DuckDB's own"):
        only_query("EXPLAIN ANALYZE (FROM duckdb_views)")


words = st.sampled_from(
    [
        "SELECT 1",
        "COPY (SELECT 1) TO 'x'",
        "WITH a AS (",
        ")",
        "EXPLAIN ",
        "ANALYZE ",
        "/*",
        "*/",
        "--",
        "\n",
        "\r",
        "(",
    ]
    + ["'", " "]
)


# Its parser takes a while for deeply nested beginnings.
@hypothesis.settings(deadline=None, max_examples=30)
@given(st.lists(words, max_size=6).map("".join))
def test_no_mixture_of_words_lets_a_copy_through(text: str) -> None:
    import duckdb

    try:
        query = only_query(text)
    except (UserError, duckdb.Error):
        return
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        # Outside of comments a COPY would be run, and refused for want of access.
        connection.execute(query)


@given(st.lists(st.sampled_from(["a", "b", "a_1", "a_2", ""]), max_size=8))
def test_columns_of_one_name_stay_apart(names: list[str]) -> None:
    found = distinct(names)
    assert len(set(found)) == len(names)
    assert all(one == name or one.startswith(f"{name}_") for one, name in zip(found, names, strict=True))


@given(st.binary())
def test_bytes_become_text_without_loss(value: bytes) -> None:
    text: Any = readable(value)
    assert text == value.decode("utf-8", "backslashreplace")


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    shown = visible(text)
    assert shown.replace("\n", "").isprintable() or not any(
        ord(c) < 32 or ord(c) == 127 for c in shown.replace("\n", "")
    )


def test_every_dataset_is_seen_as_of_a_time_or_a_snapshot(fed: Run, settings: Settings, tmp_path: Path) -> None:
    time.sleep(0.005)
    between = datetime.now(UTC).isoformat()
    time.sleep(0.005)
    more = tmp_path / "more.ndjson"
    more.write_bytes(LINES[0].replace(b'"1"', b'"4"'))
    fed("load", "events", str(more))
    fed("ingest", "--until-empty")
    query = "SELECT count(*) AS n, (SELECT count(*) FROM dead_letters) AS dead FROM interactions"

    def counted(*options: str) -> str:
        return fed("sql", query, "--format", "csv", *options).stdout.splitlines()[1]

    assert (counted(), counted("--as-of", between), counted("--as-of", "2020-01-01")) == ("3,1", "2,1", "0,0")
    # At its end each consumer commits once more, with what it measured.
    snapshots = open_lake(settings, load_contracts()).table("interactions").metadata.snapshots
    assert [counted("--as-of", str(one.snapshot_id)) for one in snapshots] == ["2,1", "2,1", "3,1", "3,1"]


def test_a_dataset_of_which_the_moment_has_expired_says_so_when_it_is_asked(fed: Run, settings: Settings) -> None:
    table = open_lake(settings, load_contracts()).table("interactions")
    time.sleep(0.005)
    between = datetime.now(UTC).isoformat()
    time.sleep(0.005)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append():
        pass
    before = [one.snapshot_id for one in table.metadata.snapshots[:-1]]
    table.maintenance.expire_snapshots().by_ids(before).commit()
    for query in (
        "FROM interactions",
        "SELECT count(*) FROM interactions",
        "SELECT 1 WHERE EXISTS (FROM interactions)",
    ):
        error = fed("sql", query, "--as-of", between, code=1).stderr
        assert "What interactions held at" in error and "oldest moment of it that can be read" in error
    dead = fed("sql", "SELECT count(*) AS n FROM dead_letters", "--as-of", between, "--format", "csv").stdout
    assert dead == "n\n1\n"


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("yesterday", "expected a time such as"),
        ("2999-01-01", "yet to come"),
        ("99999999", "expected a time such as"),
        ("1234567890123456789", "No snapshot 1234567890123456789 is kept of"),
        ("0001-01-01T00:00:00+14:00", "expected a time such as"),
        ("'; DROP TABLE x", "expected a time such as"),
    ],
)
def test_moments_that_are_none_are_explained(fed: Run, moment: str, said: str) -> None:
    assert said in fed("sql", "SELECT 1", "--as-of", moment, code=1).stderr
