"""Decoded slices -> commits: gathers them, decides the outcome of each line once, and commits every stream table.

Data flow: `Decoded` -> `StreamWriter.add` -> `flush` (deduplication, Parquet files, one intent, one compare-and-set a
table). A crash between two tables' commits leaves an intent that the next writer completes; see `storage/intent.py`.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from recsys_data.contracts.model import Contract
from recsys_data.errors import Permanent, PositionMoved
from recsys_data.ingestion.streaming.decided import complete_decided, decided_by, refuse_tables_behind
from recsys_data.ingestion.streaming.decoding.decoded import Decoded
from recsys_data.ingestion.streaming.deduplication import DedupIndex, LakeState, stored_keys
from recsys_data.ingestion.streaming.micro_batch import MicroBatch, build
from recsys_data.ingestion.streaming.positions import first_dataset, main_dataset, primary_datasets
from recsys_data.logs import audit
from recsys_data.settings import Settings
from recsys_data.storage.commit import commit, expire_old_snapshots
from recsys_data.storage.intent import (
    Intent,
    LineOutcomes,
    StoredFile,
    TableIntent,
    intents_in,
    read_intent,
    remove_intent,
    write_intent,
)
from recsys_data.storage.ledger import (
    INDEX_COMMITS_KEPT,
    LATENCIES_KEPT,
    Latency,
    Ledger,
    is_made,
    read_deletions,
    read_ledger,
    rebased,
)
from recsys_data.storage.parquet import Selection, write_days
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile


logger = logging.getLogger(__name__)

DECILES = np.arange(0.05, 1, 0.1)


@dataclass(slots=True)
class CommitResult:
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


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A flush whose lines are decided: its files and its intent are on the disk.

    Attributes:
        earlier: the other intents that were there when it was written. After its first commit none of them can be named
            any more: each was named before, or begins with an earlier state of the first table.
    """

    intent: Intent
    earlier: list[str]
    files: Mapping[str, list["DataFile"]]
    batches: list[MicroBatch]
    slices: list[Decoded]
    begun: float


class StreamWriter:
    """The stream tables, their ledgers, and the rows that wait to be committed. Not thread-safe."""

    def __init__(self, lake: Lake, settings: Settings, oldest: Mapping[int, int] | None = None) -> None:
        """Open the tables, and complete what a writer before decided but did not commit to all of them.

        Args:
            lake: whose stream tables are written.
            settings: say what is accepted, and where the deduplication index is.
            oldest: the oldest line that the log keeps, by partition; where a table begins that was never fed from it.
                The main table begins with the log: what it was never fed and the log has no longer, is lost.

        Raises:
            Transient: the catalog cannot be written now.
            Permanent: files of the lake are damaged.
        """
        self.contracts = {name: c for name, c in lake.contracts.items() if c.is_stream}
        self.main = main_dataset(lake.contracts)
        # Of two writers that decide about the same lines, the first commit says which one wins. The main table comes
        # last: where an event is visible, everything else that is known of it is visible too.
        self.first = first_dataset(self.contracts, self.main)
        self.order = sorted(self.contracts, key=lambda name: (name == self.main, name != self.first))
        self.tables = {name: lake.table(name) for name in self.order}
        self.oldest = oldest or {}
        self._lake = lake
        self._io = lake.io
        self._settings = settings
        self._decided_by = decided_by(self.contracts, settings)
        # By name of an intent, what it would be committed on top of in the first table.
        self._earlier: dict[str, TableIntent] = {}
        complete_decided(lake, self.tables, self.first, settings, self._decided_by)
        self.ledgers = {name: read_ledger(table) for name, table in self.tables.items()}
        refuse_tables_behind(self.ledgers, self.first, settings)
        ledger = self.ledgers[self.main]
        # An index that another machine saved at the commit that this writer goes on from stays valid.
        self._index_commits = tuple(filter(None, (*ledger.index_commits, ledger.token)))
        # Of partitions that other consumers read, the index knows what was stored when it was opened.
        self._opened_at = self._positions()
        self.index = self._open_index(settings)
        self._slices: list[Decoded] = []
        self._decided: list[tuple[Decoded, MicroBatch]] = []
        self._prepared: _Prepared | None = None
        self._latencies: list[Latency] = []

    def consumes(self, partition: int) -> bool:
        """Whether this writer stores the lines of a log partition."""
        return self._settings.consumes(partition)

    @property
    def consumes_all(self) -> bool:
        """Whether no log partition is left to other consumers."""
        return self._settings.consumes_all

    def position(self, partition: int) -> int:
        """Where reading this log partition goes on: the smallest position of any table."""
        return min(self._position(name, partition) for name in self.order)

    def _position(self, name: str, partition: int) -> int:
        begin = 0 if name == self.main else self.oldest.get(partition, 0)
        return self.ledgers[name].positions.get(partition, begin)

    def add(self, decoded: Decoded) -> None:
        """Take a slice; it is visible after the next `flush`.

        Raises:
            ValueError: some of its lines are not validated yet.
        """
        if decoded.deferred:
            raise ValueError(f"{len(decoded.deferred)} lines are deferred; expected none: validate the slice first.")
        self._slices.append(decoded)

    def flush(self, pool: ThreadPoolExecutor | None = None) -> CommitResult:
        """Commit everything that was added.

        Raises:
            PositionMoved: another process consumes the same log; open a new writer to go on.
            Transient: the catalog cannot be written now. What is not yet visible still waits for a `flush`, which
                commits it as it was decided.
        """
        prepared = self._prepared = self._prepared or self._prepare(pool)
        before = prepared.intent.tables[self.main].base
        for name, part in prepared.intent.tables.items():
            try:
                self.ledgers[name] = self._commit(name, part.base, part.ledger, prepared.files[name])
            except PositionMoved:
                if name == self.order[0]:
                    remove_intent(self._io, self._lake.warehouse, prepared.intent.name)
                raise
            expire_old_snapshots(self.tables[name])
        self._prepared = None
        self._remove_earlier(prepared.earlier)
        result = self._measured(prepared, before)
        if self.index.persist(self._covered(), self.ledgers[self.main].token):
            self._index_commits = (*self._index_commits, self.ledgers[self.main].token)
        return result

    def _commit(self, name: str, base: Ledger, ledger: Ledger, files: list["DataFile"]) -> Ledger:
        # Only the consumer of all partitions knows the ids of all, and must not go on after somebody else's commit.
        return commit(self.tables[name], base, ledger, files, not self.consumes_all)

    def _remove_earlier(self, names: list[str]) -> None:
        """Remove intents that are void or complete.

        One that the first table names stays: a catalog may lose its last commit. So do those of other consumers.
        """
        stored = self.ledgers[self.first]
        for name in names:
            with contextlib.suppress(Permanent):  # One that is damaged can never be completed.
                if name not in self._earlier and (intent := read_intent(self._io, self._lake.warehouse, name)):
                    self._earlier[name] = intent.tables.get(self.first, TableIntent(Ledger(), Ledger(), []))
            part = self._earlier.get(name)
            if part is None or not (part.is_pending(stored) or is_made(stored, part.base, part.ledger)):
                remove_intent(self._io, self._lake.warehouse, name)
                self._earlier.pop(name, None)

    def _prepare(self, pool: ThreadPoolExecutor | None) -> _Prepared:
        """Decide the outcome of each line that was added, and put the decision on the disk."""
        begun = time.time()
        self._decide()
        decided = sorted(self._decided, key=lambda one: (one[0].partition, one[0].start))
        slices, batches = [one for one, _ in decided], [one for _, one in decided]
        moment = datetime.now(UTC)
        rows = {name: self._rows(name, batches) for name in self.order}

        def write(name: str) -> list["DataFile"]:
            stamped = _stamp(rows[name], self.contracts[name], pa.scalar(moment, pa.timestamp("us", tz="UTC")))
            return write_days(self.tables[name], stamped, pool)

        # Tables in parallel, because most of a table's rows are of one day, hence of one file.
        with ThreadPoolExecutor(len(self.order), "table") as tables:
            files = dict(zip(self.order, tables.map(write, self.order), strict=True))
        ledgers = self._advanced(batches, rows, uuid.uuid4().hex)
        intent = Intent(
            ledgers[self.main].intent,
            moment,
            self._decided_by,
            [LineOutcomes.of(one.partition, one.start, one.end, one.outcomes) for one in batches],
            {
                name: TableIntent(self.ledgers[name], ledgers[name], [StoredFile.of(file) for file in files[name]])
                for name in self.order
            },
        )
        earlier = intents_in(self._io, self._lake.warehouse)
        write_intent(self._io, self._lake.warehouse, intent)
        self._earlier[intent.name] = intent.tables[self.first]
        self._decided, self._latencies = [], []
        return _Prepared(intent, earlier, files, batches, slices, begun)

    def _decide(self) -> None:
        """Decide what was added; once, also where the files could not be written and a flush is tried again."""
        positions = self.ledgers[self.main].positions
        waiting = self._slices = sorted(self._slices, key=lambda decoded: (decoded.partition, decoded.start))
        while waiting:
            frontier = positions.get(waiting[0].partition, 0)
            self._decided.append((waiting[0], build(waiting[0], self.index, self.contracts, frontier)))
            del waiting[0]

    def _rows(self, name: str, batches: list[MicroBatch]) -> list[Selection]:
        """The rows of a table that it does not have yet."""
        return [one for batch in batches for one in batch.rows_from(name, self._position(name, batch.partition))]

    def _advanced(
        self, batches: list[MicroBatch], rows: Mapping[str, list[Selection]], intent: str
    ) -> dict[str, Ledger]:
        """Each table's ledger after these batches. A table that is still behind counts its rows only."""
        log = self.ledgers[self.main]
        for batch in batches:
            log = batch.advance(log)
        moved = {batch.partition: intent for batch in batches}
        named = {"intent": intent, "token": intent}
        ledgers = {}
        for name, ledger in self.ledgers.items():
            own = {**named, "intents": {**ledger.intents, **moved}}
            total = ledger.rows + sum(one.rows for one in rows[name])
            if not self.consumes_all:
                # Other consumers' partitions may be further in one table than in another.
                before = self.ledgers[self.main]
                after = msgspec.structs.replace(log, intents={**log.intents, **moved}, **named)
                ledgers[name] = msgspec.structs.replace(rebased(ledger, before, after), rows=total)
                continue
            # A table that another consumer has fed further keeps its positions, also in partitions that are new to it.
            positions = {partition: self._position(name, partition) for partition in log.positions | ledger.positions}
            for batch in batches:
                positions[batch.partition] = max(positions[batch.partition], batch.end)
            counts = log if positions == log.positions else Ledger(positions)
            ledgers[name] = msgspec.structs.replace(counts, rows=total, latencies=(), index_commits=(), **own)
        ledgers[self.main] = msgspec.structs.replace(
            ledgers[self.main],
            latencies=(*log.latencies, *self._latencies)[-LATENCIES_KEPT:],
            index_commits=self._known_index_commits(),
        )
        return ledgers

    def _known_index_commits(self) -> tuple[str, ...]:
        """Those of this writer and, where others commit too, of their indexes."""
        known = (*self.ledgers[self.main].index_commits, *self._index_commits)
        return tuple(dict.fromkeys(known))[-INDEX_COMMITS_KEPT:]

    def _measured(self, prepared: _Prepared, before: Ledger) -> CommitResult:
        """What a flush made visible."""
        after = prepared.intent.tables[self.main].ledger
        result = CommitResult(
            read=after.read - before.read,
            accepted=after.accepted - before.accepted,
            duplicates=after.duplicates - before.duplicates,
            dead_letters=after.dead_letters - before.dead_letters,
            rows={
                name: {file.partition[0]: file.record_count for file in files} for name, files in prepared.files.items()
            },
            seconds=time.time() - prepared.begun,
            latency=self._measure(prepared.batches),
        )
        for lost in after.lost[len(before.lost) :]:
            logger.error(
                "The log no longer has positions %d to %d of partition %d. They are counted as lost.",
                *(lost.start, lost.end, lost.partition),
            )
        self._log(result, prepared.batches, prepared.slices)
        return result

    def _log(self, result: CommitResult, batches: list[MicroBatch], slices: list[Decoded]) -> None:
        """Log what was committed: from where in the log, and as which snapshots of the tables."""
        if not audit.isEnabledFor(logging.INFO):
            return
        read = {one.partition: [one.start, one.end] for one in reversed(batches)}
        for one in batches:
            read[one.partition][1] = one.end
        counts = {name: getattr(result, name) for name in ("read", "accepted", "duplicates", "dead_letters")}
        snapshots = {name: table.metadata.current_snapshot_id for name, table in self.tables.items()}
        seconds = {"seconds": round(result.seconds, 3)}
        audit.info("Committed.", extra={**counts, "log_read": read, "snapshots": snapshots, **seconds})
        if audit.isEnabledFor(logging.DEBUG):
            for decoded in slices:
                for letter in decoded.dead:
                    place = {"log_partition": decoded.partition, "log_offset": int(decoded.positions[letter.row])}
                    audit.debug("Rejected.", extra={"event_id": letter.event_id, "reason": letter.reason, **place})

    def close(self) -> None:
        """Publish the last latencies and save what later writers would have to read again."""
        if self._slices or self._decided or self._prepared:
            return
        if self._latencies:
            base = self.ledgers[self.main]
            latencies = (*base.latencies, *self._latencies)[-LATENCIES_KEPT:]
            token = uuid.uuid4().hex
            self._index_commits = (*self._index_commits, token)
            commits = self._known_index_commits()
            ledger = msgspec.structs.replace(base, latencies=latencies, index_commits=commits, token=token)
            self.ledgers[self.main] = self._commit(self.main, base, ledger, [])
        self.index.persist(self._covered(), self.ledgers[self.main].token, force=True)

    def _positions(self) -> dict[int, int]:
        partitions = {partition for ledger in self.ledgers.values() for partition in ledger.positions}
        return {partition: self.position(partition) for partition in partitions}

    def _covered(self) -> dict[int, int]:
        """Before which positions the index knows all ids."""
        known = self._opened_at
        return {
            p: at if self.consumes(p) else known[p]
            for p, at in self._positions().items()
            if self.consumes(p) or p in known
        }

    def _measure(self, batches: list[MicroBatch]) -> Latency | None:
        """Receipt to visible, kept for the next commit, since this one cannot know when it was visible."""
        received = np.concatenate([batch.received_at for batch in batches]) if batches else np.zeros(0)
        if len(received) == 0:
            return None
        visible = time.time()
        seconds = visible - np.quantile(received, 1 - DECILES) / 1e6
        latency = Latency(visible, len(received), tuple(round(float(value), 3) for value in seconds))
        self._latencies.append(latency)
        return latency

    def _open_index(self, settings: Settings) -> DedupIndex:
        primaries = {name: self.tables[name] for name in sorted(primary_datasets(self.contracts))}
        state = LakeState(
            " ".join(str(table.metadata.table_uuid) for table in primaries.values()),
            frozenset(self._index_commits),
            sum(read_deletions(table).expired for table in primaries.values()),
        )
        index = DedupIndex(settings.dedup_index_dir, state)
        covered = {partition: index.covered.get(partition, 0) for partition in self._positions()}
        for table in primaries.values():
            for keys in stored_keys(table, covered):
                # An event may be a row of several primary tables, and the index hold rows beyond what it covers.
                index.add(keys[:, index.missing(keys)])
        return index


def _stamp(picked: list[Selection], contract: Contract, moment: pa.Scalar) -> list[Selection]:
    """With the time at which the rows were stored, and without what has no column."""
    stored = [column.name for column in contract.columns]
    stamps = [column.name for column in contract.columns if column.system == "ingested_at"]
    stamped = []
    for table, mask in picked:
        for name in stamps:
            if name not in table.column_names:
                table = table.append_column(name, pa.repeat(moment, len(table)))
        stamped.append(Selection(table.select([name for name in stored if name in table.column_names]), mask))
    return stamped
