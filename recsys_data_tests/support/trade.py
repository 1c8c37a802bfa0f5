"""Days of a shop's events and catalogue, drawn by SQL from hashes: real tables of a lake, the same each time."""

from collections.abc import Mapping

from recsys_data.days import day_number
from recsys_data.sql import open_session
from recsys_data.storage.commit import Change, compare_and_set
from recsys_data.storage.duckdb_writer import copy_days
from recsys_data.storage.query import duckdb_type
from recsys_data.storage.tables import Lake

FIRST = day_number("2026-01-05")
ITEMS = 400
# Monday first: a weekend sells more, of other things, and later in the day.
BUSY = (1.0, 0.96, 0.95, 0.98, 0.94, 1.2, 1.3)
EVENT = {
    "event_id": "'e' || n || '-' || day",
    "type": "CASE WHEN r1 < 0.6 THEN 'impression' WHEN r1 < 0.85 THEN 'view' WHEN r1 < 0.95 THEN 'click' "
    "ELSE 'purchase' END",
    # A visitor does eight things on average.
    "user_id": "CASE WHEN hash(visitor, 'known') % 2 = 0 THEN 'u' || visitor END",
    "anonymous_id": "'a' || visitor",
    "item_id": f"'i' || floor({ITEMS} * pow(r2, 1.5 + weekend))::INTEGER",
    "session_id": "'s' || visitor || '-' || day",
    "event_ts": "make_timestamptz((day * 86400 + least(86399, floor(86400 * pow(r3, 0.8 - 0.1 * weekend))))::BIGINT "
    "* 1000000)",
    "received_at": "event_ts",
    "price": "CASE WHEN type IN ('click', 'purchase') THEN round(exp(2 + 2 * r4), 2) END",
    "currency": "CASE WHEN price IS NOT NULL THEN 'EUR' END",
    "quantity": "CASE WHEN type = 'purchase' THEN 1 + floor(3 * pow(r4, 3))::BIGINT END",
    "source": "['web', 'ios', 'android'][1 + (hash(visitor, 'source') % 3)::INTEGER]",
    "properties": "'{}'",
    "ingested_at": "event_ts",
    "log_partition": "0",
    "log_offset": "n",
}
ITEM = {
    "item_id": "'i' || n",
    "item_type": "'product'",
    "title": "'Thing ' || n",
    "category_path": "['Shop', ['Home', 'Garden', 'Sports', 'Toys', 'Books'][1 + (hash(n, 'of') % 5)::INTEGER]]",
    "price": "round(exp(2 + 2 * r1), 2)",
    "currency": "'EUR'",
    # A few change each day.
    "available": "hash(n, (day + n) // 10) % 20 > 0",
    "snapshot_date": "DATE '1970-01-01' + day::INTEGER",
    "as_of": "make_timestamptz((day + 1) * 86400 * 1000000)",
}


def random(number: int, seed: str) -> str:
    return f"(hash(n, day, '{seed}{number}') % 1000003 + 0.5) / 1000003"


def store_events(lake: Lake, days: range, a_day: int = 6000, **changes: str) -> None:
    """Store events of days (0: a Monday); `changes` are SQL in place of that of a column, e.g. `price="NULL"`."""
    busy = ", ".join(map(str, BUSY))
    rows = f"""SELECT n, day, weekend, visitor, {", ".join(f"{random(k, 'e')} AS r{k}" for k in range(1, 6))} FROM (
        SELECT *, unnest(range((count * (0.97 + 0.06 * (hash(day) % 100) / 100))::BIGINT)) AS n,
            hash(n, day, 'visitor') % (count // 8)::BIGINT + 100000 * (hash(day) % 50) AS visitor
        FROM (SELECT day, (day - {FIRST}) % 7 >= 5 AS sunday, sunday::INTEGER * 0.5 AS weekend,
            {a_day} * [{busy}][1 + (day - {FIRST}) % 7] AS count
            FROM (SELECT unnest(range({FIRST + days.start}, {FIRST + days.stop})) AS day)))"""
    _store(lake, "interactions", rows, EVENT, changes)


def store_catalogue(lake: Lake, days: range, a_day: int = ITEMS, **changes: str) -> None:
    """Store a snapshot of `a_day` items for each of the days."""
    rows = f"""SELECT *, (hash(n, 'price') % 1000003) / 1000003 AS r1 FROM (
        SELECT unnest(range({a_day})) AS n, day
        FROM (SELECT unnest(range({FIRST + days.start}, {FIRST + days.stop})) AS day))"""
    _store(lake, "item_catalog", rows, ITEM, changes)


def _store(lake: Lake, name: str, rows: str, columns: Mapping[str, str], changes: Mapping[str, str]) -> None:
    """Columns are computed in their order, so that each may use those before it."""
    table = lake.table(name)
    for column, sql in columns.items():
        rows = f"SELECT *, {sql} AS {column} FROM ({rows})"
    for column, sql in changes.items():
        given = f"* REPLACE ({sql} AS {column})" if column in columns else f"*, {sql} AS {column}"
        rows = f"SELECT {given} FROM ({rows})"
    known = {*columns, *changes}
    fields = [
        f"{field.name if field.name in known else 'NULL'}::{duckdb_type(field.field_type)} AS {field.name}"
        for field in table.schema().fields
    ]
    with open_session() as connection:
        files = copy_days(connection, f"SELECT {', '.join(fields)} FROM ({rows})", table)
    compare_and_set(table, lambda _: Change(added=files))
