"""Replay of dead letters that the current contracts accept into the event log; and discarding of dead letters.

Data flow: dead letters of a filter -> validated as the consumer does -> those that break no rule any more leave the
table and enter an outbox file, in one commit -> the event log -> the next consumer. A replay that is interrupted
between commit and log is completed by the next consumer or replay. Then lines may be appended twice, and the second is
dropped as a duplicate: only lines that can be accepted are ever replayed. See docs/decisions/0007.
"""

import contextlib
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from recsys_data.contracts.rules import session
from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.dead_letters import DeadLetterFilter, LogPositions, gather, holders, remove, select
from recsys_data.ingestion.streaming.decoding.decoder import Decoder
from recsys_data.ingestion.streaming.decoding.event_sql import EventSchema, EventSession
from recsys_data.ingestion.streaming.decoding.validator import Validator
from recsys_data.ingestion.streaming.log import EventLog, LogSlice
from recsys_data.leases import exclusive_lease, lease
from recsys_data.settings import Settings
from recsys_data.storage.commit import delete_files
from recsys_data.storage.ledger import OUTBOX, Deletions, Outbox, read_deletions
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.io import OutputStream
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

# As many lines as are worth a statement; none is longer than the limit of a line.
VALIDATED_LINES = 4_000
APPENDED_BYTES = 1024 * 1024
SEARCHED_BYTES = 16 * 1024 * 1024
WAIT_SECONDS = 60.0
PLACE = ["log_partition", "log_offset"]
OnProgress = Callable[[int], None]


def replay(
    lake: Lake, log: EventLog, settings: Settings, criteria: DeadLetterFilter, on_progress: OnProgress = lambda _: None
) -> Counter[str]:
    """Append the matching dead letters that the current contracts accept to the event log again.

    The others stay as they are. Events of one id are stored once, however often they were rejected.

    Args:
        lake: where they are.
        log: where they go; the next consumer stores them.
        settings: say what may be accepted.
        criteria: which of them.
        on_progress: is called with the number of replayed lines after each file.

    Returns:
        Why those that stay would be rejected again, with counts.

    Raises:
        Transient: another replay goes on, the lake or the log cannot be written now. What has left the table is safe,
            and appended by the next replay or consumer.
    """
    decoder = Decoder(EventSession(EventSchema(lake.contracts), settings.first_day), settings.max_event_bytes)
    stay: dict[str, Counter[str]] = {}
    with _alone(settings):
        finish(lake, log)
        for table in holders(lake):
            _tidy(lake, table)
            one = _Replay(table, lake, decoder, criteria, log)
            for removed in remove(table, criteria, one.choose, one.counted):
                finish(lake, log)
                on_progress(removed)
            _tidy(lake, table)
            stay |= one.stay
    return +sum(stay.values(), Counter())


def discard(
    lake: Lake, settings: Settings, criteria: DeadLetterFilter, on_progress: OnProgress = lambda _: None
) -> None:
    """Delete the matching dead letters from the table, and count them as discarded.

    Raises:
        Transient: a replay goes on, or the lake cannot be written now.
    """
    with _alone(settings):
        for table in holders(lake):

            def choose(file: "DataFile", table: "Table" = table) -> LogPositions:
                with session() as connection:
                    return gather(select(connection, table, file, criteria, PLACE).to_arrow_reader())

            for removed in remove(table, criteria, choose, _discarded):
                on_progress(removed)


def waiting(lake: Lake) -> int:
    """The number of replayed lines that may not be in the event log yet."""
    return sum(read_deletions(table).waiting for table in holders(lake))


def outbox_lines(lake: Lake) -> Iterator[bytes]:
    """The replayed lines that may not be in the event log yet."""
    for table in holders(lake):
        for box in read_deletions(table).outbox:
            with contextlib.suppress(FileNotFoundError), _opened(lake, box.file) as file:
                yield from (line.removesuffix(b"\n") for line in file)


def finish_interrupted(lake: Lake, log: EventLog, settings: Settings) -> None:
    """Append what an interrupted replay left, unless one is going on.

    Raises:
        Transient: lake or log cannot be written now.
        Permanent: an outbox file is gone.
    """
    if waiting(lake):
        with lease(settings, "replay", 0) as alone:
            if alone:
                finish(lake, log)


def finish(lake: Lake, log: EventLog) -> None:
    """Append the lines of all outboxes to the event log; one process at a time, or they would be appended twice.

    A missing outbox is complete if its lines are in the log: a power failure may have rolled back the commit that
    recorded it, but not the removal of the file.

    Raises:
        Permanent: an outbox file is gone, and its lines are not in the log.
    """
    for table in holders(lake):
        for box in read_deletions(table).outbox:
            try:
                with _opened(lake, box.file) as file:
                    while lines := file.readlines(APPENDED_BYTES):
                        log.append([line.removesuffix(b"\n") for line in lines])
            except FileNotFoundError:
                if not _is_in_log(box, log):
                    raise Permanent(
                        f"{_location(lake, box.file)} is gone: it held {box.lines:,} dead letters on their way to the "
                        "event log, which does not hold them. Restore it from a backup."
                    ) from None
            delete_files(table, [], [], lambda stored, box=box: _emptied(stored, box))
            lake.io.delete(_location(lake, box.file))


def _location(lake: Lake, name: str) -> str:
    return f"{lake.warehouse}/{OUTBOX}/{name}"


def _opened(lake: Lake, name: str) -> BufferedReader:
    """An outbox, to be read by lines."""
    return BufferedReader(cast(RawIOBase, lake.io.new_input(_location(lake, name)).open()), APPENDED_BYTES)


def _is_in_log(box: Outbox, log: EventLog) -> bool:
    """Whether the log holds the last line of an outbox, and so, because they are appended in order, all of them.

    As rejected they were there before; what counts is what was appended since the outbox was made.
    """
    ends = log.end_offsets()
    for partition, at in box.log_ends.items():
        while at < ends[partition] and len(lines := log.read(partition, at, SEARCHED_BYTES)):
            at = lines.end
            # Lines may end with a newline.
            sizes = np.diff(lines.bounds)
            for row in np.flatnonzero((sizes == box.last_size) | (sizes == box.last_size + 1)).tolist():
                if hashlib.sha256(lines.line(row)).hexdigest() == box.last_digest:
                    return True
    return False


def _emptied(stored: Deletions, box: Outbox) -> Deletions:
    return msgspec.structs.replace(stored, outbox=tuple(other for other in stored.outbox if other != box))


def _discarded(stored: Deletions, rows: int) -> Deletions:
    return msgspec.structs.replace(stored, discarded=stored.discarded + rows)


def _alone(settings: Settings) -> contextlib.AbstractContextManager[None]:
    busy = "Another process is replaying dead letters. Let it finish, and try again."
    return exclusive_lease(settings, "replay", busy, WAIT_SECONDS)


def _tidy(lake: Lake, table: "Table") -> None:
    """Remove outboxes of replays that ended before their commit: their dead letters are still in the table."""
    known = {box.file for box in read_deletions(table).outbox}
    for file in lake.io.files_below(f"{lake.warehouse}/{OUTBOX}"):
        name = file.location.rpartition("/")[2]
        if name.startswith(f"{table.name()[-1]}.") and name not in known:
            lake.io.delete(file.location)


class _Replay:
    """The replay of one table: its files are validated one after the other, each with an outbox of its own."""

    def __init__(self, table: "Table", lake: Lake, decoder: Decoder, criteria: DeadLetterFilter, log: EventLog) -> None:
        self.table = table
        self.lake = lake
        self.decoder = decoder
        self.validator = Validator(decoder.session)
        self.criteria = criteria
        self.log = log
        self.box = Outbox("", 0)
        self.last = b""
        # Lines that are too long stay rejected; reading them would only take memory.
        self.short = f"if(octet_length(raw) <= {decoder.max_event_bytes}, raw, NULL) AS raw"
        # By file, because a file that others rewrite is validated again.
        self.stay: dict[str, Counter[str]] = {}

    def choose(self, file: "DataFile") -> LogPositions:
        """The rows of a file that can be accepted now, whose lines are then in the outbox."""
        positions = LogPositions()
        stay = self.stay[file.file_path] = Counter()
        name = f"{self.table.name()[-1]}.{uuid.uuid4().hex}.ndjson"
        location = _location(self.lake, name)
        with self.lake.io.new_output(location).create() as lines, session() as connection:
            found = select(connection, self.table, file, self.criteria, [*PLACE, self.short])
            for batch in found.to_arrow_reader(VALIDATED_LINES):
                self._validate(batch.to_pydict(), positions, lines, stay)
        if len(positions):
            digest = hashlib.sha256(self.last).hexdigest()
            self.box = Outbox(name, len(positions), len(self.last), digest, dict(self.log.end_offsets()))
        else:
            self.lake.io.delete(location)
        return positions

    def _validate(
        self, found: dict[str, list], positions: LogPositions, lines: "OutputStream", stay: Counter[str]
    ) -> None:
        stay["event_too_large"] += found["raw"].count(None)
        short = np.array([line is not None for line in found["raw"]])
        raw = [line for line in found["raw"] if line is not None]
        (decoded,) = self.validator.validate([self.decoder.decode(as_slice(raw), datetime.now(UTC))])
        stay.update(letter.reason for letter in decoded.dead)
        good = np.ones(len(raw), bool)
        good[[letter.row for letter in decoded.dead]] = False
        partitions, offsets = (np.array(found[name], np.int64)[short][good] for name in PLACE)
        positions.add(partitions, offsets)
        accepted = [raw[row] for row in np.flatnonzero(good).tolist()]
        lines.write(b"".join(line + b"\n" for line in accepted))
        self.last = accepted[-1] if accepted else self.last

    def counted(self, stored: Deletions, rows: int) -> Deletions:
        """The counts after the lines of the outbox have left the table."""
        return msgspec.structs.replace(stored, replayed=stored.replayed + rows, outbox=(*stored.outbox, self.box))


def as_slice(raw: list[bytes]) -> LogSlice:
    """Lines as a slice of a log."""
    bounds = np.concatenate([[0], np.cumsum([len(line) + 1 for line in raw])]).astype(np.int64)
    data = b"".join(line + b"\n" for line in raw)
    return LogSlice(0, 0, len(data), data, bounds, bounds[:-1])
