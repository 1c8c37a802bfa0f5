"""Log lines -> judged events and dead letters; nothing in between.

Data flow: `LogSlice` -> fast statement -> (unmodelled fields) extra statement -> (the rest) `exact.py` ->
`Decoded` -> `Decoder.settle` (`judge.py`) for what was read one by one. A way of decoding keeps the rows
that it proves right (see `tally.py`) and leaves the others to the next one; the last one gives the reason. All
three are judged by the same SQL of the contracts.
"""

import logging
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.contract import Contract
from recsys_data.errors import BadRecord
from recsys_data.ingestion.decoded import DeadLetter, Decoded, Unjudged
from recsys_data.ingestion.exact import read_exactly
from recsys_data.ingestion.isolate import describe, is_of_the_input, undecodable
from recsys_data.ingestion.judge import Judge, filled
from recsys_data.ingestion.lines import is_utf8, lines_table, places
from recsys_data.ingestion.log import LogSlice
from recsys_data.ingestion.plan import UNMODELLED, EventPlan
from recsys_data.ingestion.repeated import repeats_key
from recsys_data.ingestion.tally import ARRAY, BOOLEAN, KINDS, NUMBER, OBJECT, STRING, tally

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_KIND = {
    "string": STRING,
    "timestamp": STRING,
    "date": STRING,
    "integer": NUMBER,
    "number": NUMBER,
    "boolean": BOOLEAN,
    "object": OBJECT,
    "array": ARRAY,
}
# Planning a statement takes as long as reading this many lines one by one.
WORTH_A_STATEMENT = 1000
# Lines that are read one by one if the vectorised ways fail on any of them.
SMALL_PIECE = 2 * WORTH_A_STATEMENT
# Shares of lines below which a leaf is no longer read by the fast statement, and above which it is again.
RARE, OFTEN = 0.001, 0.004
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Decoder:
    """Decodes slices in a DuckDB session of its own; use one per thread."""

    def __init__(self, contracts: "Mapping[str, Contract]", first_day: date, max_event_bytes: int) -> None:
        self.plan = EventPlan(contracts)
        self.max_event_bytes = max_event_bytes
        self._judge = Judge(self.plan, first_day)
        self._read = {column.name for column in self.plan.leaves}
        self._fast = self.plan.judged(self.plan.fast_leaves(), self.plan.proofs)
        self._rests = None if self.plan.judges_unmodelled else self.plan.rests()

    def decode(self, lines: LogSlice, now: datetime) -> Decoded:
        """Decode the lines; `now` (UTC) stands in where a receipt time is missing.

        Events that were read one by one are left to `settle`, unless they are many.

        Raises:
            Transient: memory or disk did not suffice.
        """
        self._judge.begin(now)
        dead = self._too_large(lines)
        settled = np.zeros(len(lines), bool)
        settled[[letter.row for letter in dead]] = True
        parts = self._many(lines, settled, dead)
        unjudged = self._exactly(lines, np.flatnonzero(~settled), dead)
        if parts:
            self._read_what_occurs(parts, unjudged)
        parts = [(filled(part.select(self.plan.judged_columns)), good) for part, good in parts]
        decoded = Decoded(lines.partition, lines.start, lines.end, lines.positions, now, parts, dead, unjudged)
        if len(unjudged) >= WORTH_A_STATEMENT:
            self.settle([decoded])
        return decoded

    def settle(self, slices: Sequence[Decoded]) -> None:
        """Judge what was read one by one, of many slices at once.

        Raises:
            Permanent: the SQL of the contracts fails whatever the event.
            Transient: memory or disk did not suffice.
        """
        self._judge.settle(slices)

    def _many(self, lines: LogSlice, settled: Mask, dead: list[DeadLetter]) -> list[tuple[pa.Table, Mask]]:
        """Judge lines by the vectorised ways, if they are many, and mark those that are proven as settled.

        Where these ways fail, it is tried with halves; in a small piece all are left to be read one by one, which
        finds the lines at fault.
        """
        parts: list[tuple[pa.Table, Mask]] = []
        waiting = [range(len(lines))]
        candidate: Mask | None = None
        counts = np.zeros((0, KINDS), np.int64)
        while waiting:
            piece = waiting.pop()
            done, found = settled.copy(), list[DeadLetter]()
            try:
                if candidate is None:
                    candidate, counts = _candidates(lines, settled)
                if _worth_it(candidate[piece.start : piece.stop]):
                    table = lines_table(lines, candidate).slice(piece.start, len(piece))
                    parts += self._vectorised(lines, table, counts, done, found)
            except Exception as error:
                if not is_of_the_input(error):
                    raise
                logger.warning("Decoding %d lines at once failed: %s", len(piece), describe(error))
                if candidate is not None and len(piece) > SMALL_PIECE:
                    middle = len(piece) // 2
                    waiting += [piece[middle:], piece[:middle]]
                continue
            settled[:] = done
            dead += found
        return parts

    def _vectorised(
        self, lines: LogSlice, table: pa.Table, counts: npt.NDArray[np.int64], settled: Mask, dead: list[DeadLetter]
    ) -> list[tuple[pa.Table, Mask]]:
        """Judge a table of lines by the fast statement, and mark those that are proven as settled."""
        judged = self._judge.query(self._fast, "lines", table)
        rows = judged["row"].to_numpy()
        counts = counts[rows]
        delivered = self._delivered(judged)
        sound = _flags(judged["valid"]) & _flags(judged["exact_values"]) & ~_present(judged["bad_time"])
        # Texts are kept as they stand, so that counting does not see a key that stands twice in one.
        for column in self.plan.raw:
            sound &= ~repeats_key(_sent(judged, column.name))
        proven = sound & (delivered == counts).all(axis=1)
        settled[rows[proven]] = True
        parts = [(judged, self._judge.good(judged, proven, dead, lines.line))]
        left = np.flatnonzero(sound & ~proven)
        if self._rests and len(left) >= WORTH_A_STATEMENT:
            text = table.take(pa.array(rows[left] - table["row"][0].as_py()))
            extra, proven = self._with_rests(text, judged.take(pa.array(left)), delivered[left], counts[left])
            settled[extra["row"].to_numpy()[proven]] = True
            parts.append((extra, self._judge.good(extra, proven, dead, lines.line)))
        return parts

    def _with_rests(
        self, text: pa.Table, judged: pa.Table, delivered: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> tuple[pa.Table, Mask]:
        """Judged rows with the fields that have no column among their properties, and which rows that proves."""
        rests = self._judge.query(self._rests or "", "rests", text.append_column(UNMODELLED, judged[UNMODELLED]))
        rests = rests.take(places(rests["row"].to_numpy(), judged["row"].to_numpy()))
        delivered = delivered + _tally_text(rests["clean"])
        # Containers that are left in the rest were counted as delivered objects too.
        delivered[:, OBJECT] -= _containers_left(rests["clean"], self.plan.containers)
        proven = ~_flags(rests["mixed"]) & (delivered == counts).all(axis=1) & ~repeats_key(rests[UNMODELLED])
        place = judged.column_names.index(UNMODELLED)
        return judged.set_column(place, UNMODELLED, rests[UNMODELLED]), proven

    def _read_what_occurs(self, parts: list[tuple[pa.Table, Mask]], unjudged: Sequence[Unjudged]) -> None:
        """Leave leaves that hardly occur to the exact way, and take those up that occur after all.

        Reading a leaf costs for every line, whether it is there or not.
        """
        total = sum(len(part) for part, _ in parts) + len(unjudged)
        read = set(self.plan.always_read)
        for column in self.plan.leaves:
            occurs = sum(len(part) - part[column.name].null_count for part, _ in parts)
            occurs += sum(column.name in one.leaves for one in unjudged)
            if occurs / total > (RARE if column.name in self._read else OFTEN):
                read.add(column.name)
        if read != self._read:
            self._read = read
            self._fast = self.plan.judged(self.plan.fast_leaves(read), self.plan.proofs)

    def _too_large(self, lines: LogSlice) -> list[DeadLetter]:
        lengths = np.diff(lines.bounds)
        return [
            DeadLetter(
                row,
                lines.line(row),
                "event_too_large",
                f"the line has {lengths[row]} bytes; at most {self.max_event_bytes} are accepted",
            )
            for row in np.flatnonzero(lengths > self.max_event_bytes + 1).tolist()
        ]

    def _delivered(self, judged: pa.Table) -> npt.NDArray[np.int64]:
        """How many values were delivered of each row, by kind; shape (rows, 5)."""
        delivered = np.zeros((len(judged), KINDS), np.int64)
        delivered[:, OBJECT] = judged["containers"].to_numpy()
        for column in self.plan.leaves:
            given = _sent(judged, column.name)
            if column in self.plan.raw:
                delivered += _tally_text(given)
            if given.null_count < len(given):
                present = _flags(given) if column.consent else _present(given)
                delivered[:, _KIND[column.type]] += present
        return delivered

    def _exactly(self, lines: LogSlice, rows: Rows, dead: list[DeadLetter]) -> list[Unjudged]:
        """Read lines one by one; those that are no events are explained in `dead`."""
        read = []
        for row in rows.tolist():
            raw = lines.line(row)
            try:
                read.append(Unjudged(row, raw, read_exactly(raw, self.plan)))
            except BadRecord as error:
                dead.append(DeadLetter(row, raw, error.reason, error.detail))
            except Exception as error:
                if not is_of_the_input(error):
                    raise
                dead.append(undecodable(row, raw, error))
        return read


def _candidates(lines: LogSlice, settled: Mask) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Which lines the vectorised ways may read, and the values in each line by kind; shape (lines, 5)."""
    data = np.frombuffer(lines.data, np.uint8)
    counted = tally(data, lines.bounds)
    return ~counted.odd & ~settled & is_utf8(lines, data), counted.counts


def _sent(judged: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as it was sent, before it was redacted or filled."""
    return judged["sent_" + name if "sent_" + name in judged.column_names else name]


def _worth_it(candidate: Mask) -> bool:
    return int(np.count_nonzero(candidate)) >= WORTH_A_STATEMENT


def _flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return pc.fill_null(column, False).to_numpy()


def _present(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return pc.is_valid(column).to_numpy()


def _tally_text(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Values within JSON text, by kind; int64, shape (rows, 5)."""
    counts = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        if data is None:
            counts.append(np.zeros((len(chunk), KINDS), np.int64))
            continue
        bounds = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        counts.append(tally(np.frombuffer(data, np.uint8), bounds).counts)
    return np.concatenate(counts) if counts else np.zeros((0, KINDS), np.int64)


def _containers_left(column: pa.ChunkedArray, containers: list[tuple[str, ...]]) -> npt.NDArray[np.int64]:
    """How many of the modelled containers stand in the cleaned rest."""
    left = np.zeros(len(column), np.int64)
    for path in containers:
        inner = pc.match_substring(column, f'"{path[-1]}":{{')
        left += pc.fill_null(inner, False).to_numpy()
    return left
