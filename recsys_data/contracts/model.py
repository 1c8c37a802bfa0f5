"""What a contract says, as plain data: a dataset, its columns and its row rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from recsys_data.contracts.servers import Reference, Schedule, Server


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as the contract states it.

    Attributes:
        type: the logical type, e.g. `string`; `types.py` knows how it is stored.
        source: path of the value in the event's JSON; empty when it does not come from there.
        system: what the platform itself fills in (`ingested_at`, `log_partition`, `as_of` ...).
        logic: SQL expression over the other columns that computes the value.
        consent: boolean column without which the value is replaced by `without_consent` (SQL).
        servers: of a snapshot dataset, the servers whose value counts, the first that has one first; empty: all,
            in the contract's order.
        permitted_use: what the value may be used for; empty where nothing is said.
    """

    name: str
    type: str
    description: str = ""
    required: bool = False
    key: bool = False
    partitioned: bool = False
    classification: str | None = None
    enum: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    system: str | None = None
    logic: str | None = None
    consent: str | None = None
    without_consent: str = "NULL"
    servers: tuple[str, ...] = ()
    permitted_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A row rule: a row is rejected for the reason `name` where `predicate` (SQL) is false."""

    name: str
    predicate: str
    description: str
    severity: str


@dataclass(frozen=True, slots=True)
class Contract:
    """A dataset: its columns, rules, service levels, and how rows of the stream get into it.

    Attributes:
        stream: `events` if it is fed by events, `rejects` for what they were refused, else None.
        row_when: SQL predicate that says which events are rows; None means all.
        row_from: name of the JSON object without which an event gives no row here.
        checks: quality items that are not row rules (volume, rates), by name, as the contract states them.
        latency: age of the newest data at which the dataset is stale.
        retention: how long days are kept after they are over; None: for ever.
        servers: where a snapshot dataset comes from; the first gives the rows.
        schedule: when its snapshots are taken.
        derived: `history` or `rejected` for what is made of the snapshots of `base`, else None.
    """

    name: str
    version: str
    path: Path
    purpose: str
    usage: str
    grain: str
    domain: str
    owner: str
    tags: tuple[str, ...]
    stage: str
    stream: str | None
    row_when: str | None
    row_from: str | None
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    checks: Mapping[str, Mapping[str, Any]]
    latency: timedelta
    retention: timedelta | None = None
    references: tuple[Reference, ...] = ()
    servers: tuple[Server, ...] = ()
    schedule: Schedule | None = None
    derived: str | None = None
    base: str | None = None

    @property
    def is_snapshot(self) -> bool:
        """Whether it is taken as a full state a day."""
        return self.derived is None and any(column.system == "snapshot_date" for column in self.columns)

    @property
    def event_time(self) -> Column:
        """The column that partitions the table: by its UTC day, or by its value where it is true or false."""
        return next(column for column in self.columns if column.partitioned)

    @property
    def primary_key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.key)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


ENGINE = "recsys_data"
