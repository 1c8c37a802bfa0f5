"""What decoding makes of a slice of the log, between `decoder.py` and `micro_batch.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]
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


class DeadLetters:
    """The dead letters of a slice as columns: where a backlog holds nothing else, objects would be too many.

    Iterating makes `DeadLetter` objects, which is for the few that somebody looks at.
    """

    SCHEMA = pa.schema(
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

    def __init__(self) -> None:
        self._pieces: list[pa.Table] = []

    def add(
        self, rows: npt.NDArray[np.integer], raw: pa.Array, **columns: pa.Array | Sequence[str] | str | None
    ) -> None:
        """Add dead letters.

        Args:
            rows: their rows in the slice, shape (n,).
            raw: their lines.
            columns: `reason`, `detail` and whatever else is known, one value for each or one for all.
        """
        arrays = []
        for field in self.SCHEMA:
            given = {"row": rows.astype(np.int32), "raw": raw, **columns}.get(field.name)
            if given is None or isinstance(given, str):
                given = pa.repeat(pa.scalar(given, field.type), len(rows))
            arrays.append(given if isinstance(given, pa.ChunkedArray) else pa.array(given, field.type))
        if len(rows):
            self._pieces.append(pa.table(arrays, schema=self.SCHEMA))

    def append(self, letter: DeadLetter) -> None:
        """Add one dead letter."""
        fields = {name: getattr(letter, name) for name in self.SCHEMA.names}
        self._pieces.append(pa.Table.from_pylist([fields], self.SCHEMA))

    def extend(self, others: "DeadLetters") -> None:
        """Add those of others."""
        self._pieces += others._pieces

    def table(self) -> pa.Table:
        """All of them, by the columns of `SCHEMA`."""
        return pa.concat_tables([self.SCHEMA.empty_table(), *self._pieces])

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[DeadLetter]:
        for piece in self._pieces:
            yield from (DeadLetter(**one) for one in piece.to_pylist())


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
    dead: DeadLetters
    unjudged: list[Unjudged]
