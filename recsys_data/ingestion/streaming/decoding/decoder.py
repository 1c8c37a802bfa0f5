"""Log lines -> judged events and dead letters; nothing in between.

Data flow: `LogSlice` -> fast statement -> (unmodelled fields) extra statement -> (the rest) `strict.py` ->
`Decoded` -> `Decoder.settle` (`validator.py`) for what was read one by one. A way of decoding keeps the rows
that it proves right (see `value_counts.py`) and leaves the others to the next one; the last one gives the reason. All
three are judged by the same SQL of the contracts.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.model import Contract
from recsys_data.errors import BadRecord
from recsys_data.ingestion.streaming.decoding.bisection import UNDECODABLE, describe, is_of_the_input
from recsys_data.ingestion.streaming.decoding.decoded import DeadLetters, Decoded, Unjudged
from recsys_data.ingestion.streaming.decoding.event_sql import UNMODELLED, EventPlan
from recsys_data.ingestion.streaming.decoding.raw_lines import is_utf8, lines_table, pieces, places, raw_lines
from recsys_data.ingestion.streaming.decoding.repeated import repeats_key
from recsys_data.ingestion.streaming.decoding.strict import RFC3339, read_exactly
from recsys_data.ingestion.streaming.decoding.validator import Judge, filled
from recsys_data.ingestion.streaming.decoding.value_counts import (
    ARRAY,
    BOOLEAN,
    KINDS,
    NUMBER,
    OBJECT,
    STRING,
    tally,
    tally_text,
)
from recsys_data.ingestion.streaming.log import LogSlice

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
# Planning a statement takes as long as reading this many lines one by one, or fewer long ones.
WORTH_A_STATEMENT = 1000
WORTH_BYTES = 400_000
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
        self._fast = self._whole = self.plan.judged(self.plan.fast_leaves(), self.plan.proofs)
        self._rests = None if self.plan.judges_unmodelled else self.plan.rests()
        self._retries = True

    def decode(self, lines: LogSlice, now: datetime) -> Decoded:
        """Decode the lines; `now` (UTC) stands in where a receipt time is missing.

        Events that were read one by one are left to `settle`, unless they are many.

        Raises:
            Transient: memory or disk did not suffice.
        """
        self._judge.begin(now)
        dead = DeadLetters()
        settled = self._too_large(lines, dead)
        parts = self._many(lines, settled, dead)
        unjudged = self._exactly(lines, np.flatnonzero(~settled), dead)
        if parts:
            self._read_what_occurs(parts, unjudged)
        parts = [_kept(part.select(self.plan.judged_columns), good) for part, good in parts if good.any()]
        decoded = Decoded(lines.partition, lines.start, lines.end, lines.positions, now, parts, dead, unjudged)
        if len(unjudged) >= WORTH_A_STATEMENT or sum(len(one.raw) for one in unjudged) >= WORTH_BYTES:
            self.settle([decoded])
        return decoded

    def settle(self, slices: Sequence[Decoded]) -> None:
        """Judge what was read one by one, of many slices at once.

        Raises:
            Permanent: the SQL of the contracts fails whatever the event.
            Transient: memory or disk did not suffice.
        """
        self._judge.settle(slices)

    def _many(self, lines: LogSlice, settled: Mask, dead: DeadLetters) -> list[tuple[pa.Table, Mask]]:
        """Judge lines by the vectorised ways, if they are many, and mark those that are proven as settled.

        Where these ways fail, it is tried with halves; in a small piece all are left to be read one by one, which
        finds the lines at fault.
        """
        parts: list[tuple[pa.Table, Mask]] = []
        waiting = pieces(lines)[::-1]
        candidate: Mask | None = None
        counts = np.zeros((0, KINDS), np.int64)
        while waiting:
            piece = waiting.pop()
            done, found = settled.copy(), DeadLetters()
            try:
                if candidate is None:
                    candidate, counts = _candidates(lines, settled)
                if _worth_it(lines, piece, candidate):
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
            dead.extend(found)
        return parts

    def _vectorised(
        self,
        lines: LogSlice,
        table: pa.Table,
        counts: npt.NDArray[np.int64],
        settled: Mask,
        dead: DeadLetters,
        whole: bool = False,
    ) -> list[tuple[pa.Table, Mask]]:
        """Judge a table of lines by the fast statement, and mark those that are proven as settled.

        Lines of another kind than those before may have leaves that it does not read; they are read by the `whole` one.
        """
        judged = self._judge.query(self._whole if whole else self._fast, "lines", table)
        rows = judged["row"].to_numpy()
        delivered = self._delivered(judged)
        sound = _flags(judged["valid"]) & _flags(judged["exact_values"]) & self._times_are_settled(judged)
        # Texts are kept as they stand, so that counting does not see a key that stands twice in one.
        for column in self.plan.raw:
            sound &= ~repeats_key(_sent(judged, column.name))
        proven = sound & (delivered == counts[rows]).all(axis=1)
        settled[rows[proven]] = True
        raw = partial(raw_lines, lines)
        parts = [(judged, self._judge.good(judged, proven, dead, raw))]
        # Where DuckDB delivered more values of a kind than there are, it cast one: no statement can prove the line.
        cast = (np.delete(delivered, OBJECT, axis=1) > np.delete(counts[rows], OBJECT, axis=1)).any(axis=1)
        left = np.flatnonzero(sound & ~proven & ~cast)
        if self._rests and _are_many(lines, rows[left]):
            text = table.take(places(table["row"].to_numpy(), rows[left]))
            extra, proven = self._with_rests(text, judged.take(pa.array(left)), delivered[left], counts[rows[left]])
            settled[extra["row"].to_numpy()[proven]] = True
            parts.append((extra, self._judge.good(extra, proven, dead, raw)))
            left = left[~settled[rows[left]]]
        if not whole and self._retries and self._fast != self._whole and _are_many(lines, rows[left]):
            again = table.take(places(table["row"].to_numpy(), rows[left]))
            parts += self._vectorised(lines, again, counts, settled, dead, whole=True)
            # Where it was not for want of a leaf, lines like these are not tried again.
            self._retries = 2 * np.count_nonzero(settled[rows[left]]) >= len(left)
        return parts

    def _times_are_settled(self, judged: pa.Table) -> Mask:
        """Whether each row's times are read, or are none in any spelling that the exact way knows."""
        settled = ~_present(judged["bad_time"])
        if settled.all():
            return settled
        bad = np.flatnonzero(~settled)
        hopeless = np.ones(len(bad), bool)
        for column in self.plan.leaves:
            if column.type == "timestamp":
                given = judged["raw_" + column.name].take(pa.array(bad))
                unread = pc.is_null(judged[column.name].take(pa.array(bad)))
                hopeless &= ~_flags(pc.and_(unread, pc.match_substring_regex(given, f"^(?:{RFC3339.pattern})$")))
        settled[bad] = hopeless
        return settled

    def _with_rests(
        self, text: pa.Table, judged: pa.Table, delivered: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> tuple[pa.Table, Mask]:
        """Judged rows with the fields that have no column among their properties, and which rows that proves."""
        rests = self._judge.query(self._rests or "", "rests", text.append_column(UNMODELLED, judged[UNMODELLED]))
        rests = rests.take(places(rests["row"].to_numpy(), judged["row"].to_numpy()))
        delivered = delivered + tally_text(rests["clean"])
        # Containers that are left in the rest were counted as delivered objects too.
        delivered[:, OBJECT] -= _containers_left(rests["clean"], self.plan.containers)
        proven = ~_flags(rests["mixed"]) & (delivered == counts).all(axis=1) & ~repeats_key(rests[UNMODELLED])
        place = judged.column_names.index(UNMODELLED)
        return judged.set_column(place, UNMODELLED, rests[UNMODELLED]), proven

    def _read_what_occurs(self, parts: list[tuple[pa.Table, Mask]], unjudged: Sequence[Unjudged]) -> None:
        """Leave leaves that hardly occur to the exact way, and take those up that occur after all.

        Reading a leaf costs for every line, whether it is there or not.
        """
        # Lines that are no JSON say nothing of those to come.
        total = sum(pc.sum(part["valid"]).as_py() or 0 for part, _ in parts) + len(unjudged)
        if total < WORTH_A_STATEMENT:
            return
        read = set(self.plan.always_read)
        one_by_one = Counter(chain.from_iterable(one.leaves for one in unjudged))
        for column in self.plan.leaves:
            given = [_sent(part, column.name) for part, _ in parts]
            occurs = one_by_one[column.name] + sum(len(one) - one.null_count for one in given)
            if occurs / total > (RARE if column.name in self._read else OFTEN):
                read.add(column.name)
        if read != self._read:
            self._read = read
            self._retries = True
            self._fast = self.plan.judged(self.plan.fast_leaves(read), self.plan.proofs)

    def _too_large(self, lines: LogSlice, dead: DeadLetters) -> Mask:
        """Which lines are longer than accepted; they are explained in `dead`."""
        lengths = np.diff(lines.bounds)
        large = lengths > self.max_event_bytes + 1
        rows = np.flatnonzero(large)
        most = f"at most {self.max_event_bytes} are accepted"
        details = [f"the line has {length} bytes; {most}" for length in lengths[large].tolist()]
        dead.add(rows, raw_lines(lines, rows), reason="event_too_large", detail=details)
        return large

    def _delivered(self, judged: pa.Table) -> npt.NDArray[np.int64]:
        """How many values were delivered of each row, by kind; shape (rows, 5)."""
        delivered = np.zeros((len(judged), KINDS), np.int64)
        delivered[:, OBJECT] = judged["containers"].to_numpy()
        for column in self.plan.leaves:
            given = _sent(judged, column.name)
            if column in self.plan.raw:
                delivered += tally_text(given)
            if given.null_count < len(given):
                present = _flags(given) if column.consent else _present(given)
                delivered[:, _KIND[column.type]] += present
        return delivered

    def _exactly(self, lines: LogSlice, rows: Rows, dead: DeadLetters) -> list[Unjudged]:
        """Read lines one by one; those that are no events are explained in `dead`."""
        read: list[Unjudged] = []
        broken: list[tuple[int, str, str]] = []
        ends = lines.bounds[rows + 1]
        for row, first, end in zip(rows.tolist(), lines.bounds[rows].tolist(), ends.tolist(), strict=True):
            raw = lines.data[first:end].removesuffix(b"\n")
            try:
                read.append(Unjudged(row, raw, read_exactly(raw, self.plan)))
            except BadRecord as error:
                broken.append((row, error.reason, error.detail))
            except Exception as error:
                if not is_of_the_input(error):
                    raise
                broken.append((row, UNDECODABLE, describe(error)))
        at = np.array([row for row, _, _ in broken], np.int64)
        reasons, details = ([one[place] for one in broken] for place in (1, 2))
        dead.add(at, raw_lines(lines, at), reason=reasons, detail=details)
        return read


def _candidates(lines: LogSlice, settled: Mask) -> tuple[Mask, npt.NDArray[np.int64]]:
    """Which lines the vectorised ways may read, and the values in each line by kind; shape (lines, 5)."""
    data = np.frombuffer(lines.data, np.uint8)
    counted = tally(data, lines.bounds)
    return ~counted.odd & ~settled & is_utf8(lines, data), counted.counts


def _sent(judged: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as it was sent: before it was redacted, or found to be no time."""
    names = set(judged.column_names)
    return judged[next((sent for prefix in ("sent_", "raw_") if (sent := prefix + name) in names), name)]


def _worth_it(lines: LogSlice, piece: range, candidate: Mask) -> bool:
    """Whether the candidates in a piece of the lines are worth a statement."""
    return _are_many(lines, piece.start + np.flatnonzero(candidate[piece.start : piece.stop]))


def _are_many(lines: LogSlice, rows: npt.NDArray[np.integer]) -> bool:
    if len(rows) >= WORTH_A_STATEMENT:
        return True
    return int((lines.bounds[rows + 1] - lines.bounds[rows]).sum()) >= WORTH_BYTES


def _kept(part: pa.Table, good: Mask) -> tuple[pa.Table, Mask]:
    """A part and its good rows; without the others, which would wait for the commit too, where they are most."""
    if 2 * np.count_nonzero(good) < len(part):
        part, good = part.filter(pa.array(good)), np.ones(int(np.count_nonzero(good)), bool)
    return filled(part), good


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
