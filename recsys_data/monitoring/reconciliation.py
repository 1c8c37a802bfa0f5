"""The one reconciliation of the stream tables: `status`, `doctor`, `verify` and the asset checks show its result.

Data flow: ledgers, deletions and manifests of all tables -> `reconcile_lake` -> `Reconciliation`. Ledgers are compared
with each other and with the rows that the manifests list, so that a ledger that is wrong by itself is found. No row is
read, unless events can be rows of several tables; `recsys-data verify` (verification.py) reads them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from recsys_data.contracts.model import Contract, Kind
from recsys_data.contracts.rules import session
from recsys_data.ingestion.streaming.consumer_lease import lease_holder
from recsys_data.ingestion.streaming.positions import main_dataset, primary_datasets
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.manifest_stats import DayStats, committed_at, days
from recsys_data.storage.ledger import Deletions, Ledger, accepted_losses, read_deletions, read_ledger
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

# A consumer commits its tables one after the other, within a fraction of a second.
WAIT_SECONDS = 3.0
WAIT_PAUSE = 0.05
COUNTS = ("read", "accepted", "duplicates", "dead_letters")


@dataclass(frozen=True, slots=True)
class Stored:
    """One table as of one commit; `ledger`, `removed` and `days` belong together."""

    contract: Contract
    table: "Table"
    ledger: Ledger
    removed: Deletions
    days: Mapping[int, DayStats]
    committed: datetime | None

    @property
    def rows(self) -> int:
        return sum(day.rows for day in self.days.values())

    @property
    def rows_ever(self) -> int:
        """Rows that are there, or were until they were removed on purpose."""
        return self.rows + self.removed.rows


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that does not add up, and the dataset that it is about."""

    dataset: str
    found: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Whether anything is lost or doubled.

    Attributes:
        stored: all tables that exist, as of the reconciliation.
        faults: what does not add up; empty if nothing is lost or doubled.
        behind: stream datasets that the log is still read again for.
        read: lines read.
    """

    stored: Mapping[str, Stored]
    faults: tuple[Fault, ...]
    behind: tuple[str, ...]
    read: int

    @property
    def balanced(self) -> bool:
        return not self.faults


def stored_of(contract: Contract, table: "Table") -> Stored:
    """The table's counts as of its loaded state."""
    return Stored(contract, table, read_ledger(table), read_deletions(table), days(table), committed_at(table))


def _consistent_tables(lake: Lake, settings: Settings) -> dict[str, "Table"]:
    """The tables that exist; those of the stream all at one position, unless they stay apart."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        tables = {name: lake.table(name) for name in lake.contracts if lake.exists(name)}
        positions = [read_ledger(t).positions for name, t in tables.items() if lake.contracts[name].is_stream]
        if all(at == positions[0] for at in positions):
            return tables
        if time.monotonic() >= deadline or lease_holder(settings) is None:
            return tables
        time.sleep(WAIT_PAUSE)


def reconcile_lake(lake: Lake, settings: Settings) -> Reconciliation:
    """Reconcile the tables as of now, also while a consumer runs."""
    tables = _consistent_tables(lake, settings)
    return reconcile({name: stored_of(lake.contracts[name], table) for name, table in tables.items()})


def reconcile(stored: Mapping[str, Stored]) -> Reconciliation:
    """Whether no line and no row is missing or counted twice, by ledgers and manifests.

    A table whose position is not that of the main table (a crash between two commits, a dataset that was added) counts
    its rows only, until a consumer has brought it there.
    """
    stream = {name: one for name, one in stored.items() if one.contract.is_stream}
    contracts = {name: one.contract for name, one in stream.items()}
    if not primary_datasets(contracts):
        return Reconciliation(
            stored, tuple(fault for name, one in stream.items() for fault in _of_table(name, one)), (), 0
        )
    main_name = main_dataset(contracts)
    main = stream[main_name].ledger
    level = {name: one for name, one in stream.items() if one.ledger.positions == main.positions}
    faults = [fault for name, one in stream.items() for fault in _of_table(name, one)]
    faults += [fault for name, one in level.items() for fault in _against_main(name, one, main)]
    for lost in main.lost[accepted_losses(stream[main_name].table) :]:
        found = f"log partition {lost.partition} lost positions {lost.start:,} to {lost.end:,} before they were read"
        faults.append(Fault(main_name, found))
    rejects = {name: one for name, one in level.items() if one.contract.kind is Kind.DEAD_LETTERS}
    faults += _of_dead_letters(rejects, main)
    primaries = primary_datasets(contracts)
    if level.keys() >= set(primaries):
        faults += _of_events(main_name, [level[name] for name in primaries], main)
    return Reconciliation(stored, tuple(faults), tuple(stream.keys() - level.keys()), main.read)


def _of_table(name: str, one: Stored) -> Iterator[Fault]:
    """What does not add up within one table."""
    ledger = one.ledger
    if not ledger.balanced:
        counted = ledger.accepted + ledger.duplicates + ledger.dead_letters
        yield Fault(name, f"{name} counted {ledger.read:,} lines read and {counted:,} outcomes")
    for partition, counts in ledger.partitions.items():
        outcomes = counts.accepted + counts.duplicates + counts.dead_letters
        if counts.read != outcomes:
            yield Fault(
                name, f"{name} counted {counts.read:,} lines of log partition {partition} and {outcomes:,} outcomes"
            )
    if one.rows_ever != ledger.rows:
        removed = f", {one.removed.rows:,} were removed" if one.removed.rows else ""
        yield Fault(name, f"{name} counted {ledger.rows:,} rows and holds {one.rows:,}{removed}")


def _against_main(name: str, one: Stored, main: Ledger) -> Iterator[Fault]:
    """What does not add up between a table and the main table."""
    # Tables that an earlier version wrote last may differ. Two consumers may have committed in another order.
    if one.ledger.intent and (one.ledger.intents or one.ledger.intent) == (main.intents or main.intent):
        for count in COUNTS:
            found, expected = getattr(one.ledger, count), getattr(main, count)
            if found != expected:
                yield Fault(name, f"{name} counted {count.replace('_', ' ')}: {found:,}, the main table {expected:,}")


def _of_dead_letters(rejects: Mapping[str, Stored], main: Ledger) -> Iterator[Fault]:
    """Whether each dead letter is a row. A table that was added beside another has those since then only."""
    if rejects:
        name, one = max(rejects.items(), key=lambda item: item[1].rows_ever)
        if one.rows_ever != main.dead_letters:
            found = f"{main.dead_letters:,} dead letters were counted, and {name} holds or held {one.rows_ever:,}"
            yield Fault(name, found)


def _of_events(main: str, primaries: Sequence[Stored], ledger: Ledger) -> Iterator[Fault]:
    """Whether each accepted line is a row of a primary dataset, and no other line is."""
    rows = sum(one.rows_ever for one in primaries)
    if rows > ledger.accepted:
        # Contracts may let one event be a row of several datasets; only then the rows are read.
        rows = _distinct_lines(primaries)
        if any(one.removed.rows for one in primaries) and rows <= ledger.accepted:
            # Which of the events that are no longer there were rows of several datasets is not known.
            return
    if rows != ledger.accepted:
        yield Fault(main, f"{ledger.accepted:,} lines were accepted, and primary tables hold or held {rows:,} events")


def _distinct_lines(primaries: Sequence[Stored]) -> int:
    events = " UNION ALL ".join(
        f"SELECT log_partition, log_offset FROM ({relation(one.table, data_files(one.table))})" for one in primaries
    )
    with session(parallel=True) as connection:
        return connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT * FROM ({events}))").fetchall()[0][0]
