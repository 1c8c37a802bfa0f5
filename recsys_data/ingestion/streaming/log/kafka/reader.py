"""Reading one partition of a topic from any position; no consumer group, nothing is committed to Kafka.

Positions are Kafka's offsets. Offsets that never were a line (marks of transactions, compacted records) are passed
over silently: the slice begins at its first line. Offsets before the oldest one that the broker keeps are lost.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.log import LogSlice
from recsys_data.ingestion.streaming.log.kafka.address import KafkaAddress
from recsys_data.ingestion.streaming.log.kafka.foreign import native_lines

BATCH = 10_000
LOOK_SECONDS = 0.2
# A broker sends what is new by itself. It is asked as well, because then nothing is missed that was written before.
ASK_SECONDS = 0.05
# How long a slice of a partition that is behind waits for more, because small slices cost as much as large ones.
FILL_SECONDS = 0.02
MOVED = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)

# The positions [oldest, after the newest) of a partition.
Ends = Callable[[int], tuple[int, int]]


class _Chunk(NamedTuple):
    """Lines that were fetched together: back to back, where each ends (int64), and its offset (int64)."""

    data: bytes
    ends: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def split(self, row: int) -> "tuple[_Chunk, _Chunk]":
        """The lines before a row, and the others."""
        at = int(self.ends[row - 1]) if row else 0
        first = _Chunk(self.data[:at], self.ends[:row], self.offsets[:row])
        return first, _Chunk(self.data[at:], self.ends[row:] - at, self.offsets[row:])


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
        self._waiting: list[_Chunk] = []
        self._at_end = False
        # Whether the broker no longer has what was to be fetched next.
        self._gone = False
        self._asked = float("-inf")

    def read(self, start: int, max_bytes: int) -> LogSlice:
        """See `EventLog.read`."""
        with self._reading:
            lost = self._seek(start) if start != self._next or (self._gone and not self._waiting) else False
            while sum(len(chunk.data) for chunk in self._waiting) < max_bytes:
                try:
                    if not self._fetch():
                        break
                except _Moved:
                    self._gone = True
                    # What was fetched before is given out first.
                    if self._waiting:
                        break
                    lost = self._seek(start)
            return self._slice(start, max_bytes, lost)

    def close(self) -> None:
        """Let go of the connection."""
        with self._reading:
            self._consumer.close()

    def _slice(self, start: int, max_bytes: int, lost: bool) -> LogSlice:
        given = self._cut(max_bytes)
        shifts = np.cumsum([0, *(len(chunk.data) for chunk in given)])
        ends = [chunk.ends + shift for chunk, shift in zip(given, shifts, strict=False)]
        bounds = np.concatenate([np.zeros(1, np.int64), *ends])
        offsets = np.concatenate([np.zeros(0, np.int64), *(chunk.offsets for chunk in given)])
        end = int(offsets[-1]) + 1 if self._waiting else self._fetched
        begin = start if lost else int(offsets[0]) if given else end
        self._next = end
        return LogSlice(self._partition, begin, end, b"".join(chunk.data for chunk in given), bounds, offsets)

    def _cut(self, max_bytes: int) -> list[_Chunk]:
        """Take lines of so many bytes, but one if there is one."""
        given: list[_Chunk] = []
        size = 0
        while self._waiting:
            rows = int(np.searchsorted(self._waiting[0].ends, max_bytes - size, side="right"))
            if rows == 0 and given:
                break
            chunk = self._waiting.pop(0)
            if (rows := max(1, rows)) < len(chunk.ends):
                chunk, rest = chunk.split(rows)
                self._waiting.insert(0, rest)
            given.append(chunk)
            size += len(chunk.data)
            if size >= max_bytes:
                break
        return given

    def _seek(self, start: int) -> bool:
        """Begin to fetch at a position; gives whether the lines that were there are lost."""
        oldest, end = self._ends(self._partition)
        if start > end:
            raise beyond_end(self._address, self._partition, start, end)
        begin = max(start, oldest)
        self._waiting, self._gone = [], False
        self._next = -1
        try:
            self._consumer.assign([TopicPartition(self._address.topic, self._partition, begin)])
        except KafkaException as error:
            raise unreachable(self._address, error) from None
        self._next, self._fetched, self._at_end = begin, begin, begin == end
        return begin > start

    def _fetch(self) -> bool:
        """Take what has arrived; gives whether there may be more at once."""
        wait = FILL_SECONDS if self._waiting and not self._at_end else 0.0
        deadline = time.monotonic() + self._seconds
        while not (messages := self._consumer.consume(BATCH, wait)):
            if self._waiting or (self._at_end and self._is_end()):
                return False
            if time.monotonic() > deadline:
                raise unreachable(self._address, None)
            # What comes first ends the waiting.
            if messages := self._consumer.consume(1, LOOK_SECONDS):
                break
        self._take(messages)
        return not self._at_end

    def _is_end(self) -> bool:
        """Whether the broker has nothing beyond what was fetched, as of a moment ago."""
        if time.monotonic() - self._asked > ASK_SECONDS:
            if self._ends(self._partition)[1] > self._fetched:
                return False
            self._asked = time.monotonic()
        return True

    def _take(self, messages: list[Message]) -> None:
        good = [message for message in messages if message.error() is None]
        if good:
            data, lengths = native_lines(good)
            offsets = np.array([message.offset() for message in good], np.int64)
            self._waiting.append(_Chunk(data, np.cumsum(lengths, dtype=np.int64), offsets))
            self._fetched = int(offsets[-1]) + 1
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
