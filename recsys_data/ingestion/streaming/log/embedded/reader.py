"""Reading one partition of the embedded event log, while it is written and pruned by others.

A tail without a newline is not yet an event. A segment that is missing leaves a gap: the next line that is there is
read, and the gap between `start` and the first position of the slice is what was lost.
"""

import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.log import LogSlice
from recsys_data.ingestion.streaming.log.embedded.segments import (
    BLOCK,
    segment_firsts,
    segment_path,
    sync,
    sync_folder,
    whole_length,
)


class PartitionReader:
    """Reads and prunes one partition. Thread-safe."""

    def __init__(self, folder: Path, partition: int) -> None:
        self._folder = folder
        self._partition = partition
        # The position up to which this object knows that the active segment is on the disk.
        self._durable = 0

    def begin(self) -> int:
        """Position of the oldest line kept."""
        return next(iter(segment_firsts(self._folder)), 0)

    def end(self) -> int:
        """Position after the newest whole line."""
        firsts = segment_firsts(self._folder)
        if not firsts:
            return 0
        with segment_path(self._folder, firsts[-1]).open("rb", buffering=0) as file:
            return firsts[-1] + whole_length(file.fileno())

    def read(self, start: int, max_bytes: int) -> LogSlice:
        """The lines from `start` on, out of one segment; each ends with its newline."""
        end = start
        for first, active in self._segments(start):
            begin = end = max(first, start)
            with self._opened(first, active, start) as segment:
                if segment is None:
                    continue
                data = read_lines(segment, begin - first, max_bytes)
                end = begin + len(data)
                # A line that a living writer has not synced yet may vanish in a power failure, and another
                # line would then get its position, which the lake already holds as consumed. Segments that
                # are not active were synced, or given up with their positions, before the next was started.
                if active and end > self._durable:
                    sync(segment)
                    self._durable = end
            if data:
                bounds = line_bounds(data)
                return LogSlice(self._partition, start, end, data, bounds, begin + bounds[:-1])
        return LogSlice(self._partition, start, end, b"", np.zeros(1, np.int64), np.zeros(0, np.int64))

    def count(self, start: int) -> int:
        """How many whole lines there are from `start` on."""
        lines = 0
        for first, active in self._segments(start):
            offset = max(0, start - first)
            with self._opened(first, active, start) as segment:
                while segment is not None and (block := os.pread(segment, BLOCK, offset)):
                    lines += block.count(b"\n")
                    offset += len(block)
        return lines

    def prune(self, consumed: int, older_than_seconds: float) -> int:
        """Delete the oldest segments while they end by `consumed` and are old; returns bytes freed."""
        written_before = time.time() - older_than_seconds
        freed = 0
        firsts = segment_firsts(self._folder)
        for first, following in zip(firsts, firsts[1:], strict=False):
            path = segment_path(self._folder, first)
            try:
                status = path.stat()
                # Oldest first and no further than the first that must stay: the log never gets a hole.
                if following > consumed or status.st_mtime > written_before:
                    break
                path.unlink()
            except FileNotFoundError:
                continue  # Somebody else prunes at the same time.
            freed += status.st_size
        if freed:
            sync_folder(self._folder)
        return freed

    def _segments(self, start: int) -> Iterator[tuple[int, bool]]:
        """The segment that holds `start` and those after it: (first position, is it the active one)."""
        firsts = segment_firsts(self._folder)
        if not firsts and start:
            raise self._too_short(start)
        for first in firsts[max(0, bisect_right(firsts, start) - 1) :]:
            yield first, first == firsts[-1]

    @contextmanager
    def _opened(self, first: int, active: bool, start: int) -> Iterator[int | None]:
        """The descriptor of a segment, once it is sure that a line may begin at `start`; None if it was just pruned."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(segment_path(self._folder, first).open("rb", buffering=0))
            except FileNotFoundError:
                yield None
                return
            segment = file.fileno()
            before = os.pread(segment, 1, start - first - 1) if start > first else b"\n"
            if not before and active:
                raise self._too_short(start)
            # Behind what a power failure left empty or zero, in a segment that was given up, nothing is out of place.
            if before not in (b"\n", b"") and (active or before != b"\0"):
                raise Permanent(
                    f"Position {start} of {self._name} is not the start of a line, though the lake has "
                    f"consumed the log up to there: the log was replaced or changed. {self._advice}"
                )
            yield segment

    @property
    def _name(self) -> str:
        return f"partition {self._partition} of the event log in {self._folder.parent}"

    _advice = (
        "Restore the log's folder from a backup, or point RECSYS_DATA_DIR at the folder that holds both this "
        "lake and its log."
    )

    def _too_short(self, start: int) -> Permanent:
        return Permanent(
            f"Position {start} lies beyond the end ({self.end()}) of {self._name}, though the lake has "
            f"consumed the log up to there: the log was replaced or lost data. {self._advice}"
        )


def read_lines(segment: int, offset: int, max_bytes: int) -> bytes:
    """Whole lines from `offset` on: at most `max_bytes`, but one line however long; b"" if there is none."""
    # Where the last line ends is looked up first, because cutting many megabytes would be to copy them.
    size = max(0, min(max_bytes, os.fstat(segment).st_size - offset))
    begin = max(0, size - BLOCK)
    end = begin + os.pread(segment, size - begin, offset + begin).rfind(b"\n") + 1
    if end > begin:
        return os.pread(segment, end, offset)
    data = os.pread(segment, size, offset)
    end = data.rfind(b"\n") + 1
    while not end:
        more = os.pread(segment, BLOCK, offset + len(data))
        if not more:
            break
        newline = more.find(b"\n") + 1
        end = len(data) + newline if newline else 0
        data += more
    return data[:end]


def line_bounds(data: bytes) -> npt.NDArray[np.int64]:
    """Where the lines of `data` begin, and where the last one ends: int64, shape (lines + 1,)."""
    view = np.frombuffer(data, np.uint8)
    # In blocks, because a mask as large as `data` costs more in fresh memory than in comparisons.
    ends = [np.flatnonzero(view[at : at + BLOCK] == ord("\n")) + (at + 1) for at in range(0, len(data), BLOCK)]
    return np.concatenate([np.zeros(1, np.int64), *ends])
