"""Rows in tables of the lake, for tests."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys_data.storage.commit import commit
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.parquet import Selection, write_days

if TYPE_CHECKING:
    from pyiceberg.table import Table

START = datetime(2026, 1, 1, tzinfo=UTC)
UTC_TIME = pa.timestamp("us", tz="UTC")


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def rows(*events: tuple[str, float], **columns: Any) -> pa.Table:
    """Rows of an id and a day of January 2026, counted from 0, with further columns."""
    ids, days = zip(*events, strict=True) if events else ((), ())
    given = {"event_id": pa.array(ids, pa.string()), "event_ts": pa.array([at(day) for day in days], UTC_TIME)}
    return pa.table(given | {name: pa.array(values) for name, values in columns.items()})


def append(table: "Table", given: pa.Table, position: int) -> Ledger:
    """Commit rows with a ledger that stands at this position of partition 0; returns it."""
    base = read_ledger(table)
    ledger = Ledger(positions={0: position}, read=len(given), accepted=len(given), rows=base.rows + len(given))
    commit(table, base, ledger, write_days(table, [Selection.all(given)]))
    return read_ledger(table)
