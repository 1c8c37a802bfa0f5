"""Reading one partition of a topic from any position; no consumer group, nothing is committed to Kafka.

Positions are Kafka's offsets. Offsets that never were a line (marks of transactions, compacted records) are passed
over silently: the slice begins at its first line. Offsets before the oldest one that the broker keeps are lost.
"""

import threading
import time
from collections.abc import Callable

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.log import LogSlice
from recsys_data.ingestion.streaming.log.kafka.address import KafkaAddress
from recsys_data.ingestion.streaming.log.kafka.foreign import native_lines

BATCH = 10_000
LOOK_SECONDS = 0.2
# How long a slice of a partition that is behind waits for more, because small slices cost as much as large ones.
FILL_SECONDS = 0.02
MOVED = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)

# The positions [oldest, after the newest) of a partition.
Ends = Callable[[int], tuple[int, int]]


class PartitionReader:
    """Reads one partition. Thread-safe."""

    def __init__(self, address: KafkaAddress, partition: int, consumer: Consumer, ends: Ends, seconds: float) -> None:
        self._address = address
        self._partition = partition
        self._consumer = consumer
        self._ends = ends
        self._seconds = seconds
        self._reading = threading.Lock()
        # Position after what was given out and after what was fetched; lines in between wait here.
        self._next = self._fetched = -1
        self._lines: list[bytes] = []
        self._offsets: list[int] = []
        self._at_end = False

    def read(self, start: int, max_bytes: int) -> LogSlice:
        """See `EventLog.read`."""
        with self._reading:
            lost = self._seek(start) if start != self._next else False
            size = sum(map(len, self._lines))
            while size < max_bytes:
                before = len(self._lines)
                try:
                    more = self._fetch(self._lines)
                except _Moved:
                    if self._lines:
                        break
                    lost = self._seek(start)
                    continue
                size += sum(map(len, self._lines[before:]))
                if not more:
                    break
            return self._slice(start, max_bytes, lost)

    def close(self) -> None:
        """Let go of the connection."""
        with self._reading:
            self._consumer.close()

    def _slice(self, start: int, max_bytes: int, lost: bool) -> LogSlice:
        lengths = np.fromiter(map(len, self._lines), np.int64, len(self._lines)) + 1
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        rows = max(1, int(np.searchsorted(bounds, max_bytes, side="right")) - 1) if self._lines else 0
        lines, offsets = self._lines[:rows], np.array(self._offsets[:rows], np.int64)
        whole = rows == len(self._lines)
        self._lines, self._offsets = self._lines[rows:], self._offsets[rows:]
        end = self._fetched if whole else int(offsets[-1]) + 1
        begin = start if lost else int(offsets[0]) if rows else end
        self._next = end
        data = b"\n".join(lines) + b"\n" if rows else b""
        return LogSlice(self._partition, begin, end, data, bounds[: rows + 1], offsets)

    def _seek(self, start: int) -> bool:
        """Begin to fetch at a position; gives whether the lines that were there are lost."""
        oldest, end = self._ends(self._partition)
        if start > end:
            raise beyond_end(self._address, self._partition, start, end)
        begin = max(start, oldest)
        self._lines, self._offsets = [], []
        self._next = -1
        try:
            self._consumer.assign([TopicPartition(self._address.topic, self._partition, begin)])
        except KafkaException as error:
            raise unreachable(self._address, error) from None
        self._next, self._fetched, self._at_end = begin, begin, begin == end
        return begin > start

    def _fetch(self, lines: list[bytes]) -> bool:
        """Take what has arrived; gives whether there may be more at once."""
        wait = FILL_SECONDS if lines and not self._at_end else 0.0
        deadline = time.monotonic() + self._seconds
        while not (messages := self._consumer.consume(BATCH, wait)):
            if lines or (self._at_end and self._ends(self._partition)[1] <= self._fetched):
                return False
            if time.monotonic() > deadline:
                raise unreachable(self._address, None)
            # What comes first ends the waiting.
            if messages := self._consumer.consume(1, LOOK_SECONDS):
                break
        self._take(messages)
        return not self._at_end

    def _take(self, messages: list[Message]) -> None:
        good = [message for message in messages if message.error() is None]
        if good:
            self._offsets += [message.offset() for message in good]
            self._lines += native_lines(good)
            self._fetched = self._offsets[-1] + 1
        self._at_end = False
        for message in messages if len(good) < len(messages) else ():
            if (error := message.error()) is None:
                self._at_end = False
            elif error.code() == KafkaError._PARTITION_EOF:
                self._at_end = True
                self._fetched = max(self._fetched, message.offset() or 0)
            elif error.code() in MOVED:
                # What was fetched before stays; where reading goes on is asked anew.
                raise _Moved
            else:
                raise unreachable(self._address, KafkaException(error))


class _Moved(Exception):
    """The position that was to be fetched is not there any more."""


def beyond_end(address: KafkaAddress, partition: int, start: int, end: int) -> Permanent:
    """A position that the topic has never reached."""
    return Permanent(
        f"Position {start} lies beyond the end ({end}) of partition {partition} of {address}, though the lake has "
        "consumed the log up to there: the topic was replaced or lost data. Restore it, or point "
        "RECSYS_DATA_EVENT_LOG at the topic that this lake was fed from."
    )


def unreachable(address: KafkaAddress, error: KafkaException | None) -> Transient:
    """The broker does not answer, or not with what was asked for."""
    why = error.args[0].str() if error else "no answer"
    return Transient(f"The {address} cannot be used now: {why}. Look after the broker, then try again.")
