"""Snapshots in a small lake, and their history by a plain loop, for tests."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsys_data.contracts import Contract
from recsys_data.contracts.derived import history_of
from recsys_data.ingestion.batch.history import update as history
from recsys_data.ingestion.batch.history.update import HistoryUpdate
from recsys_data.settings import Settings
from recsys_data.storage.parquet import dictionary_columns, file_schema, write_day
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.support.contract_files import custom, load_one, odcs

Row = Mapping[str, Any]
# Of a state or a period: as text, for maps have no order.
Period = tuple[str, ...]

FIRST = date(2026, 1, 1)
ID = {"name": "id", "logicalType": "string", "primaryKey": True, "required": True}
COLUMNS = [
    {"name": "a", "logicalType": "integer"},
    {"name": "it's b", "logicalType": "string"},
    {"name": "tags", "logicalType": "array", "items": {"logicalType": "string"}},
    {
        "name": "more",
        "logicalType": "map",
        "map": {"key": {"logicalType": "string"}, "value": {"logicalType": "string"}},
    },
]
SYSTEM = [
    {
        "name": "snapshot_date",
        "logicalType": "date",
        "required": True,
        "partitioned": True,
        "customProperties": custom(system="snapshot_date"),
    },
    {"name": "as_of", "logicalType": "timestamp", "customProperties": custom(system="as_of")},
]


def things(folder: Path, *columns: dict[str, Any]) -> Contract:
    """A snapshot dataset `things` of a string `id` and, by default, an integer, a text, a list and a map."""
    return load_one(folder, odcs("things", *(columns or (ID, *COLUMNS)), *SYSTEM))


def day(number: int) -> date:
    """A day of January 2026, counted from 0."""
    return FIRST + timedelta(days=number)


def moment(days: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)


class Histories:
    """A lake in `folder` with a snapshot dataset and its history."""

    def __init__(self, folder: Path, contract: Contract, **given: Any) -> None:
        self.settings = Settings(dir=str(folder / "data"), **given)
        self.staging = folder / "staging"
        self.contract = contract
        self.name = contract.name
        self.lake = self.open_lake()

    def open_lake(self) -> Lake:
        derived = history_of(self.contract)
        return open_lake(self.settings, {self.name: self.contract, derived.name: derived})

    def take(self, number: int, rows: Sequence[Row], as_of: datetime | None = None) -> None:
        """Store the snapshot of a day, in place of one that is there; without `as_of` it is known at its end."""
        self.replace([(number, rows, as_of or moment(number + 1))])

    def replace(self, days: Iterable[tuple[int, Sequence[Row], datetime]]) -> None:
        """Store the snapshots of days in one commit, in place of those that are there; no rows: none."""
        self.store((number, [{**row, "as_of": as_of} for row in rows]) for number, rows, as_of in days)

    def store(self, days: Iterable[tuple[int, Sequence[Row]]]) -> None:
        """The same of rows that each have an `as_of` of their own."""
        days = list(days)
        table = self.lake.table(self.name)
        schema = file_schema(table.schema(), [field.name for field in table.schema().fields])
        numbers = {(day(number) - date(1970, 1, 1)).days for number, _ in days}
        old = [task.file for task in table.scan().plan_files() if task.file.partition[0] in numbers]
        transaction = table.transaction()
        with transaction.update_snapshot().overwrite() as overwrite:
            for file in old:
                overwrite.delete_data_file(file)
            for number, rows in days:
                if rows:
                    part = pa.Table.from_pylist([{**row, "snapshot_date": day(number)} for row in rows], schema)
                    partition = (day(number) - date(1970, 1, 1)).days
                    overwrite.append_data_file(write_day(table, partition, [part], dictionary_columns(part)))
        transaction.commit_transaction()

    def bring(self) -> HistoryUpdate:
        """Bring up to date as a process of its own would."""
        return history.refresh_history(self.open_lake(), self.name, self.staging, 200_000_000)

    def rows(self) -> list[dict[str, Any]]:
        return self.lake.table(f"{self.name}_history").scan().to_arrow().to_pylist()

    def periods(self) -> list[Period]:
        """What the history says, in no particular order but always the same."""
        states = [column.name for column in self.contract.columns if not column.system]
        return sorted(period(row, row, states) for row in self.rows())

    def as_of(self, at: datetime) -> list[Period]:
        with connect(self.open_lake(), [f"{self.name}_history"]) as connection:
            rows = connection.sql(f"FROM {self.name}_as_of($moment)", params={"moment": at})
            found = rows.to_arrow_table().to_pylist()
        return sorted(reported(row, [c.name for c in self.contract.columns if not c.system]) for row in found)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with connect(self.open_lake(), [self.name, f"{self.name}_history"]) as connection:
            return connection.sql(query).fetchall()


def reported(row: Row, states: Sequence[str]) -> Period:
    return tuple(text(row.get(name)) for name in states)


def period(row: Row, ends: Row, states: Sequence[str]) -> Period:
    end = ends["valid_to"]
    changed = sorted(ends["changed"])
    return (*reported(row, states), str(ends["valid_from"]), str(end), str(changed), str(ends["is_current"]))


def text(value: Any) -> str:
    """A value, with the entries of a map (a list of pairs, or a dict) in order."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        value = sorted(value)
    return repr(value)


def oracle(contract: Contract, stored: Mapping[int, tuple[Sequence[Row], datetime]]) -> list[Period]:
    """The history of these snapshots, by going through them one row at a time."""
    states = [column.name for column in contract.columns if not column.system]
    (key,) = contract.primary_key
    open_: dict[str, dict[str, Any]] = {}
    closed: list[dict[str, Any]] = []
    for rows, as_of in snapshots_in_order(stored):
        found = {row[key]: row for row in rows}
        for name in set(open_) | set(found):
            old, new = open_.get(name), found.get(name)
            changed = [state for state in states if old and new and text(old["row"].get(state)) != text(new.get(state))]
            if old and new and not changed:
                continue
            if old:
                closed.append({**open_.pop(name), "valid_to": as_of, "is_current": False})
            if new:
                open_[name] = {
                    "row": new,
                    "valid_from": as_of,
                    "valid_to": None,
                    "changed": changed,
                    "is_current": True,
                }
    return sorted(period(one["row"], one, states) for one in itertools.chain(closed, open_.values()))


def snapshots_in_order(
    stored: Mapping[int, tuple[Sequence[Row], datetime]],
) -> list[tuple[Sequence[Row], datetime]]:
    """Of snapshots by their day, those that count, as they were known."""
    latest = {as_of: rows for _, (rows, as_of) in sorted(stored.items())}
    return [(latest[as_of], as_of) for as_of in sorted(latest)]
