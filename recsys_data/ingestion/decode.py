"""Log lines -> judged events and dead letters; nothing in between.

Data flow: `LogSlice` -> fast statement -> (unmodelled fields) extra statement -> (the rest) `exact.py` ->
`Decoded`. A way of decoding keeps the rows that it proves right (see `tally.py`) and leaves the others to
the next one; the last one gives the reason. All three are judged by the same SQL of the contracts.
"""

import contextlib
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.contract import Contract
from recsys_data.contracts.rules import columns_of, reasons, session, set_variables
from recsys_data.errors import BadRecord
from recsys_data.ingestion.exact import read_exactly
from recsys_data.ingestion.log import LogSlice
from recsys_data.ingestion.plan import IN, EventPlan
from recsys_data.ingestion.tally import ARRAY, BOOLEAN, KINDS, NUMBER, OBJECT, STRING, tally

if TYPE_CHECKING:
    from collections.abc import Mapping

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
EXPECTED = {
    "timestamp": "RFC 3339 with an offset, e.g. 2026-01-02T03:04:05.678Z",
    "date": "a date, e.g. 2026-01-02",
}
WORTH_A_STATEMENT = 1000
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected line: its row in the slice, and why.

    Attributes:
        dataset: the dataset whose contract it breaks; None where it could not be read.
    """

    row: int
    reason: str
    detail: str
    dataset: str | None = None
    event_id: str | None = None
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of the lines of a slice.

    Attributes:
        parts: judged lines by way of decoding, in no order: `row` (int32, line of the slice), every column of
            the stream datasets, `in_<dataset>` (bool), `redacted` (bool), `key_high` and `key_low` (uint64:
            MD5 of the event id), and which of its rows are events that keep to the contracts (bool). Rows are
            picked once, when it is known which are stored, for each picking copies every column.
        dead: the lines that are not.
    """

    parts: list[tuple[pa.Table, Mask]]
    dead: list[DeadLetter]

    @property
    def events(self) -> pa.Table:
        """The events that keep to the contracts, as one table."""
        return pa.concat_tables(table.filter(pa.array(good)) for table, good in self.parts)


class Decoder:
    """Decodes slices in a DuckDB session of its own; use one per thread."""

    def __init__(self, contracts: "Mapping[str, Contract]", first_day: date, max_event_bytes: int) -> None:
        self.plan = EventPlan(contracts)
        self.first_day = first_day
        self.max_event_bytes = max_event_bytes
        self._session = session()
        proofs = self.plan.proofs
        self._fast = self.plan.judged(self.plan.fast_leaves(), proofs)
        self._extra = self.plan.judged(self.plan.extra_leaves(), [*proofs, "clean", "mixed"])
        self._exact = self.plan.judged("SELECT * FROM leaves", [])
        self._nothing = self._judge_leaves([])

    def decode(self, lines: LogSlice, now: datetime) -> Decoded:
        """Decode and judge every line; `now` (UTC) stands in where a receipt time is missing."""
        set_variables(self._session, self.first_day, now)
        data = np.frombuffer(lines.data, np.uint8)
        dead = self._too_large(lines)
        counted = tally(data, lines.bounds)
        candidate = ~counted.odd & _is_utf8(lines, data)
        candidate[[letter.row for letter in dead]] = False
        settled = np.zeros(len(lines), bool)
        settled[[letter.row for letter in dead]] = True
        parts = []
        for statement in (self._fast, self._extra):
            rows = np.flatnonzero(candidate & ~settled)
            # Planning a statement takes as long as reading this many lines one by one.
            if len(rows) < WORTH_A_STATEMENT:
                break
            judged = self._run(statement, lines, rows)
            candidate[judged["row"].to_numpy()] = _flags(judged["valid"])
            proven = self._proven(judged, counted.counts)
            settled[judged["row"].to_numpy()[proven]] = True
            parts.append((judged.select(self.plan.judged_columns), self._good(judged, proven, dead)))
        judged = self._exactly(lines, np.flatnonzero(~settled), dead)
        good = self._good(judged, np.ones(len(judged), bool), dead)
        return Decoded([*parts, (judged.select(self.plan.judged_columns), good)], dead)

    def _good(self, judged: pa.Table, proven: Mask, dead: list[DeadLetter]) -> Mask:
        """Which proven rows break no contract; the proven ones that do are explained in `dead`."""
        rejected = _present(judged["reason"])
        broken = judged.filter(pa.array(proven & rejected))
        dead += [self._explain(record) for record in broken.to_pylist()]
        return proven & ~rejected

    def _too_large(self, lines: LogSlice) -> list[DeadLetter]:
        lengths = np.diff(lines.bounds)
        return [
            DeadLetter(
                int(row),
                "event_too_large",
                f"the line has {lengths[row]} bytes; at most {self.max_event_bytes} are accepted",
            )
            for row in np.flatnonzero(lengths > self.max_event_bytes + 1)
        ]

    def _run(self, statement: str, lines: LogSlice, rows: Rows) -> pa.Table:
        buffers = [None, pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)]
        picked = pa.BinaryArray.from_buffers(pa.binary(), len(lines), buffers).take(pa.array(rows))
        # These lines were found to be UTF-8, so that their bytes can be taken for text as they are.
        table = pa.table({"row": pa.array(rows, pa.int32()), "line": picked.view(pa.string())})
        return self._query(statement, "lines", table)

    def _query(self, statement: str, name: str, table: pa.Table) -> pa.Table:
        self._session.register(name, table)
        try:
            return self._session.sql(statement).to_arrow_table()
        finally:
            self._session.unregister(name)

    def _proven(self, judged: pa.Table, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Rows of which every value was delivered under its own key and with its own type."""
        delivered = np.zeros((len(judged), KINDS), np.int64)
        delivered[:, OBJECT] = judged["containers"].to_numpy()
        for column in self.plan.leaves:
            sent = "sent_" + column.name
            given = judged[sent if sent in judged.column_names else column.name]
            if column in self.plan.raw:
                delivered += _tally_text(given)
            if given.null_count < len(given):
                present = _flags(given) if column.consent else _present(given)
                delivered[:, _KIND[column.type]] += present
        proven = _flags(judged["valid"]) & _flags(judged["exact_values"]) & ~_present(judged["bad_time"])
        if "clean" in judged.column_names:
            delivered += _tally_text(judged["clean"])
            # Containers that are left in the rest were counted as delivered objects too.
            delivered[:, OBJECT] -= _containers_left(judged["clean"], self.plan.containers)
            proven &= ~_flags(judged["mixed"])
        return proven & (delivered == counts[judged["row"].to_numpy()]).all(axis=1)

    def _exactly(self, lines: LogSlice, rows: Rows, dead: list[DeadLetter]) -> pa.Table:
        """Read lines one by one and judge those that are events; the others are explained in `dead`."""
        records = []
        for row in rows.tolist():
            line = bytes(lines.data[lines.bounds[row] : lines.bounds[row + 1]])
            try:
                records.append({"row": row, **read_exactly(line, self.plan)})
            except BadRecord as error:
                dead.append(DeadLetter(row, error.reason, error.detail))
        return self._judge_leaves(records) if records else self._nothing

    def _judge_leaves(self, records: list[dict[str, Any]]) -> pa.Table:
        fields = [("row", pa.int32()), *((c.name, _leaf_type(c.type)) for c in self.plan.leaves)]
        return self._query(self._exact, "leaves", pa.Table.from_pylist(records, pa.schema(fields)))

    def _explain(self, record: dict[str, Any]) -> DeadLetter:
        """The dead letter of an event that can be read but is rejected."""
        reason = record["reason"]
        dataset, detail = None, ""
        for contract in self.plan.contracts:
            broken = dict(reasons(contract))
            if record[IN + contract.name] and reason in broken:
                dataset = contract.name
                detail = _detail(contract, reason, broken[reason], record)
                break
        if record["bad_time"]:
            name = record["bad_time"]
            expected = EXPECTED[self.plan.columns[name].type]
            detail = f"{name} is {record['raw_' + name]!r}; expected {expected}"
        return DeadLetter(record["row"], reason, detail, dataset, record["event_id"], record["received_at"])


def _detail(contract: Contract, reason: str, broken: str, record: dict[str, Any]) -> str:
    found = ", ".join(f"{name} = {record[name]!r}" for name in columns_of(broken, contract)) or "nothing"
    rule = next((rule for rule in contract.rules if rule.name == reason), None)
    return f"{rule.description} Found {found}." if rule else f"Found {found}."


def _is_utf8(lines: LogSlice, data: npt.NDArray[np.uint8]) -> Mask:
    """Which lines are UTF-8; bytes that are not must stay out of sight of what trusts text."""
    valid = np.ones(len(lines), bool)
    text = pa.StringArray.from_buffers(
        len(lines), pa.py_buffer(lines.bounds.astype(np.int32)), pa.py_buffer(lines.data)
    )
    with contextlib.suppress(pa.ArrowInvalid):
        text.validate(full=True)
        return valid
    beyond_ascii = np.diff(np.searchsorted(np.flatnonzero(data >= 0x80), lines.bounds)) > 0
    for row in np.flatnonzero(beyond_ascii).tolist():
        try:
            str(lines.data[lines.bounds[row] : lines.bounds[row + 1]], "utf-8")
        except UnicodeDecodeError:
            valid[row] = False
    return valid


def _leaf_type(logical: str) -> pa.DataType:
    if logical == "integer":
        return pa.int64()
    return {"number": pa.float64(), "boolean": pa.bool_()}.get(logical, pa.string())


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
