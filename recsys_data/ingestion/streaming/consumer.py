"""The consumer of the event log: reads it in bounded micro-batches and commits each to the lake.

Data flow: event log -> read -> decode (threads) -> validate what was deferred -> deduplicate -> commit, until idle,
empty or out of time.
Run alone: `recsys-data ingest --until-empty`.
"""

import gc
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recsys_data.errors import Transient
from recsys_data.ingestion.streaming.decoding.decoded import Decoded
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema, EventSession
from recsys_data.ingestion.streaming.decoding.validator import Validator
from recsys_data.ingestion.streaming.limits import DEFAULT_LIMITS, ConsumerLimits
from recsys_data.ingestion.streaming.log import EventLog, LogSlice
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.ingestion.streaming.replay import finish_interrupted
from recsys_data.ingestion.streaming.stream_writer import CommitResult, StreamWriter
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake

logger = logging.getLogger(__name__)

# `gc.set_threshold`: objects made before a collection, and collections before one of the next generation.
COLLECTIONS = (100_000, 20, 20)


@dataclass(frozen=True, slots=True)
class Until:
    """When a consumer ends: after `idle` seconds without new events, or after `budget` seconds (None: no limit)."""

    idle: float = 0.0
    budget: float | None = None


def consume(
    log: EventLog, lake: Lake, settings: Settings, until: Until, limits: ConsumerLimits = DEFAULT_LIMITS
) -> Iterator[CommitResult]:
    """Ingest the log from the stored positions on, yielding the result of each commit.

    The caller holds the lease (`hold_lease`).

    Raises:
        PositionMoved: another process ingests the same log.
        Transient: log or lake cannot be used now; nothing is lost, and a new consumer continues from here.
    """
    finish_interrupted(lake, log, settings)
    writer = StreamWriter(lake, settings, log.begin_offsets())
    schema = EventSchema(lake.contracts)
    *sessions, own = [EventSession(schema, settings.first_day) for _ in range(limits.threads + 1)]
    decoders = [(Decoder(one, settings.max_event_bytes, limits), Validator(one)) for one in sessions]
    # Writing has threads of its own, because it must not queue behind slices that are being decoded.
    with (
        _fewer_collections(),
        ThreadPoolExecutor(limits.threads, "decode") as decoding,
        ThreadPoolExecutor(limits.threads, "write") as writing,
    ):
        yield from _Consumer(log, writer, decoders, Validator(own), decoding, writing, until, limits).run()
    writer.close()
    consumed = {partition: writer.position(partition) for partition in log.partitions()}
    log.prune(consumed, timedelta(hours=settings.log_retention_hours))


def wait_until_stored(lake: Lake, ends: Mapping[int, int], seconds: float) -> None:
    """Wait until another consumer has stored everything before `ends`.

    Raises:
        Transient: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while any(positions_of(lake).get(partition, 0) < end for partition, end in ends.items()):
        if time.monotonic() >= deadline:
            raise Transient(
                f"Another process is ingesting and did not reach {dict(ends)} within {seconds:.0f} s. "
                "Look at its run, and try again."
            )
        time.sleep(DEFAULT_LIMITS.poll_seconds)


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Let Python collect garbage less often.

    The strict decoder makes many small objects. With Python's defaults a quarter of the time is spent on scanning
    everything that was imported.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class _Consumer:
    """One consumer: slices that are being decoded, decoded ones, and since when each partition is behind."""

    def __init__(
        self,
        log: EventLog,
        writer: StreamWriter,
        decoders: list[tuple[Decoder, Validator]],
        validator: Validator,
        pool: ThreadPoolExecutor,
        writing: ThreadPoolExecutor,
        until: Until,
        limits: ConsumerLimits,
    ) -> None:
        self.log = log
        self.writer = writer
        self.free = deque(decoders)
        self.validator = validator
        self.pool = pool
        self.writing = writing
        self.until = until
        self.limits = limits
        self.next: dict[int, int] = {}
        self.behind_since: dict[int, float] = {}
        self.line_bytes = 0.0
        self.turn: deque[int] = deque()
        self.decoding: deque[tuple[Future[Decoded], int]] = deque()
        self.gathered: list[Decoded] = []
        self.gathered_lines = 0
        self.gathered_bytes = 0
        self.warned = False

    def run(self) -> Iterator[CommitResult]:
        limits = self.limits
        begun = busy = time.monotonic()
        # The first events after a pause are committed at once.
        committed = float("-inf")
        while True:
            now = time.monotonic()
            over = self.until.budget is not None and now - begun >= self.until.budget
            due = now - committed >= self._pace()
            # Who is behind, or is to end, reads on while lines are decoded. Otherwise lines are left in the log until
            # they can be committed, because few cost almost as much as many.
            steadily = bool(self.behind_since) or not self.until.idle
            if not over and (steadily or (due and not self.decoding and not self.gathered)):
                self._read_ahead()
            if self.decoding:
                busy = time.monotonic()
                self._take()
            waiting = bool(self.gathered)
            many = self.gathered_lines >= limits.commit_rows or self.gathered_bytes >= limits.commit_bytes
            last = not self.decoding and (over or not self.until.idle)
            # A commit takes as long for few lines as for many, so that it waits for those that were read for it.
            ready = not self.decoding or steadily
            if waiting and (many or (due and ready) or last):
                # Counted from its beginning, or events would wait for the time that it takes too.
                committed = time.monotonic()
                if not over and steadily and self.line_bytes <= limits.long_line_bytes:
                    self._read_ahead()
                yield self._flush()
            elif not waiting and not self.decoding and (over or (due and now - busy >= self.until.idle)):
                return
            elif not self.decoding:
                time.sleep(limits.poll_seconds)

    def _read_ahead(self) -> None:
        """Decode as far ahead as allowed, so that threads have work while a commit is written."""
        for _ in range(max(len(self.turn), self.limits.threads + 1)):
            # One slice more than threads, so that each has work while the oldest slice is added to the commit. Of short
            # ones as many as there are partitions.
            waiting = sum(size for _, size in self.decoding)
            many = len(self.decoding) > self.limits.threads and waiting > self.limits.slice_bytes // 4
            if many or (lines := self._read()) is None:
                return
            self._decode(lines)

    def _flush(self) -> CommitResult:
        for decoded in self.validator.validate(self.gathered):
            self.writer.add(decoded)
        self.gathered, self.gathered_lines, self.gathered_bytes = [], 0, 0
        return self.writer.flush(self.writing)

    def _read(self) -> LogSlice | None:
        """The next slice, of the partitions in turn; None if no partition has new lines."""
        self._take_up_partitions()
        most = self.limits.slice_bytes // (2 if self.line_bytes > self.limits.long_line_bytes else 1)
        for _ in range(len(self.turn)):
            partition = self.turn[0]
            self.turn.rotate(-1)
            lines = self.log.read(partition, self.next[partition], most)
            if lines.end > self.next[partition]:
                self.next[partition] = lines.end
                self.line_bytes = len(lines.data) / max(1, len(lines))
                if len(lines.data) > most // 2:
                    self.behind_since.setdefault(partition, time.monotonic())
                return lines
            self.behind_since.pop(partition, None)
        return None

    def _take_up_partitions(self) -> None:
        """Read the partitions that the log has, also those that it gets while this consumer runs."""
        new = [one for one in self.log.partitions() if one not in self.next and self.writer.consumes(one)]
        if new and self.next and not self.writer.consumes_all:
            if not self.warned:
                logger.warning("The log has new partitions (%s): they are not read. See docs/event-log.md.", new)
            self.warned = True
            return
        for partition in new:
            self.next[partition] = self.writer.position(partition)
            self.turn.append(partition)

    def _pace(self) -> float:
        """Seconds between two commits."""
        since = min(self.behind_since.values(), default=float("inf"))
        catching_up = min(self.limits.catch_up_seconds, self.limits.catch_up_share * (time.monotonic() - since))
        return max(self.limits.commit_seconds, catching_up)

    def _decode(self, lines: LogSlice) -> None:
        future = self.pool.submit(self._decode_in_thread, lines, datetime.now(UTC))
        self.decoding.append((future, len(lines.data)))

    def _decode_in_thread(self, lines: LogSlice, now: datetime) -> Decoded:
        if not len(lines):
            # Only lost lines are to be counted.
            return Decoded(lines.partition, lines.start, lines.end, lines.positions, now)
        decoder, validator = self.free.pop()
        try:
            decoded = decoder.decode(lines, now)
            size = sum(len(one.raw) for one in decoded.deferred)
            many = self.limits.are_worth_a_statement(len(decoded.deferred), size)
            return validator.validate([decoded])[0] if many else decoded
        finally:
            self.free.append((decoder, validator))

    def _take(self) -> None:
        """Wait for the oldest slice, so that those of a partition are gathered in the order of their lines."""
        future, size = self.decoding.popleft()
        decoded = future.result()
        self.gathered.append(decoded)
        self.gathered_lines += len(decoded.positions)
        self.gathered_bytes += size
