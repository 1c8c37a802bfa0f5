"""The event log (message queue): what a backend must do, whatever it is built on.

The log is an ordered row of lines per partition. One line is one native event, as the client sent it. The
only truth about what has been consumed is kept by the consumer, in the lake, as a position per partition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A run of whole lines of one partition.

    Attributes:
        partition: the partition read.
        start: where the read began. If the first line lies beyond it, the log has lost the lines in between. A log
            that knows of positions which never were a line begins behind them.
        end: position after the last line; the next read starts here. Equal to `start` when nothing is there;
            beyond it, without a line, when what lay there is lost and nothing follows yet.
        data: the lines, back to back; each may end with a newline.
        bounds: int64, shape (lines + 1,): line `i` is `data[bounds[i]:bounds[i + 1]]`.
        positions: int64, shape (lines,): the log position of each line, strictly increasing.
    """

    partition: int
    start: int
    end: int
    data: bytes
    bounds: "npt.NDArray[np.int64]"
    positions: "npt.NDArray[np.int64]"

    def __len__(self) -> int:
        return len(self.positions)

    def line(self, row: int) -> bytes:
        """One line, without its newline."""
        return bytes(self.data[self.bounds[row] : self.bounds[row + 1]]).removesuffix(b"\n")


@dataclass(frozen=True, slots=True)
class Appended:
    """Where lines were put: `[start, end)` of a partition."""

    partition: int
    start: int
    end: int


class EventLog(Protocol):
    """What every backend provides. Positions are integers that grow within a partition."""

    @property
    def unit(self) -> str:
        """What positions count, `bytes` or `lines`."""
        ...

    def append(self, lines: Sequence[bytes]) -> Appended | None:
        r"""Append lines (no newline within), in order; they are durable when this returns. Thread-safe.

        Returns:
            Where they are, of a log that knows it and if there were any.

        Raises:
            Permanent: a line holds a newline byte.
            Transient: the log cannot be written now (disk full, every partition held). Append the same lines
                again: some may be in the log already, whole, and are then dropped as duplicates.
        """
        ...

    def partitions(self) -> Sequence[int]:
        """The partitions, a small set that may grow."""
        ...

    def begin_offsets(self) -> Mapping[int, int]:
        """Position of the oldest line still kept, per partition."""
        ...

    def end_offsets(self) -> Mapping[int, int]:
        """Position after the newest whole line, per partition."""
        ...

    def read(self, partition: int, start: int, max_bytes: int) -> LogSlice:
        """Read whole lines from `start`, at most `max_bytes` of them but at least one if one is there.

        What is returned is durable: it will be there, at the same positions, after a power failure.

        Lines that the log no longer has (pruned, or their storage is gone) are skipped: the slice then starts at
        `start`, and its first line has a later position.

        Raises:
            Permanent: `start` is beyond the end of the log, or not the start of a line.
        """
        ...

    def count(self, partition: int, start: int) -> int:
        """How many whole lines wait from `start` on."""
        ...

    def prune(self, consumed: Mapping[int, int], older_than: timedelta) -> int:
        """Delete what lies wholly before `consumed` and is older than `older_than`; returns bytes freed."""
        ...

    def close(self) -> None:
        """Let go of locks and files; the log stays readable by others."""
        ...
