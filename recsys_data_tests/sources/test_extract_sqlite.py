import gc
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from recsys_data.contracts.servers import Server
from recsys_data.errors import Transient, UserError
from recsys_data.sources.databases import connect as connecting
from recsys_data.sources.databases import sqlalchemy as databases
from recsys_data.sources.databases.connect import explain, patiently
from recsys_data.sources.extract import extract
from recsys_data.sources.locations import named
from recsys_data_tests.support.extracting import read, today, wanted

URL = "sqlite:///{data_dir}/app.db"


@pytest.fixture
def database(tmp_path):
    connection = sqlite3.connect(tmp_path / "app.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
    connection.executemany("INSERT INTO accounts VALUES (?, 100)", ((n,) for n in range(1000)))
    connection.commit()
    yield connection
    connection.close()


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(databases, "FETCH_ROWS", 10)


TYPES = {
    "id": "string",
    "exact": "decimal(38,10)",
    "price": "decimal(5,2)",
    "rate": "number",
    "ok": "boolean",
    "at": "timestamp",
    "doc": "object",
    "tags": "list<string>",
    "note": "string",
    "raw": "binary",
}


def test_every_value_keeps_its_type_whatever_came_first(database, tmp_path, small_batches):
    database.execute(
        "CREATE TABLE t (id, exact TEXT, price NUMERIC, rate, ok, at TEXT, doc TEXT, tags, note, raw BLOB)"
    )
    database.executemany("INSERT INTO t VALUES (?,?,?,?,?,?,?,?,?,?)", [(None,) * 10] * 25)
    digits = "1234567890123456789012345678.0123456789"
    row = (1, digits, 12.5, 1, 1, "2024-01-01 10:00:00+02:00", "{}", '["a"]', "😀 100% :x", b"\xff")
    database.execute("INSERT INTO t VALUES (?,?,?,?,?,?,?,?,?,?)", row)
    database.execute("INSERT INTO t (id, price, rate, exact) VALUES ('b', 7, 0.5, 'abc')")
    database.commit()
    found = read(Server("app", URL, table="t"), TYPES, tmp_path, today())
    assert [{*row.values()} for row in found[:25]] == [{None}] * 25
    at = datetime(2024, 1, 1, 8, tzinfo=UTC)
    taken = ("1", Decimal(digits), Decimal("12.50"), 1.0, True, at, "{}", ["a"], "😀 100% :x", b"\xff", None)
    assert tuple(found[25].values()) == taken
    assert (found[26]["id"], found[26]["price"], found[26]["rate"]) == ("b", 7, 0.5)
    assert found[26]["_problems"] == ["exact: found 'abc'; expected decimal(38,10)"]


def test_read_is_one_state_while_rows_are_moved(database, tmp_path, small_batches):
    server = Server("app", URL, table="accounts")
    with extract(server, wanted({"id": "integer", "balance": "integer"}), today(), tmp_path) as found:
        balances = []
        for batch in found.batches:
            balances += batch["balance"].to_pylist()
            database.execute("UPDATE accounts SET balance = balance - 1 WHERE id < 500")
            database.execute("UPDATE accounts SET balance = balance + 1 WHERE id >= 500")
            database.commit()
    assert balances == [100] * 1000
    assert database.execute("SELECT min(balance), sum(balance) FROM accounts").fetchone() == (0, 100_000)


def test_moment_is_not_after_the_state_that_was_read(database, tmp_path):
    before = datetime.now(UTC)
    with extract(Server("app", URL, table="accounts"), wanted({"id": "integer"}), today(), tmp_path) as found:
        assert before <= found.as_of <= datetime.now(UTC)


def test_whoever_stops_early_leaves_no_lock_behind(database, tmp_path, small_batches):
    with extract(Server("app", URL, table="accounts"), wanted({"id": "integer"}), today(), tmp_path) as found:
        assert next(found.batches).num_rows == 10
    del found
    gc.collect()
    database.execute("PRAGMA journal_mode = DELETE")
    assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_query_may_hold_percent_signs_colons_and_a_semicolon(database, tmp_path):
    server = Server("app", URL, query="SELECT id, '%s :x' AS note FROM accounts WHERE id % 500 = 1;")
    found = read(server, {"id": "integer", "note": "string"}, tmp_path, today())
    assert [(row["id"], row["note"]) for row in found] == [(1, "%s :x"), (501, "%s :x")]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Server("app", URL, table="nope"), "no such table: nope. Fix the server"),
        (Server("app", URL, query="SELECT nope FROM accounts"), "no such column: nope. Fix the server"),
        (Server("app", URL + "x", table="t"), "there is no such file"),
        (Server("app", URL), "must have either a `table` or a `query`"),
        (Server("app", "sqlite", table="t"), "is not a URL of a database"),
        (Server("app", "nosuch://u:pw@h/x", table="t"), r"nosuch://u:\*\*\*@h/x.*Install"),
        (Server("app", URL, table="accounts", columns={"id": "ident"}), "has no column ident, .* It has id, balance"),
        (Server("app", "sqlite:///{day}.db", table="t"), "a database knows no days"),
    ],
)
def test_source_that_cannot_be_read_says_what_to_mend(database, tmp_path, server, message):
    with pytest.raises(UserError, match=message):
        read(server, {"id": "integer"}, tmp_path, today())


def test_file_that_is_no_database_is_refused_and_missing_one_is_not_made(tmp_path):
    (tmp_path / "app.db").write_bytes(b"x" * 4096)
    with pytest.raises(UserError, match="file is not a database"):
        read(Server("app", URL, table="t"), {"id": "integer"}, tmp_path, today())
    with pytest.raises(UserError, match="no such file"):
        read(Server("app", URL + "2", table="t"), {"id": "integer"}, tmp_path, today())
    assert not (tmp_path / "app.db2").exists()


def test_database_knows_only_today(database, tmp_path):
    with pytest.raises(UserError, match="knows only today's state"):
        read(Server("app", URL, table="accounts"), {"id": "integer"}, tmp_path, today() - timedelta(days=1))


def test_connecting_is_tried_again_while_that_may_help(monkeypatch):
    monkeypatch.setattr(connecting, "PAUSE_SECONDS", 0)
    server = Server("app", URL, table="t")
    answers = [OSError("too many connections"), OSError("starting up"), "connection"]

    def connect():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert patiently(connect, lambda error: explain(server, (), error)) == "connection"
    answers = [OSError("away")] * 9
    with pytest.raises(Transient, match="away. The state must be read again"):
        patiently(connect, lambda error: explain(server, (), error))
    assert len(answers) == 6
    answers = [OSError("password authentication failed"), "connection"]
    with pytest.raises(UserError):
        patiently(connect, lambda error: explain(server, (), error))


@pytest.mark.parametrize("location", ["x://u:p%40ss@h/d", "x://u:${PW}@h/d", "x://h/d?user=u&password=p%40ss"])
def test_password_is_in_no_message(location):
    server = Server("app", location, table="t")
    error = explain(server, ("p@ss",), OSError("cannot reach x://u:p%40ss@h with p@ss\nsecond line"))
    assert str(error).endswith("cannot reach x://u:***@h with ***. The state must be read again from its start.")
    assert "ss@" not in named(server)
    assert "p%40" not in named(server)
