from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url

from recsys_data.contracts.servers import Server
from recsys_data.errors import Transient, UserError
from recsys_data.sources.extract import extract
from recsys_data_tests.support.extracting import read, today, wanted
from recsys_data_tests.support.servers import ROWS, check_broken_read, check_snapshot_under_writes, url_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url():
    return url_of("RECSYS_TEST_POSTGRES_URL")


@pytest.fixture(scope="module")
def execute(url):
    """Run statements in a transaction of their own; the rows of the last one."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)

    def run(*statements):
        with engine.begin() as connection:
            # Without parameters the driver leaves % alone.
            connection = connection.execution_options(no_parameters=True)
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return result.fetchall() if result.returns_rows else []

    return run


@pytest.fixture(scope="module")
def accounts(url, execute):
    execute(
        "DROP TABLE IF EXISTS accounts",
        "CREATE TABLE accounts (id bigint PRIMARY KEY, balance int, amount numeric(38, 10), note text, at timestamptz)",
        "INSERT INTO accounts SELECT g, 100, g + 1234567890123456789000000000.0123456789, 'né 😀 ' || g, "
        f"'2024-01-01 00:00:00+00'::timestamptz + g * interval '1 second' FROM generate_series(0, {ROWS - 1}) g",
    )
    yield Server("shop", url, table="accounts")
    execute("DROP TABLE accounts")


COLUMNS = {
    "small int2": ("integer", "-7", -7),
    "big int8": ("decimal(20,2)", "9007199254740993", Decimal("9007199254740993.00")),
    "single float4": ("number", "0.1", 0.1),
    "double float8": ("decimal(10,2)", "19.99", Decimal("19.99")),
    "exact numeric": (
        "decimal(38,10)",
        "1234567890123456789012345678.0123456789",
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    "whole numeric(10,2)": ("integer", "7.00", 7),
    "flag bool": ("boolean", "true", True),
    "txt text": ("string", "'né 😀'", "né 😀"),
    "wide char(6)": ("string", "'ab'", "ab"),
    "uid uuid": ("string", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "mood mood": ("string", "'sad'", "sad"),
    "doc json": ("object", """'{"b": 1.50, "a": 1}'""", '{"b": 1.50, "a": 1}'),
    "kv jsonb": ("map", """'{"b": "1", "a": null}'""", [("a", None), ("b", "1")]),
    "born date": ("date", "'2024-02-29'", date(2024, 2, 29)),
    "naive timestamp": ("timestamp", "'2024-01-01 10:00:00.5'", datetime(2024, 1, 1, 10, 0, 0, 500_000, UTC)),
    "zoned timestamptz": ("timestamp", "'2024-01-01 10:00:00+02'", datetime(2024, 1, 1, 8, tzinfo=UTC)),
    "span interval": ("string", "'1 month'", "1 mon"),
    "bin bytea": ("binary", r"'\xff00'", b"\xff\x00"),
    "ints int[]": ("list<integer>", "'{1,2,NULL}'", [1, 2, None]),
    "texts text[]": ("list<string>", "'{a,\"b,c\",NULL}'", ["a", "b,c", None]),
    "nums numeric[]": ("list<number>", "'{1.5,2}'", [1.5, 2.0]),
    "moods mood[]": ("list<string>", "'{sad,happy}'", ["sad", "happy"]),
    "arr int[]": ("array", "'{1,2}'", "[1,2]"),
    "parted text": ("list<integer>", "'1|2'", [1, 2]),
}


@pytest.fixture(scope="module")
def every_type(url, execute):
    names = ", ".join(COLUMNS)
    execute(
        "DROP TABLE IF EXISTS every_type",
        "DROP TYPE IF EXISTS mood",
        "CREATE TYPE mood AS ENUM ('happy', 'sad')",
        f"CREATE TABLE every_type ({names})",
        # The driver looks at the first rows; they say nothing.
        f"INSERT INTO every_type SELECT {', '.join(['NULL'] * len(COLUMNS))} FROM generate_series(1, 100)".replace(
            "%", "%%"
        ),
        f"INSERT INTO every_type VALUES ({', '.join(value for _, value, _ in COLUMNS.values())})",
    )
    yield Server("shop", url, table="public.every_type")
    execute("DROP TABLE every_type", "DROP TYPE mood")


def test_every_type_keeps_its_value_whatever_came_first(every_type):
    types = {name.split()[0]: kind for name, (kind, _, _) in COLUMNS.items()}
    found = read(every_type, types, Path(), today())
    assert [{*row.values()} for row in found[:100]] == [{None}] * 100
    assert found[100] == {name.split()[0]: value for name, (_, _, value) in COLUMNS.items()} | {"_problems": None}


@pytest.mark.parametrize(
    ("query", "logical", "message"),
    [
        ("SELECT 12.345 AS x", "decimal(10,2)", "column x holds numeric; x takes decimal(10,2): 12.345 does not fit"),
        ("SELECT 123.4 AS x", "decimal(4,2)", "column x holds numeric; x takes decimal(4,2): 123.4 does not fit"),
        ("SELECT 'NaN'::numeric AS x", "decimal(4,2)", "NaN does not fit"),
        ("SELECT 2.5 AS x", "integer", "column x holds numeric; x takes integer: 2.5 does not fit"),
        ("SELECT interval '1 day' AS x", "integer", "column x holds interval; x takes integer"),
        ("SELECT 'infinity'::timestamptz AS x", "timestamp", "a time beyond the years 1 to 9999, or an infinite one"),
        ("SELECT '{1.5}'::numeric[] AS x", "list<integer>", "column x holds _numeric; x takes list<integer>: [1.5]"),
        ("SELECT true AS x", "integer", "column x holds bool; x takes integer"),
    ],
)
def test_value_that_does_not_fit_names_server_column_type_and_what_to_do(url, query, logical, message):
    with pytest.raises(UserError) as raised:
        read(Server("shop", url, query=query), {"x": logical}, Path(), today())
    assert str(raised.value).startswith("server shop (postgresql://")
    assert message in str(raised.value)
    assert "Change the type in the contract" in str(raised.value)


def test_text_that_does_not_fit_is_a_problem_row(url):
    server = Server("shop", url, query="SELECT * FROM (VALUES ('1.50'), ('abc')) AS t (x)")
    found = read(server, {"x": "decimal(10,2)"}, Path(), today())
    assert found[0]["x"] == Decimal("1.50")
    assert found[1]["_problems"] == ["x: found 'abc'; expected decimal(10,2)"]


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_a_million_rows_are_one_state_while_rows_are_moved(accounts, execute, driver):
    def move(source, target):
        execute(
            f"UPDATE accounts SET balance = balance - 1 WHERE id = {source}",
            f"UPDATE accounts SET balance = balance + 1 WHERE id = {target}",
        )

    location = accounts.location.replace("postgresql:", f"{driver}:").replace("postgresql+psycopg:", f"{driver}:")
    check_snapshot_under_writes(Server("shop", location, table="accounts"), move)


def test_read_that_is_killed_is_transient_and_a_retry_is_whole(accounts, execute):
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%accounts%'"

    def kill():
        assert execute(others) == [(True,)]

    check_broken_read(accounts, kill)


def test_whoever_stops_early_ends_the_query_on_the_server(accounts, execute):
    with extract(accounts, wanted({"id": "integer", "note": "string"}), today(), Path()) as found:
        next(found.batches)
    left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%accounts%' AND pid <> pg_backend_pid()"
    assert execute(left) == [(0,)]


def test_moment_is_the_clock_of_the_database_before_the_state(accounts, execute):
    [(before,)] = execute("SELECT clock_timestamp()")
    with extract(accounts, wanted({"id": "integer"}), today(), Path()) as found:
        [(after,)] = execute("SELECT clock_timestamp()")
        assert before <= found.as_of <= after
        assert found.as_of.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"port": 1}, Transient, "Connection refused"),
        ({"database": "nowhere"}, UserError, 'database "nowhere" does not exist'),
        ({"username": "nobody"}, UserError, 'role "nobody" does not exist'),
    ],
)
def test_server_that_cannot_be_reached_is_named_without_its_password(url, change, kind, message):
    location = make_url(url).set(password="s3cret").set(**change).render_as_string(hide_password=False)
    with pytest.raises(kind, match=message) as raised:
        read(Server("shop", location, table="t"), {"id": "integer"}, Path(), today())
    assert "s3cret" not in str(raised.value)


def test_table_that_is_not_there_is_named(url):
    with pytest.raises(UserError, match='relation "nowhere" does not exist. Fix the server'):
        read(Server("shop", url, table="nowhere"), {"id": "integer"}, Path(), today())
