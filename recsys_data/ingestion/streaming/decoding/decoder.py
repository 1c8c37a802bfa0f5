"""Log lines -> candidates, deferred events and dead letters; nothing in between.

Data flow: `LogSlice` -> fast statement -> (unmodelled fields) extra statement -> (the rest) `strict.py` -> `Decoded`.
A way of decoding keeps the rows that it proves right (see `value_counts.py`) and leaves the others to the next one; the
last one gives the reason. All are validated by the same SQL of the contracts: what was read one by one later, with that
of other slices (`validator.py`).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.errors import BadRecord
from recsys_data.ingestion.streaming.decoding.decoded import Candidates, DeadLetters, Decoded, Deferred, filled
from recsys_data.ingestion.streaming.decoding.event_sql import UNMODELLED, EventSession
from recsys_data.ingestion.streaming.decoding.explain import UNDECODABLE, Explainer, describe, is_of_the_input
from recsys_data.ingestion.streaming.decoding.raw_lines import is_utf8, lines_table, pieces, places, raw_lines
from recsys_data.ingestion.streaming.decoding.strict import RFC3339, decode_strictly
from recsys_data.ingestion.streaming.decoding.value_counts import (
    ARRAY,
    BOOLEAN,
    KINDS,
    NUMBER,
    OBJECT,
    STRING,
    count_text_values,
    count_values,
    repeats_key,
)
from recsys_data.ingestion.streaming.limits import DEFAULT_LIMITS, ConsumerLimits
from recsys_data.ingestion.streaming.log import LogSlice

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
# Shares of lines below which a field is no longer read by the fast statement, and above which it is again.
RARE, OFTEN = 0.001, 0.004
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Decoder:
    """Decodes slices in a session that no other thread uses."""

    def __init__(self, session: EventSession, max_event_bytes: int, limits: ConsumerLimits = DEFAULT_LIMITS) -> None:
        self.session = session
        self.schema = session.schema
        self.max_event_bytes = max_event_bytes
        self.limits = limits
        self._explainer = Explainer(self.schema)
        self._read = {column.name for column in self.schema.fields}
        self._fast = self._whole = self.schema.validated(self.schema.fast_fields(), self.schema.proofs)
        self._rests = None if self.schema.validates_unmodelled else self.schema.rests()
        self._retries = True

    def decode(self, lines: LogSlice, now: datetime) -> Decoded:
        """Decode the lines; `now` (UTC) stands in where a receipt time is missing.

        Raises:
            Transient: memory or disk did not suffice.
        """
        self.session.begin(now)
        large, dead = self._too_large(lines)
        decided, found, letters = self._many(lines, large)
        deferred, broken = self._exactly(lines, np.flatnonzero(~decided))
        if found:
            self._read_what_occurs([rows for rows, _ in found], deferred)
        columns = self.schema.validated_columns
        candidates = tuple(_kept(rows.select(columns), valid) for rows, valid in found if valid.any())
        dead += letters + broken
        return Decoded(lines.partition, lines.start, lines.end, lines.positions, now, candidates, deferred, dead)

    def _many(self, lines: LogSlice, decided: Mask) -> tuple[Mask, list[Candidates], DeadLetters]:
        """Validate lines by the vectorised ways, if they are many; gives which lines are decided, and as what.

        Where these ways fail, it is tried with halves; in a small piece all are left to be read one by one, which
        finds the lines at fault.
        """
        decided = decided.copy()
        parts: list[Candidates] = []
        dead = DeadLetters()
        waiting = pieces(lines)[::-1]
        candidate: Mask | None = None
        counts = np.zeros((0, KINDS), np.int64)
        while waiting:
            piece = waiting.pop()
            try:
                if candidate is None:
                    candidate, counts = _candidates(lines, decided)
                if not self._are_many(lines, piece.start + np.flatnonzero(candidate[piece.start : piece.stop])):
                    continue
                table = lines_table(lines, candidate).slice(piece.start, len(piece))
                proven = self._vectorised(lines, table, counts)
                split = [self._explainer.split(*one, partial(raw_lines, lines)) for one in proven]
            except Exception as error:
                if not is_of_the_input(error):
                    raise
                logger.warning("Decoding %d lines at once failed: %s", len(piece), describe(error))
                if candidate is not None and len(piece) > self.limits.small_piece_lines:
                    middle = len(piece) // 2
                    waiting += [piece[middle:], piece[:middle]]
                continue
            for (rows, mask), (valid, letters) in zip(proven, split, strict=True):
                decided[rows["row"].to_numpy()[mask]] = True
                parts.append(Candidates(rows, valid))
                dead += letters
        return decided, parts, dead

    def _vectorised(
        self, lines: LogSlice, table: pa.Table, counts: npt.NDArray[np.int64], whole: bool = False
    ) -> list[tuple[pa.Table, Mask]]:
        """Validate a table of lines by the fast statement; gives rows, and which of them are proven.

        Lines of another kind than those before may have fields that it does not read; they are read by the `whole` one.
        """
        validated = self.session.query(self._whole if whole else self._fast, "lines", table)
        rows = validated["row"].to_numpy()
        delivered = self._delivered(validated)
        sound = _flags(validated["valid"]) & _flags(validated["exact_values"]) & self._times_are_settled(validated)
        # Texts are kept as they stand, so that counting does not see a key that stands twice in one.
        for column in self.schema.raw:
            sound &= ~repeats_key(_sent(validated, column.name))
        proven = sound & (delivered == counts[rows]).all(axis=1)
        found = [(validated, proven)]
        # Where DuckDB delivered more values of a kind than there are, it cast one: no statement can prove the line.
        cast = (np.delete(delivered, OBJECT, axis=1) > np.delete(counts[rows], OBJECT, axis=1)).any(axis=1)
        left = np.flatnonzero(sound & ~proven & ~cast)
        if self._rests and self._are_many(lines, rows[left]):
            text = table.take(places(table["row"].to_numpy(), rows[left]))
            extra, proven = self._with_rests(text, validated.take(pa.array(left)), delivered[left], counts[rows[left]])
            found.append((extra, proven))
            left = left[~proven]
        if not whole and self._retries and self._fast != self._whole and self._are_many(lines, rows[left]):
            again = self._vectorised(lines, table.take(places(table["row"].to_numpy(), rows[left])), counts, whole=True)
            # Where it was not for want of a field, lines like these are not tried again.
            self._retries = 2 * sum(np.count_nonzero(proven) for _, proven in again) >= len(left)
            found += again
        return found

    def _are_many(self, lines: LogSlice, rows: npt.NDArray[np.integer]) -> bool:
        size = int((lines.bounds[rows + 1] - lines.bounds[rows]).sum())
        return self.limits.are_worth_a_statement(len(rows), size)

    def _times_are_settled(self, validated: pa.Table) -> Mask:
        """Whether each row's times are read, or are none in any spelling that the exact way knows."""
        decided = ~_present(validated["bad_time"])
        if decided.all():
            return decided
        bad = np.flatnonzero(~decided)
        hopeless = np.ones(len(bad), bool)
        for column in self.schema.fields:
            if column.type == "timestamp":
                given = validated["raw_" + column.name].take(pa.array(bad))
                unread = pc.is_null(validated[column.name].take(pa.array(bad)))
                hopeless &= ~_flags(pc.and_(unread, pc.match_substring_regex(given, f"^(?:{RFC3339.pattern})$")))
        decided[bad] = hopeless
        return decided

    def _with_rests(
        self, text: pa.Table, validated: pa.Table, delivered: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> tuple[pa.Table, Mask]:
        """Validated rows with the fields that have no column among their properties, and which rows that proves."""
        rests = self.session.query(self._rests or "", "rests", text.append_column(UNMODELLED, validated[UNMODELLED]))
        rests = rests.take(places(rests["row"].to_numpy(), validated["row"].to_numpy()))
        delivered = delivered + count_text_values(rests["clean"])
        # Containers that are left in the rest were counted as delivered objects too.
        delivered[:, OBJECT] -= _containers_left(rests["clean"], self.schema.containers)
        proven = ~_flags(rests["mixed"]) & (delivered == counts).all(axis=1) & ~repeats_key(rests[UNMODELLED])
        place = validated.column_names.index(UNMODELLED)
        return validated.set_column(place, UNMODELLED, rests[UNMODELLED]), proven

    def _read_what_occurs(self, parts: Sequence[pa.Table], deferred: Sequence[Deferred]) -> None:
        """Leave fields that hardly occur to the strict decoder, and read those again that occur after all.

        Reading a field costs for every line, whether it is there or not.
        """
        # Lines that are not JSON say nothing of those to come.
        total = sum(pc.sum(part["valid"]).as_py() or 0 for part in parts) + len(deferred)
        if total < self.limits.statement_lines:
            return
        read = set(self.schema.always_read)
        one_by_one = Counter(chain.from_iterable(one.fields for one in deferred))
        for column in self.schema.fields:
            given = [_sent(part, column.name) for part in parts]
            occurs = one_by_one[column.name] + sum(len(one) - one.null_count for one in given)
            if occurs / total > (RARE if column.name in self._read else OFTEN):
                read.add(column.name)
        if read != self._read:
            self._read = read
            self._retries = True
            self._fast = self.schema.validated(self.schema.fast_fields(read), self.schema.proofs)

    def _too_large(self, lines: LogSlice) -> tuple[Mask, DeadLetters]:
        """Which lines are longer than accepted."""
        lengths = np.diff(lines.bounds)
        large = lengths > self.max_event_bytes + 1
        rows = np.flatnonzero(large)
        most = f"at most {self.max_event_bytes} are accepted"
        details = [f"the line has {length} bytes; {most}" for length in lengths[large].tolist()]
        return large, DeadLetters.of(rows, raw_lines(lines, rows), reason="event_too_large", detail=details)

    def _delivered(self, validated: pa.Table) -> npt.NDArray[np.int64]:
        """How many values were delivered of each row, by kind; shape (rows, 5)."""
        delivered = np.zeros((len(validated), KINDS), np.int64)
        delivered[:, OBJECT] = validated["containers"].to_numpy()
        for column in self.schema.fields:
            given = _sent(validated, column.name)
            if column in self.schema.raw:
                delivered += count_text_values(given)
            if given.null_count < len(given):
                present = _flags(given) if column.consent else _present(given)
                delivered[:, _KIND[column.type]] += present
        return delivered

    def _exactly(self, lines: LogSlice, rows: Rows) -> tuple[tuple[Deferred, ...], DeadLetters]:
        """Read lines one by one: events, and dead letters of those that are none."""
        read: list[Deferred] = []
        broken: list[tuple[int, str, str]] = []
        ends = lines.bounds[rows + 1]
        for row, first, end in zip(rows.tolist(), lines.bounds[rows].tolist(), ends.tolist(), strict=True):
            raw = lines.data[first:end].removesuffix(b"\n")
            try:
                read.append(Deferred(row, raw, decode_strictly(raw, self.schema)))
            except BadRecord as error:
                broken.append((row, error.reason, error.detail))
            except Exception as error:
                if not is_of_the_input(error):
                    raise
                broken.append((row, UNDECODABLE, describe(error)))
        at = np.array([row for row, _, _ in broken], np.int64)
        reasons, details = ([one[place] for one in broken] for place in (1, 2))
        return tuple(read), DeadLetters.of(at, raw_lines(lines, at), reason=reasons, detail=details)


def _candidates(lines: LogSlice, decided: Mask) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Which lines the vectorised ways may read, and the values in each line by kind; shape (lines, 5)."""
    data = np.frombuffer(lines.data, np.uint8)
    counted = count_values(data, lines.bounds)
    return ~counted.ambiguous & ~decided & is_utf8(lines, data), counted.counts


def _sent(validated: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as it was sent: before it was redacted, or found to be no time."""
    names = set(validated.column_names)
    return validated[next((sent for prefix in ("sent_", "raw_") if (sent := prefix + name) in names), name)]


def _kept(rows: pa.Table, valid: Mask) -> Candidates:
    """Without the rows that are not valid, which would wait for the commit too, where they are most."""
    if 2 * np.count_nonzero(valid) < len(rows):
        rows, valid = rows.filter(pa.array(valid)), np.ones(int(np.count_nonzero(valid)), bool)
    return Candidates(filled(rows), valid)


def _flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return pc.fill_null(column, False).to_numpy()


def _present(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return pc.is_valid(column).to_numpy()


def _containers_left(column: pa.ChunkedArray, containers: list[tuple[str, ...]]) -> npt.NDArray[np.int64]:
    """How many of the modelled containers stand in the cleaned rest."""
    left = np.zeros(len(column), np.int64)
    for path in containers:
        inner = pc.match_substring(column, f'"{path[-1]}":{{')
        left += pc.fill_null(inner, False).to_numpy()
    return left
