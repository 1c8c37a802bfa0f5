"""What decoding makes of a slice of the log, between `decoder.py`, `validator.py` and `micro_batch.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]
DEAD_LETTERS = pa.schema(
    [
        ("row", pa.int32()),
        ("raw", pa.binary()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("dataset", pa.string()),
        ("event_id", pa.string()),
        ("received_at", pa.timestamp("us", "UTC")),
    ]
)
Column = pa.Array | pa.ChunkedArray | Sequence[str] | str | None


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


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters of a slice as columns: where a backlog holds nothing else, objects would be too many.

    Iterating makes `DeadLetter` objects, which is meant for the few that are shown.

    Attributes:
        pieces: tables of `DEAD_LETTERS`.
    """

    pieces: tuple[pa.Table, ...] = ()

    @classmethod
    def of(cls, rows: npt.NDArray[np.integer], raw: pa.Array, **columns: Column) -> "DeadLetters":
        """Make dead letters.

        Args:
            rows: their rows in the slice, shape (n,).
            raw: their lines.
            columns: `reason`, `detail` and whatever else is known, one value for each or one for all.
        """
        if not len(rows):
            return cls()
        arrays = []
        for field in DEAD_LETTERS:
            given = {"row": rows.astype(np.int32), "raw": raw, **columns}.get(field.name)
            if given is None or isinstance(given, str):
                given = pa.repeat(pa.scalar(given, field.type), len(rows))
            arrays.append(given if isinstance(given, pa.ChunkedArray) else pa.array(given, field.type))
        return cls((pa.table(arrays, schema=DEAD_LETTERS),))

    def __add__(self, other: "DeadLetters") -> "DeadLetters":
        return DeadLetters(self.pieces + other.pieces)

    def table(self) -> pa.Table:
        """All of them, by the columns of `DEAD_LETTERS`."""
        return pa.concat_tables([DEAD_LETTERS.empty_table(), *self.pieces])

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[DeadLetter]:
        for piece in self.pieces:
            yield from (DeadLetter(**one) for one in piece.to_pylist())


class Candidates(NamedTuple):
    """Validated rows of a slice, in no order.

    Attributes:
        rows: `row` (int32, line of the slice), the columns of the stream datasets that are not empty throughout,
            `in_<dataset>` (bool), `redacted` (bool), `key_high` and `key_low` (uint64: MD5 of the event id).
        valid: which of them are events that keep to the contracts, bool, shape (rows,). They are picked once, when it
            is known which are duplicates, because each picking copies every column.
    """

    rows: pa.Table
    valid: Mask


class Deferred(NamedTuple):
    """An event that is not validated yet: its row in the slice, its bytes, and its fields by name."""

    row: int
    raw: bytes
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of the lines `[start, end)` of one log partition, decoded at `now` (UTC).

    Attributes:
        positions: int64, shape (lines,): log position of each line, increasing.
        candidates: events that may be stored, by way of decoding.
        deferred: events that `Validator.validate` decides about, with those of other slices.
        dead: the lines that are not such events.
    """

    partition: int
    start: int
    end: int
    positions: npt.NDArray[np.int64]
    now: datetime
    candidates: tuple[Candidates, ...] = ()
    deferred: tuple[Deferred, ...] = ()
    dead: DeadLetters = DeadLetters()


def filled(rows: pa.Table) -> pa.Table:
    """Without the columns that are empty throughout, which would be copied for nothing."""
    return rows.select([name for name in rows.column_names if rows[name].null_count < len(rows)])
