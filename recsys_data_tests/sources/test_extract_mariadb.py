import gc
from datetime import UTC, date, datetime
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
    return url_of("RECSYS_TEST_MARIADB_URL")


@pytest.fixture(scope="module")
def execute(url):
    """Run statements in a transaction of their own; the rows of the last one."""
    engine = create_engine(url, poolclass=NullPool)

    def run(*statements):
        with engine.begin() as connection:
            connection = connection.execution_options(no_parameters=True)
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return result.fetchall() if result.returns_rows else []

    return run


@pytest.fixture(scope="module")
def accounts(url, execute):
    execute(
        "DROP TABLE IF EXISTS accounts",
        "CREATE TABLE accounts (id bigint PRIMARY KEY, balance int, amount decimal(38, 10), note text, at datetime)"
        " CHARACTER SET utf8mb4",
        "INSERT INTO accounts SELECT seq, 100, seq + 1234567890123456789000000000.0123456789, concat('né 😀 ', seq), "
        f"'2024-01-01' + INTERVAL seq SECOND FROM seq_0_to_{ROWS - 1}",
    )
    yield Server("shop", url, table="accounts")
    execute("DROP TABLE accounts")


COLUMNS = {
    "small smallint": ("integer", "-7", -7),
    "huge bigint unsigned": ("string", "18446744073709551615", "18446744073709551615"),
    "exact decimal(38,10)": (
        "decimal(38,10)",
        "1234567890123456789012345678.0123456789",
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    "whole decimal(10,2)": ("integer", "7.00", 7),
    "price double": ("decimal(10,2)", "19.99", Decimal("19.99")),
    "rate float": ("number", "0.5", 0.5),
    "flag boolean": ("boolean", "true", True),
    "single bit(1)": ("boolean", "b'1'", True),
    "txt text": ("string", "'né 😀 100% :x'", "né 😀 100% :x"),
    "mood enum('happy','sad')": ("string", "'sad'", "sad"),
    "uid uuid": ("string", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "doc json": ("object", """'{"b": 1.50, "a": 1}'""", '{"b": 1.50, "a": 1}'),
    "kv json": ("map", """'{"b": "1", "a": null}'""", [("a", None), ("b", "1")]),
    "tags json": ("list<string>", """'["a", "b"]'""", ["a", "b"]),
    "born date": ("date", "'2024-02-29'", date(2024, 2, 29)),
    "naive datetime(6)": ("timestamp", "'2024-01-01 10:00:00.5'", datetime(2024, 1, 1, 10, 0, 0, 500_000, UTC)),
    "zoned timestamp(6) NULL": ("timestamp", "'2024-01-01 10:00:00'", datetime(2024, 1, 1, 8, tzinfo=UTC)),
    "span time": ("string", "'10:00:00'", "10:00:00"),
    "bin blob": ("binary", r"x'ff00'", b"\xff\x00"),
}


@pytest.fixture(scope="module")
def every_type(url, execute):
    values = ", ".join(value for _, value, _ in COLUMNS.values())
    execute(
        "DROP TABLE IF EXISTS every_type",
        f"CREATE TABLE every_type ({', '.join(COLUMNS)}) CHARACTER SET utf8mb4",
        f"INSERT INTO every_type SELECT {', '.join(['NULL'] * len(COLUMNS))} FROM seq_1_to_100",
        # A `timestamp` is a moment, written and read in the session's time zone.
        "SET time_zone = '+02:00'",
        f"INSERT INTO every_type VALUES ({values})",
    )
    yield Server("shop", url, table="every_type")
    execute("DROP TABLE every_type")


def test_every_type_keeps_its_value_whatever_came_first(every_type):
    types = {name.split()[0]: kind for name, (kind, _, _) in COLUMNS.items()}
    found = read(every_type, types, Path(), today())
    assert [{*row.values()} for row in found[:100]] == [{None}] * 100
    assert found[100] == {name.split()[0]: value for name, (_, _, value) in COLUMNS.items()} | {"_problems": None}


@pytest.mark.parametrize(
    ("query", "logical", "message"),
    [
        ("SELECT 12.345 AS x", "decimal(10,2)", "x takes decimal(10,2): Rescaling Decimal value would cause data loss"),
        ("SELECT 123.4 AS x", "decimal(4,2)", "column x holds decimal128(4, 1); x takes decimal(4,2): "),
        ("SELECT 2.5 AS x", "integer", "x takes integer: Rescaling"),
        ("SELECT 18446744073709551615 AS x", "integer", "x takes integer: "),
        ("SELECT CAST('10:00' AS time) AS x", "integer", "column x holds duration[us]; x takes integer"),
        ("SELECT 2 AS x", "boolean", "2 is neither 0 nor 1"),
    ],
)
def test_value_that_does_not_fit_names_server_column_type_and_what_to_do(url, query, logical, message):
    with pytest.raises(UserError) as raised:
        read(Server("shop", url, query=query), {"x": logical}, Path(), today())
    assert str(raised.value).startswith("server shop (mysql+pymysql://recsys:***@")
    assert message in str(raised.value)
    assert "Change the type in the contract" in str(raised.value)


def test_a_million_rows_are_one_state_while_rows_are_moved(accounts, execute):
    def move(source, target):
        execute(
            f"UPDATE accounts SET balance = balance - 1 WHERE id = {source}",
            f"UPDATE accounts SET balance = balance + 1 WHERE id = {target}",
        )

    check_snapshot_under_writes(accounts, move)


READERS = "SELECT id FROM information_schema.processlist WHERE info LIKE '%accounts%' AND id <> connection_id()"


def test_read_that_is_killed_is_transient_and_a_retry_is_whole(accounts, execute):
    def kill():
        [(reader,)] = execute(READERS)
        execute(f"KILL {reader}")

    check_broken_read(accounts, kill)


def test_whoever_stops_early_does_not_wait_for_the_rest(accounts, execute):
    with extract(accounts, wanted({"id": "integer", "note": "string"}), today(), Path()) as found:
        next(found.batches)
    del found
    # What is left of the driver's objects must go quietly.
    gc.collect()
    for _ in range(100):
        if not execute(READERS):
            return
    pytest.fail("the query is still running")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql"])
def test_every_name_of_the_dialect_streams(url, scheme):
    location = make_url(url).set(drivername=scheme).render_as_string(hide_password=False)
    assert read(Server("shop", location, query="SELECT 1 AS x"), {"x": "integer"}, Path(), today())[0]["x"] == 1


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"port": 1}, Transient, "Connection refused"),
        ({"database": "nowhere"}, UserError, "Access denied for user|Unknown database"),
        ({"password": "wr@ng"}, UserError, "Access denied for user"),
    ],
)
def test_server_that_cannot_be_reached_is_named_without_its_password(url, change, kind, message):
    location = make_url(url).set(**change)
    with pytest.raises(kind, match=message) as raised:
        read(
            Server("shop", location.render_as_string(hide_password=False), table="t"), {"x": "integer"}, Path(), today()
        )
    assert f":{location.password}@" not in str(raised.value)
    assert "wr@ng" not in str(raised.value)


def test_table_that_is_not_there_is_named(url):
    with pytest.raises(UserError, match="nowhere' doesn't exist. Fix the server"):
        read(Server("shop", url, table="nowhere"), {"x": "integer"}, Path(), today())
