"""What decoding makes of a slice of the log, between `decode.py` and `micro_batch.py`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected line: its row in the slice, its bytes, and why.

    Attributes:
        dataset: the dataset whose contract it breaks; None where it could not be read.
    """

    row: int
    raw: bytes
    reason: str
    detail: str
    dataset: str | None = None
    event_id: str | None = None
    received_at: datetime | None = None


class Unjudged(NamedTuple):
    """An event that was read one by one: its row in the slice, its bytes, and its leaves by name."""

    row: int
    raw: bytes
    leaves: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of the lines `[start, end)` of one log partition, decoded at `now` (UTC).

    Attributes:
        positions: int64, shape (lines,): log position of each line, increasing.
        parts: judged lines by way of decoding, in no order: `row` (int32, line of the slice), the columns of
            the stream datasets that are not empty throughout, `in_<dataset>` (bool), `redacted` (bool),
            `key_high` and `key_low` (uint64: MD5 of the event id), and which of its rows are events that keep
            to the contracts (bool). Rows are picked once, when it is known which are stored, for each picking
            copies every column.
        dead: the lines that are not.
        unjudged: events that were read one by one; `Decoder.settle` makes parts and dead letters of them.
    """

    partition: int
    start: int
    end: int
    positions: npt.NDArray[np.int64]
    now: datetime
    parts: list[tuple[pa.Table, Mask]]
    dead: list[DeadLetter]
    unjudged: list[Unjudged]
