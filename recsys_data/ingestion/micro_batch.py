"""One slice of the log -> what becomes of each of its lines, as rows of the stream tables.

Data flow: `LogSlice` + `Decoded` -> deduplication -> `MicroBatch` (fates, rows per dataset).
Each line has exactly one fate; a line of a fate other than accepted gives no event row anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recsys_data.contracts.contract import Contract
from recsys_data.contracts.types import arrow_schema
from recsys_data.ingestion.decode import Decoded
from recsys_data.ingestion.deduplicate import SeenIds
from recsys_data.ingestion.log import LogSlice
from recsys_data.ingestion.plan import IN
from recsys_data.lake.ledger import Ledger

ACCEPTED, DUPLICATE, DEAD = range(3)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What became of the lines `[start, end)` of one log partition.

    Attributes:
        positions: int64, shape (lines,): log position of each line, increasing.
        fates: uint8, shape (lines,): ACCEPTED, DUPLICATE or DEAD.
        redacted: bool, shape (lines,): something was removed for want of consent.
        rows: rows per dataset, without `ingested_at`, in no order.
        received_at: microseconds since 1970 at which accepted lines were received, where known.
    """

    partition: int
    start: int
    end: int
    positions: npt.NDArray[np.int64]
    fates: npt.NDArray[np.uint8]
    redacted: npt.NDArray[np.bool_]
    rows: Mapping[str, pa.Table]
    received_at: npt.NDArray[np.int64]

    def rows_from(self, name: str, position: int) -> pa.Table:
        """The dataset's rows of lines at `position` or later."""
        rows = self.rows[name]
        return rows if position <= self.start else rows.filter(pc.greater_equal(rows["log_offset"], position))

    def advance(self, ledger: Ledger, rows: int) -> Ledger:
        """The ledger of a table after it took its `rows` of this batch; lines it had before are not counted again."""
        position = ledger.positions.get(self.partition, 0)
        new = self.positions >= position
        fates = np.bincount(self.fates[new], minlength=3)
        return Ledger(
            positions={**ledger.positions, self.partition: max(position, self.end)},
            read=ledger.read + int(new.sum()),
            accepted=ledger.accepted + int(fates[ACCEPTED]),
            duplicates=ledger.duplicates + int(fates[DUPLICATE]),
            dead_letters=ledger.dead_letters + int(fates[DEAD]),
            redacted=ledger.redacted + int((self.redacted & new & (self.fates == ACCEPTED)).sum()),
            rows=ledger.rows + rows,
            latencies=ledger.latencies,
        )


def build(
    lines: LogSlice, decoded: Decoded, seen: SeenIds, contracts: Mapping[str, Contract], now: datetime
) -> MicroBatch:
    """Settle the fate of every line. The ids of what is accepted are added to `seen`."""
    kept = _deduplicated(lines, decoded, seen)
    fates = np.full(len(lines), DEAD, np.uint8)
    redacted = np.zeros(len(lines), bool)
    received = []
    for (part, good), stored in zip(decoded.parts, kept, strict=True):
        at = part["row"].to_numpy()
        fates[at[good]] = DUPLICATE
        fates[at[stored]] = ACCEPTED
        redacted[at] = part["redacted"].to_numpy()
        received.append(part["received_at"].filter(pa.array(stored)).drop_null().cast(pa.int64()).to_numpy())
    rows = {
        name: _dead_rows(lines, decoded, contract, now)
        if contract.stream == "rejects"
        else pa.concat_tables(
            _rows(lines, part, stored, contract) for (part, _), stored in zip(decoded.parts, kept, strict=True)
        )
        for name, contract in contracts.items()
        if contract.stream
    }
    return MicroBatch(
        lines.partition,
        lines.start,
        lines.end,
        lines.positions,
        fates,
        redacted,
        rows,
        np.concatenate(received),
    )


def _deduplicated(lines: LogSlice, decoded: Decoded, seen: SeenIds) -> list[npt.NDArray[np.bool_]]:
    """For each part, which of its rows are good and not yet stored; they are added to `seen`."""
    picked = [np.flatnonzero(good) for _, good in decoded.parts]
    at = np.concatenate([part["row"].to_numpy()[rows] for (part, _), rows in zip(decoded.parts, picked, strict=True)])
    halves = [
        np.concatenate([part[name].to_numpy()[rows] for (part, _), rows in zip(decoded.parts, picked, strict=True)])
        for name in ("key_high", "key_low")
    ]
    offsets = lines.positions[at].astype(np.uint64)
    keys = np.stack([*halves, np.full(len(at), lines.partition, np.uint64), offsets])
    # The first delivery is kept, whichever way of decoding it took.
    in_order = np.argsort(at)
    new = np.empty(len(at), bool)
    new[in_order] = seen.keep(keys[:, in_order])
    seen.add(keys[:, new])
    kept = []
    for (part, _), rows, stored in zip(
        decoded.parts, picked, np.split(new, np.cumsum([len(rows) for rows in picked])[:-1]), strict=True
    ):
        mask = np.zeros(len(part), bool)
        mask[rows[stored]] = True
        kept.append(mask)
    return kept


def _rows(lines: LogSlice, part: pa.Table, stored: npt.NDArray[np.bool_], contract: Contract) -> pa.Table:
    """The dataset's rows among the stored ones of a part, with the place in the log that each came from."""
    member = stored & part[IN + contract.name].to_numpy()
    names = [column.name for column in contract.columns if column.source or column.logic]
    rows = part.select(names).filter(pa.array(member))
    at = part["row"].to_numpy()[member]
    places = {
        "log_partition": pa.array(np.full(len(at), lines.partition), pa.int64()),
        "log_offset": pa.array(lines.positions[at]),
    }
    for column in contract.columns:
        if column.system in places:
            rows = rows.append_column(column.name, places[column.system])
    return rows


def _dead_rows(lines: LogSlice, decoded: Decoded, contract: Contract, now: datetime) -> pa.Table:
    """Dead letters as rows, each with its line byte for byte."""
    columns = {
        "log_partition": [lines.partition] * len(decoded.dead),
        "log_offset": [int(lines.positions[letter.row]) for letter in decoded.dead],
        "rejected_at": [now] * len(decoded.dead),
        "reason": [letter.reason for letter in decoded.dead],
        "detail": [letter.detail for letter in decoded.dead],
        "dataset": [letter.dataset for letter in decoded.dead],
        "event_id": [letter.event_id for letter in decoded.dead],
        "received_at": [letter.received_at for letter in decoded.dead],
        "raw": [_line(lines, letter.row) for letter in decoded.dead],
    }
    return pa.table(columns, schema=arrow_schema(contract))


def _line(lines: LogSlice, row: int) -> bytes:
    return bytes(lines.data[lines.bounds[row] : lines.bounds[row + 1]]).removesuffix(b"\n")
