"""What a contract says, as plain data: a dataset, its kind, its columns and its row rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from recsys_data.contracts.drift import DEFAULT_LIMITS, DriftLimits
from recsys_data.contracts.features.view import FeatureView
from recsys_data.contracts.servers import Reference, Schedule, Server


class Kind(StrEnum):
    """What a dataset is, and so where its rows come from."""

    EVENTS = "events"
    """Whole events of the event log: each accepted event is a row of at least one such dataset."""
    EVENT_DETAILS = "event_details"
    """One JSON object of the events that carry it (`rowFrom`), e.g. their context."""
    DEAD_LETTERS = "dead_letters"
    """Lines of the event log that are not valid events."""
    SNAPSHOT = "snapshot"
    """The full state of a source system, once a day."""
    HISTORY = "history"
    """Every state that the rows of a snapshot dataset were in (SCD2)."""
    REJECTED = "rejected"
    """Rows of a snapshot dataset's sources that break its contract."""
    FEATURE_VIEW = "feature_view"
    """Features of an entity, a row for each day on which something happened to it (`featuresOf`)."""
    FEATURE_TILES = "feature_tiles"
    """Partial aggregates of which the features of a view are made up for any moment."""
    TABLE = "table"
    """A table that nothing here fills."""


EVENT_KINDS = frozenset({Kind.EVENTS, Kind.EVENT_DETAILS})
STREAM_KINDS = EVENT_KINDS | {Kind.DEAD_LETTERS}
FEATURE_KINDS = frozenset({Kind.FEATURE_VIEW, Kind.FEATURE_TILES})


def history_name(name: str) -> str:
    """Name of the history of a snapshot dataset."""
    return f"{name}_history"


def tiles_name(name: str) -> str:
    """Name of the tiles of a feature view."""
    return f"{name}_tiles"


def rejected_name(name: str) -> str:
    """Name of the dataset that holds the rejected rows of a snapshot dataset."""
    return f"{name}_rejected"


class SameAs(NamedTuple):
    """A column that repeats one of a dataset that is referred to, e.g. the price of an item."""

    dataset: str
    column: str
    most_different: float


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
        reads: of a feature, the columns that it is computed from: (dataset, column).
        drift: from where on its values drift; None: it is not watched.
        same_as: the dataset and column that it repeats for the key that this dataset refers to, and which share of
            the rows may differ from that.
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
    reads: tuple[tuple[str, str], ...] = ()
    drift: DriftLimits | None = DEFAULT_LIMITS
    same_as: SameAs | None = None


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
        kind: what the dataset is.
        row_when: SQL predicate that says which events are rows; None means all.
        row_from: name of the JSON object without which an event gives no row of these event details.
        checks: quality items that are not row rules (volume, rates), by name, as the contract states them.
        latency: age of the newest data at which the dataset is stale.
        retention: how long days are kept after they are over; None: for ever.
        servers: where a snapshot dataset comes from; the first gives the rows.
        schedule: when its snapshots are taken.
        base: the snapshot dataset that a history or rejected rows belong to, or the feature view of tiles, else None.
        view: of a feature view or its tiles, what is computed.
        drift: from where on the number of rows drifts; None: the dataset is not watched.
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
    kind: Kind
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
    base: str | None = None
    view: FeatureView | None = None
    drift: DriftLimits | None = DEFAULT_LIMITS

    @property
    def is_stream(self) -> bool:
        """Whether the event log fills it."""
        return self.kind in STREAM_KINDS

    @property
    def is_fed_by_events(self) -> bool:
        """Whether valid events of the event log are its rows."""
        return self.kind in EVENT_KINDS

    @property
    def is_asset(self) -> bool:
        """Whether it stands in the lineage by itself; tiles belong to their view."""
        return self.kind not in (Kind.TABLE, Kind.FEATURE_TILES)

    @property
    def is_computed(self) -> bool:
        """Whether it is a function of other datasets, and so can be computed again when it is declared otherwise."""
        return self.kind in FEATURE_KINDS

    @property
    def is_snapshot(self) -> bool:
        """Whether each of its days is the full state of a source system."""
        return self.kind is Kind.SNAPSHOT

    @property
    def holds_rejects(self) -> bool:
        """Whether its rows are what broke a contract, each with the reason."""
        return self.kind in (Kind.DEAD_LETTERS, Kind.REJECTED)

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
