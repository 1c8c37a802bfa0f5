"""The one process that appends to a partition of the embedded event log.

Holds the partition by a kernel lock, which ends with the process however it ends. One rule keeps readers
right whatever fails: **a whole line that has been in the file is never taken back**, because a reader may
have consumed it and its position must not come to mean another line. Only a torn tail is ever cut off. For the same
reason the lock file says where the newest segment begins: if that segment is gone, nobody knows how many of its lines
were consumed, and the partition goes on beyond all positions that it may have had.
"""

import contextlib
import errno
import logging
import os
from pathlib import Path

from recsys_data.durable import sync_entries
from recsys_data.ingestion.streaming.log import Appended
from recsys_data.ingestion.streaming.log.embedded.segments import (
    DIGITS,
    segment_firsts,
    segment_path,
    sync,
    sync_folder,
    whole_length,
)
from recsys_data.leases import try_lock

logger = logging.getLogger(__name__)

# More bytes than a segment ever has; of what a segment that is gone held, only where it began is known.
BEYOND_LOST_BYTES = 1 << 32


class PartitionWriter:
    """Appends to one partition; not thread-safe. Methods raise OSError and may be called again after it."""

    def __init__(self, folder: Path, segment_bytes: int, lock: int) -> None:
        self._folder = folder
        self._partition = int(folder.name)
        self._segment_bytes = segment_bytes
        self._lock = lock
        self._segment = -1
        self._first = 0
        self._end = 0
        self._spent = False

    @classmethod
    def open(cls, folder: Path, segment_bytes: int) -> "PartitionWriter | None":
        """Take the partition in `folder` and repair its end; None if another writer holds it."""
        sync_entries(folder)
        writer = cls(folder, segment_bytes, os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644))
        try:
            if not try_lock(writer._lock):
                writer.close()
                return None
            writer._take_up()
        except BaseException:
            writer.close()
            raise
        return writer

    def append(self, data: bytes) -> Appended:
        """Append `data`, whole lines that end with a newline; they are on the disk when this returns."""
        size = self._end - self._first
        if self._spent or (size and size + len(data) > self._segment_bytes):
            self._rotate()
        if not os.fstat(self._segment).st_nlink:
            # The file would take every line and vanish with this process.
            raise FileNotFoundError(errno.ENOENT, "deleted while it was written", str(self._folder))
        start = self._end
        self._write(data)
        self._sync()
        return Appended(self._partition, start, self._end)

    def close(self) -> None:
        """Let go of the partition."""
        self._close_segment()
        os.close(self._lock)

    def _take_up(self) -> None:
        firsts = segment_firsts(self._folder)
        newest = self._newest()
        if newest is not None and newest > (firsts[-1] if firsts else -1):
            logger.error(
                "Segment %s is gone. Its lines are lost unless they were consumed; new ones get later positions.",
                segment_path(self._folder, newest),
            )
            self._open(newest + max(BEYOND_LOST_BYTES, 2 * self._segment_bytes))
            return
        self._open(firsts[-1] if firsts else 0)
        # A torn tail is what a writer left when it was killed within an append: never acknowledged, and never
        # consumed, since readers stop at the last newline. Whole lines of such an append may have been
        # consumed, so they stay; if they are sent again, the deduplication drops them.
        whole = whole_length(self._segment)
        os.ftruncate(self._segment, whole)
        self._end = self._first + whole
        self._sync()

    def _open(self, first: int) -> None:
        self._segment = os.open(segment_path(self._folder, first), os.O_RDWR | os.O_CREAT, 0o644)
        # Also for a file that was there: its creator may have died before this, and without it a power
        # failure could take the file away together with the lines that we are about to acknowledge.
        sync_folder(self._folder)
        self._first = self._end = first
        self._spent = False
        # After the segment is there to stay, or a crash between the two would look like its loss.
        if self._newest() != first:
            os.pwrite(self._lock, f"{first:0{DIGITS}}".encode(), 0)
            sync(self._lock)

    def _newest(self) -> int | None:
        """Where the newest segment begins that was ever started; None if an earlier version wrote the log."""
        text = os.pread(self._lock, DIGITS, 0)
        return int(text) if len(text) == DIGITS and text.isdigit() else None

    def _rotate(self) -> None:
        if not self._spent:
            self._sync()
        # From here on the next file may exist; one more byte in this one would take positions of that one.
        self._spent = True
        self._close_segment()
        self._open(self._end)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._segment, view[written:], self._end - self._first + written)
        except OSError:
            self._end += data.rfind(b"\n", 0, written) + 1
            # Until the torn tail is cut off nothing may follow in this file: a reader could see old bytes and
            # new ones as one line.
            self._spent = True
            os.ftruncate(self._segment, self._end - self._first)
            self._spent = False
            raise
        self._end += written

    def _sync(self) -> None:
        try:
            sync(self._segment)
        except OSError:
            # The kernel may have dropped what it could not write and call the file clean from now on, so that another
            # sync proves nothing: no acknowledged line may follow in this file. A reader may take such a line all the
            # same. The next segment is begun at once, so that its position never comes to mean another line.
            self._spent = True
            with contextlib.suppress(OSError):
                self._rotate()
            raise

    def _close_segment(self) -> None:
        if self._segment >= 0:
            os.close(self._segment)
            self._segment = -1
