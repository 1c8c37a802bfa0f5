"""Decoded slices -> commits: gathers them, settles the fate of each line, and commits every stream table.

Data flow: `Decoded` -> `StreamWriter.add` -> `flush` (deduplication, Parquet files, one compare-and-set a table).
A crash between two tables' commits leaves them at different positions. What lies between is decided again as it
was, for a flush goes through its lines by partition and position; each table takes only what it does not have.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.contracts.contract import Contract
from recsys_data.errors import Permanent
from recsys_data.ingestion.decode import Decoder
from recsys_data.ingestion.decoded import Decoded
from recsys_data.ingestion.deduplicate import SeenIds, key_of
from recsys_data.ingestion.micro_batch import MicroBatch, build
from recsys_data.lake.commit import commit, expire_old_snapshots
from recsys_data.lake.damage import damaged_data
from recsys_data.lake.ledger import LATENCIES_KEPT, Latency, Ledger, read_ledger
from recsys_data.lake.query import data_files, relation
from recsys_data.lake.tables import Lake
from recsys_data.lake.write import Picked, write_days
from recsys_data.logs import trail
from recsys_data.settings import Settings

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

STORED_KEYS_ROWS = 500_000
DECILES = np.arange(0.05, 1, 0.1)


@dataclass(slots=True)
class Flushed:
    """What one flush made visible.

    Attributes:
        rows: new rows by dataset and UTC day since 1970.
        latency: seconds from receipt to visible, or None where no event had a receipt time.
    """

    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    rows: dict[str, dict[int, int]] = field(default_factory=dict)
    seconds: float = 0.0
    latency: Latency | None = None


class StreamWriter:
    """The stream tables, their ledgers, and the rows that wait to be committed. Not thread-safe."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self.contracts = {name: c for name, c in lake.contracts.items() if c.stream}
        # The first dataset of whole events is committed last: its ledger never runs ahead of the others.
        self.order = sorted(self.contracts, key=lambda name: name == main_dataset(lake.contracts))
        self.tables = {name: lake.table(name) for name in self.order}
        self.ledgers = {name: read_ledger(table) for name, table in self.tables.items()}
        self.seen = self._open_seen(settings)
        self._decoder = Decoder(lake.contracts, settings.first_day, settings.max_event_bytes)
        self.pending_rows = 0
        self._slices: list[Decoded] = []
        self._latencies: list[Latency] = []

    def position(self, partition: int, oldest: int = 0) -> int:
        """Where reading this log partition goes on: the smallest position of any table.

        A table that was never fed from it begins with the `oldest` line that the log still keeps.
        """
        return min(ledger.positions.get(partition, oldest) for ledger in self.ledgers.values())

    def reached(self) -> dict[int, int]:
        """How far any table has come in each log partition; what not all have reached, a flush left half done."""
        partitions = {partition for ledger in self.ledgers.values() for partition in ledger.positions}
        return {p: max(ledger.positions.get(p, 0) for ledger in self.ledgers.values()) for p in partitions}

    def add(self, decoded: Decoded) -> None:
        """Take a slice; it is visible after the next `flush`."""
        self._slices.append(decoded)
        self.pending_rows += len(decoded.positions)

    def flush(self, pool: ThreadPoolExecutor | None = None) -> Flushed:
        """Commit everything that was added.

        Raises:
            PositionMoved: another process consumes the same log; open a new writer to go on.
            Transient: the catalog cannot be written now; what is not yet visible still waits for a `flush`.
        """
        begun = time.time()
        flushed = Flushed()
        self._decoder.settle(self._slices)
        in_order = sorted(self._slices, key=lambda decoded: (decoded.partition, decoded.start))
        batches = [build(decoded, self.seen, self.contracts) for decoded in in_order]
        moment = pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC"))
        advanced = {name: _advanced(self.ledgers[name], name, batches) for name in self.order}

        def write(name: str) -> list["DataFile"]:
            rows = _stamp(advanced[name][1], self.contracts[name], moment)
            return write_days(self.tables[name], rows, pool)

        # Tables side by side, for most of a table's rows are of one day, hence of one file.
        with ThreadPoolExecutor(len(self.order), "table") as tables:
            written = list(tables.map(write, self.order))
        for name, files in zip(self.order, written, strict=True):
            base, ledger = self.ledgers[name], advanced[name][0]
            if name == self.order[-1]:
                ledger = self._with_latencies(ledger)
                flushed.read = ledger.read - base.read
                flushed.accepted = ledger.accepted - base.accepted
                flushed.duplicates = ledger.duplicates - base.duplicates
                flushed.dead_letters = ledger.dead_letters - base.dead_letters
            commit(self.tables[name], base, ledger, files)
            self.ledgers[name] = ledger
            flushed.rows[name] = {file.partition[0]: file.record_count for file in files}
            expire_old_snapshots(self.tables[name])
        self._slices, self.pending_rows = [], 0
        flushed.seconds = time.time() - begun
        flushed.latency = self._measure(batches)
        self._say(flushed, batches, in_order)
        self.seen.persist(self._positions())
        return flushed

    def _say(self, flushed: Flushed, batches: list[MicroBatch], slices: list[Decoded]) -> None:
        """Log what was committed: from where in the log, and as which snapshots of the tables."""
        if not trail.isEnabledFor(logging.INFO):
            return
        read = {one.partition: [one.start, one.end] for one in reversed(batches)}
        for one in batches:
            read[one.partition][1] = one.end
        counts = {name: getattr(flushed, name) for name in ("read", "accepted", "duplicates", "dead_letters")}
        snapshots = {name: table.metadata.current_snapshot_id for name, table in self.tables.items()}
        seconds = {"seconds": round(flushed.seconds, 3)}
        trail.info("Committed.", extra={**counts, "log_read": read, "snapshots": snapshots, **seconds})
        if trail.isEnabledFor(logging.DEBUG):
            for decoded in slices:
                for letter in decoded.dead:
                    place = {"log_partition": decoded.partition, "log_offset": int(decoded.positions[letter.row])}
                    trail.debug("Rejected.", extra={"event_id": letter.event_id, "reason": letter.reason, **place})

    def close(self) -> None:
        """Publish the last latencies and save what later writers would have to read again."""
        if self._slices:
            return
        if self._latencies:
            name = self.order[-1]
            ledger = self._with_latencies(self.ledgers[name])
            commit(self.tables[name], self.ledgers[name], ledger, [])
            self.ledgers[name] = ledger
        self.seen.persist(self._positions(), force=True)

    def _positions(self) -> dict[int, int]:
        partitions = {partition for ledger in self.ledgers.values() for partition in ledger.positions}
        return {partition: self.position(partition) for partition in partitions}

    def _measure(self, batches: list[MicroBatch]) -> Latency | None:
        """Receipt to visible, kept for the next commit, since this one cannot tell when it was visible."""
        received = np.concatenate([batch.received_at for batch in batches]) if batches else np.zeros(0)
        if len(received) == 0:
            return None
        visible = time.time()
        seconds = visible - np.quantile(received, 1 - DECILES) / 1e6
        latency = Latency(visible, len(received), tuple(round(float(value), 3) for value in seconds))
        self._latencies.append(latency)
        return latency

    def _with_latencies(self, ledger: Ledger) -> Ledger:
        latencies = (*ledger.latencies, *self._latencies)[-LATENCIES_KEPT:]
        self._latencies = []
        return msgspec.structs.replace(ledger, latencies=latencies)

    def _open_seen(self, settings: Settings) -> SeenIds:
        homes = [
            name for name, contract in self.contracts.items() if contract.stream == "events" and not contract.row_from
        ]
        identity = " ".join(str(self.tables[name].metadata.table_uuid) for name in sorted(homes))
        seen = SeenIds(settings.data_dir / "ingest" / "seen", identity, self._positions())
        covered = {partition: seen.covered.get(partition, 0) for partition in self._positions()}
        for name in homes:
            for keys in stored_keys(self.tables[name], covered):
                seen.add(keys)
        return seen


def main_dataset(contracts: Mapping[str, Contract]) -> str:
    """The dataset whose ledger is shown: the first that takes whole events, `interactions` unless replaced."""
    homes = [name for name, c in contracts.items() if c.stream == "events" and not c.row_from]
    if not homes:
        raise Permanent("No contract takes whole events (stream: events without rowFrom). Restore interactions.")
    return "interactions" if "interactions" in homes else homes[0]


def stored_keys(table: "Table", covered: Mapping[int, int]) -> Iterator[npt.NDArray[np.uint64]]:
    """Deduplication keys of the rows at or beyond the covered positions (of every partition), in bounded pieces.

    Raises:
        Permanent: a data file is damaged.
    """
    import duckdb
    from pyiceberg.expressions import GreaterThanOrEqual

    from recsys_data.contracts.rules import session

    key, high, low = key_of("event_id")
    lowest = min(covered.values(), default=0)
    files = data_files(table, GreaterThanOrEqual("log_offset", lowest))  # pyright: ignore[reportCallIssue]
    if not files:
        return
    beyond = " OR ".join(f"(log_partition = {p} AND log_offset < {at})" for p, at in covered.items()) or "false"
    try:
        with session() as connection:
            reader = connection.sql(
                f"""SELECT {high}, {low}, log_partition::UBIGINT, log_offset::UBIGINT
                    FROM (SELECT *, {key} AS key FROM ({relation(table, files)}) WHERE NOT ({beyond}))"""
            ).to_arrow_reader(batch_size=STORED_KEYS_ROWS)
            for piece in reader:
                yield np.stack([column.to_numpy(zero_copy_only=False) for column in piece.columns])
    except duckdb.Error as error:
        raise damaged_data(table, files, error) from error


def _advanced(base: Ledger, name: str, batches: list[MicroBatch]) -> tuple[Ledger, list[Picked]]:
    """The table's ledger and new rows after these batches."""
    ledger = base
    picked: list[Picked] = []
    for batch in batches:
        part = batch.rows_from(name, ledger.positions.get(batch.partition, 0))
        ledger = batch.advance(ledger, sum(one.rows for one in part))
        picked += part
    return ledger, picked


def _stamp(picked: list[Picked], contract: Contract, moment: pa.Scalar) -> list[Picked]:
    """With the time at which the rows were stored, and without what has no column."""
    stored = [column.name for column in contract.columns]
    stamps = [column.name for column in contract.columns if column.system == "ingested_at"]
    stamped = []
    for table, mask in picked:
        for name in stamps:
            if name not in table.column_names:
                table = table.append_column(name, pa.repeat(moment, len(table)))
        stamped.append(Picked(table.select([name for name in stored if name in table.column_names]), mask))
    return stamped
