"""How the platform is doing: what waits, what became of each line, how fast, and how much is stored.

Data flow: event log + manifests and ledgers of the tables -> `Status`. Of rows only the reasons of dead letters
are read, and the impressions of the last hour. Run alone: `recsys-data status`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from recsys_data.contracts.model import Contract, Kind
from recsys_data.contracts.rules import session
from recsys_data.days import day_number, from_microseconds
from recsys_data.ingestion.batch.partitions import expected_day
from recsys_data.ingestion.streaming.lag import lag_of
from recsys_data.ingestion.streaming.latency import LatencyStatus, latency_of
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.positions import main_dataset
from recsys_data.monitoring.reconciliation import Stored, reconcile_lake
from recsys_data.serving.delays import Delay, stored_delays
from recsys_data.settings import Settings
from recsys_data.storage.ledger import Ledger
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

Freshness = Literal["fresh", "stale", "empty"]


class LogStatus(msgspec.Struct, frozen=True):
    """What waits in the event log; bytes where the log knows them."""

    lag_events: int
    lag_bytes: int | None


class LedgerStatus(msgspec.Struct, frozen=True):
    """What became of the lines that were read.

    Attributes:
        dead_letters: among them those that were replayed or discarded since.
        replayed: dead letters that went back to the event log, where they are read as lines of their own.
        discarded: dead letters that somebody gave up.
        balanced: nothing is lost or doubled: each line has one outcome, all ledgers agree, and the tables hold as many
            rows as were counted.
        faults: what does not add up.
    """

    read: int
    accepted: int
    duplicates: int
    dead_letters: int
    replayed: int
    discarded: int
    balanced: bool
    faults: tuple[str, ...] = ()


class DatasetStatus(msgspec.Struct, frozen=True):
    """One dataset: its rows, how many days they lie in, and its newest event time."""

    rows: int
    partitions: int
    latest: datetime | None
    freshness: Freshness


class Status(msgspec.Struct, frozen=True):
    """Everything at a glance.

    Attributes:
        latency: receipt of an event until it can be queried.
        answers: receipt of an event to the first answer that used it, of the last hour.
    """

    log: LogStatus
    ledger: LedgerStatus
    dead_letters_by_reason: dict[str, int]
    latency: LatencyStatus
    answers: Delay
    datasets: dict[str, DatasetStatus]


def read_status(log: EventLog, lake: Lake, settings: Settings) -> Status:
    """Gather the status as of now; also while a consumer runs, and before there is any table.

    Raises:
        Permanent: the log does not hold what the tables say they have read.
    """
    lag = lag_of(log, lake)
    found = reconcile_lake(lake, settings)
    main = found.stored.get(main_dataset(lake.contracts))
    ledger = main.ledger if main else Ledger()
    rejects = [table for table in found.stored.values() if table.contract.kind is Kind.DEAD_LETTERS]
    now = datetime.now(UTC)
    return Status(
        log=LogStatus(lag.events, lag.bytes),
        ledger=LedgerStatus(
            ledger.read,
            ledger.accepted,
            ledger.duplicates,
            ledger.dead_letters,
            max((table.removed.replayed for table in rejects), default=0),
            max((table.removed.discarded for table in rejects), default=0),
            found.balanced,
            tuple(fault.found for fault in found.faults),
        ),
        dead_letters_by_reason=_reasons_in([table.table for table in rejects]),
        latency=latency_of(ledger.latencies),
        answers=stored_delays(lake, now),
        datasets={
            name: _dataset(found.stored.get(name), contract, lag.events, now)
            for name, contract in lake.contracts.items()
        },
    )


def reasons_since(lake: Lake, positions: Mapping[int, int]) -> dict[str, int]:
    """Dead letters by reason, most frequent first, of the lines at or beyond these log positions by partition."""
    tables = [lake.table(n) for n, one in lake.contracts.items() if one.kind is Kind.DEAD_LETTERS and lake.exists(n)]
    beyond = [f"(log_partition = {partition} AND log_offset >= {at})" for partition, at in positions.items()]
    return _reasons_in(tables, " OR ".join(beyond) or "false")


def _reasons_in(tables: Sequence["Table"], condition: str = "true") -> dict[str, int]:
    if not tables:
        return {}
    rejects = " UNION ALL BY NAME ".join(relation(table, data_files(table)) for table in tables)
    with session(parallel=True) as connection:
        rows = connection.execute(
            f"SELECT reason, count(*) FROM ({rejects}) WHERE {condition} GROUP BY ALL ORDER BY 2 DESC, 1"
        ).fetchall()
    return dict(rows)


def _dataset(stored: Stored | None, contract: Contract, waiting: int, now: datetime) -> DatasetStatus:
    if stored is None or not stored.rows:
        return DatasetStatus(0, 0, None, "empty")
    newest = max((day.newest for day in stored.days.values() if day.newest is not None), default=None)
    latest = None if newest is None else from_microseconds(newest)
    if contract.is_snapshot:
        # The age of the newest commit would let the backfill of an old day look fresh.
        there = day_number(expected_day(contract, now)) in stored.days
        return DatasetStatus(stored.rows, len(stored.days), latest, "fresh" if there else "stale")
    return DatasetStatus(stored.rows, len(stored.days), latest, freshness_of(stored.committed, contract, waiting, now))


def freshness_of(committed: datetime | None, contract: Contract, waiting: int, now: datetime) -> Freshness:
    """Whether the dataset keeps up: a stream table with nothing left to read is as fresh as can be."""
    if contract.is_stream and not waiting:
        return "fresh"
    return "fresh" if committed is not None and now - committed <= contract.latency else "stale"
