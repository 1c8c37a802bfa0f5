"""The embedded event log: like Kafka on disk, for one machine and any number of processes.

Data flow: append → the partition that this process holds → `folder/<partition>/<position>.ndjson` → read
A position is a byte offset within the partition; segments are plain files, for DuckDB or `wc -l` too.
"""

import os
import random
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from recsys_data.errors import Permanent, Transient
from recsys_data.ingestion.streaming.log import Appended, LogSlice
from recsys_data.ingestion.streaming.log.embedded.reader import PartitionReader
from recsys_data.ingestion.streaming.log.embedded.segments import create_partitions, explained
from recsys_data.ingestion.streaming.log.embedded.writer import PartitionWriter
from recsys_data.ingestion.streaming.log.lines import joined

LOOK_AGAIN_SECONDS = 0.02


class EmbeddedLog:
    """The event log in a local folder. Thread-safe; each object that appends is one writer.

    Besides what `EventLog` lists, every method raises UserError if the folder cannot be used.
    """

    unit = "bytes"

    def __init__(
        self,
        folder: Path,
        *,
        partitions: int = 4,
        segment_bytes: int = 128 * 1024 * 1024,
        wait_seconds: float = 10.0,
    ) -> None:
        """Open the log in `folder`, which is created if it is not there.

        Args:
            folder: the log's own folder.
            partitions: how many partitions a new log gets; a log that is there keeps its own.
            segment_bytes: size that a segment does not exceed, unless by a single append that is larger.
            wait_seconds: how long an append waits for a partition that nobody else holds.

        Raises:
            UserError: the folder cannot be used.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._wait_seconds = wait_seconds
        with explained(folder):
            found = create_partitions(folder, partitions)
        self._readers = {number: PartitionReader(folder / str(number), number) for number in found}
        self._appending = threading.Lock()
        self._writer: PartitionWriter | None = None
        _open_logs.add(self)

    def append(self, lines: Sequence[bytes]) -> Appended | None:
        """See `EventLog.append`. The first append takes a partition and keeps it until `close`."""
        if not lines:
            return None
        data = joined(lines)
        deadline = time.monotonic() + self._wait_seconds
        with self._appending, explained(self._folder):
            if self._writer is None:
                self._writer = self._take_partition(deadline)
            return self._writer.append(data)

    def partitions(self) -> Sequence[int]:
        """See `EventLog.partitions`."""
        return tuple(self._readers)

    def begin_offsets(self) -> Mapping[int, int]:
        """See `EventLog.begin_offsets`."""
        with explained(self._folder):
            return {partition: reader.begin() for partition, reader in self._readers.items()}

    def end_offsets(self) -> Mapping[int, int]:
        """See `EventLog.end_offsets`."""
        with explained(self._folder):
            return {partition: reader.end() for partition, reader in self._readers.items()}

    def read(self, partition: int, start: int, max_bytes: int) -> LogSlice:
        """See `EventLog.read`. Each line ends with its newline; a slice lies within one segment."""
        with explained(self._folder):
            return self._reader(partition).read(start, max_bytes)

    def count(self, partition: int, start: int) -> int:
        """See `EventLog.count`. Raises as `read` does; takes as long as reading what waits."""
        with explained(self._folder):
            return self._reader(partition).count(start)

    def prune(self, consumed: Mapping[int, int], older_than: timedelta) -> int:
        """See `EventLog.prune`. The age of a segment is that of its last line; the newest segment stays."""
        seconds = older_than.total_seconds()
        with explained(self._folder):
            return sum(self._reader(partition).prune(end, seconds) for partition, end in consumed.items())

    def close(self) -> None:
        """See `EventLog.close`. A later append takes a partition again."""
        with self._appending:
            self._let_go()

    def _reader(self, partition: int) -> PartitionReader:
        if partition not in self._readers:
            raise Permanent(
                f"The event log in {self._folder} has no partition {partition}, only "
                f"{', '.join(map(str, self._readers))}: it was replaced or lost data. Restore its folder."
            )
        return self._readers[partition]

    def _take_partition(self, deadline: float) -> PartitionWriter:
        numbers = list(self._readers)
        # Writers that start together spread over the partitions instead of all queuing at the first.
        random.shuffle(numbers)
        while True:
            for number in numbers:
                writer = PartitionWriter.open(self._folder / str(number), self._segment_bytes)
                if writer:
                    return writer
            if time.monotonic() >= deadline:
                raise Transient(
                    f"Each of the {len(numbers)} partitions of the event log in {self._folder} is held by "
                    f"another writer; waited {self._wait_seconds:g} s. Stop one of them and try again. "
                    "RECSYS_DATA_LOG_PARTITIONS sets how many partitions a new log gets."
                )
            time.sleep(LOOK_AGAIN_SECONDS)

    def _let_go(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None

    def _forked(self) -> None:
        # The child shares the parent's lock, and two processes would write at the same positions.
        self._appending = threading.Lock()
        self._let_go()


_open_logs: weakref.WeakSet[EmbeddedLog] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [log._forked() for log in _open_logs])
