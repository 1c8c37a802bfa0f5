"""Rows as the oracle has them -> tables of DuckDB, and the sources that describe them."""

from recsys_data.contracts.features.view import Source
from recsys_data.contracts.rules import session

EVENTS = Source(
    {
        "user_id": "VARCHAR",
        "anonymous_id": "VARCHAR",
        "item_id": "VARCHAR",
        "type": "VARCHAR",
        "value": "DOUBLE",
        "quantity": "BIGINT",
        "event_ts": "TIMESTAMP WITH TIME ZONE",
        "ingested_at": "TIMESTAMP WITH TIME ZONE",
        "log_partition": "INTEGER",
        "log_offset": "BIGINT",
    },
    identity=("user_id", "anonymous_id"),
)
PRICES = Source(
    {
        "item_id": "VARCHAR",
        "price": "DOUBLE",
        "valid_from": "TIMESTAMP WITH TIME ZONE",
        "valid_to": "TIMESTAMP WITH TIME ZONE",
    },
    time=None,
    known=None,
    order=(),
    valid=("valid_from", "valid_to"),
)
KEYS = ("user_id", "anonymous_id", "item_id", "type", "value", "quantity", "ts", "known", "partition", "offset")


def connect(memory="1GB"):
    connection = session(parallel=True)
    connection.execute(f"SET memory_limit = '{memory}'")
    return connection


def fill(connection, events, merges=(), prices=()):
    """Tables `events`, `identities` and `prices`; times of the oracle are microseconds."""
    for name in ("events", "identities", "prices"):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    columns = ", ".join(f"{name} {kind}" for name, kind in EVENTS.columns.items())
    connection.execute(f"CREATE TABLE events ({columns})")
    connection.execute("CREATE TABLE identities (anonymous_id VARCHAR, user_id VARCHAR, known_at TIMESTAMPTZ)")
    connection.execute(
        "CREATE TABLE prices (item_id VARCHAR, price DOUBLE, valid_from TIMESTAMPTZ, valid_to TIMESTAMPTZ)"
    )
    stamp = "make_timestamptz(?::BIGINT)"
    for row in events:
        connection.execute(
            f"INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, {stamp}, {stamp}, ?, ?)", [row[key] for key in KEYS]
        )
    for merge in merges:
        connection.execute(
            f"INSERT INTO identities VALUES (?, ?, {stamp})",
            [merge[k] for k in ("anonymous_id", "user_id", "known_at")],
        )
    for price in prices:
        connection.execute(
            f"INSERT INTO prices VALUES (?, ?, {stamp}, {stamp})",
            [price[k] for k in ("item_id", "price", "valid_from", "valid_to")],
        )


RELATIONS = {"events": "FROM events", "identities": "FROM identities", "prices": "FROM prices"}
SOURCES = {"events": EVENTS, "prices": PRICES}


def spine_of(connection, rows, columns="user_id, item_id"):
    """A relation `(number, user_id, item_id, timestamp)` of tuples without the number, times in microseconds."""
    connection.execute("DROP TABLE IF EXISTS spine_rows")
    connection.execute(
        "CREATE TABLE spine_rows (number INTEGER, user_id VARCHAR, item_id VARCHAR, timestamp TIMESTAMPTZ)"
    )
    for number, row in enumerate(rows):
        connection.execute("INSERT INTO spine_rows VALUES (?, ?, ?, make_timestamptz(?::BIGINT))", [number, *row])
    return connection.sql("FROM spine_rows ORDER BY number")
