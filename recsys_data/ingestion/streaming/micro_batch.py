"""One decoded slice of the log -> what becomes of each of its lines, as rows of the stream tables.

Data flow: `Decoded` -> deduplication -> `MicroBatch` (outcomes, rows per dataset).
Each line has exactly one outcome; a line that is not accepted gives no event row anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys_data.contracts.model import Contract, Kind
from recsys_data.contracts.types import arrow_schema
from recsys_data.ingestion.streaming.decoding.decoded import Decoded
from recsys_data.ingestion.streaming.decoding.event_sql import IN
from recsys_data.ingestion.streaming.deduplication import DedupIndex
from recsys_data.storage.ledger import Ledger, LostRange, Outcomes
from recsys_data.storage.parquet import Selection

ACCEPTED, DUPLICATE, DEAD = range(3)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What became of the lines `[start, end)` of one log partition.

    Attributes:
        positions: int64, shape (lines,): log position of each line, increasing; the first one lies beyond `start` if
            the log had lost what lay between.
        outcomes: uint8, shape (lines,): ACCEPTED, DUPLICATE or DEAD.
        redacted: bool, shape (lines,): something was removed for want of consent.
        rows: rows per dataset, without `ingested_at` and columns that are empty throughout, in no order; each
            with its place in the log.
        received_at: microseconds since 1970 at which accepted lines were received, where known.
    """

    partition: int
    start: int
    end: int
    positions: npt.NDArray[np.int64]
    outcomes: npt.NDArray[np.uint8]
    redacted: npt.NDArray[np.bool_]
    rows: Mapping[str, list[Selection]]
    received_at: npt.NDArray[np.int64]

    def rows_from(self, name: str, position: int) -> list[Selection]:
        """The dataset's rows of lines at `position` or later."""
        if position <= self.start:
            return self.rows[name]
        return [
            Selection(table, mask & (table["log_offset"].to_numpy() >= position)) for table, mask in self.rows[name]
        ]

    def advance(self, ledger: Ledger) -> Ledger:
        """The counts of the log after this batch; lines before the ledger's position are not counted again."""
        position = ledger.positions.get(self.partition, self.start)
        new = self.positions >= position
        outcomes = np.bincount(self.outcomes[new], minlength=3).tolist()
        counted = ledger.partitions.get(self.partition, Outcomes(position))
        return msgspec.structs.replace(
            ledger,
            positions={**ledger.positions, self.partition: max(position, self.end)},
            read=ledger.read + int(new.sum()),
            accepted=ledger.accepted + outcomes[ACCEPTED],
            duplicates=ledger.duplicates + outcomes[DUPLICATE],
            dead_letters=ledger.dead_letters + outcomes[DEAD],
            redacted=ledger.redacted + int((self.redacted & new & (self.outcomes == ACCEPTED)).sum()),
            partitions={
                **ledger.partitions,
                self.partition: Outcomes(
                    counted.start,
                    counted.read + int(new.sum()),
                    counted.accepted + outcomes[ACCEPTED],
                    counted.duplicates + outcomes[DUPLICATE],
                    counted.dead_letters + outcomes[DEAD],
                ),
            },
            lost=(*ledger.lost, *self._lost_from(position)),
        )

    def _lost_from(self, position: int) -> list[LostRange]:
        """What the log no longer had between `position` and the first line."""
        start = max(self.start, position)
        first = int(self.positions[0]) if len(self.positions) else self.end
        return [LostRange(self.partition, start, first)] if first > start else []


def build(decoded: Decoded, index: DedupIndex, contracts: Mapping[str, Contract], frontier: int) -> MicroBatch:
    """Decide the outcome of every line from `frontier` on. The ids of what is accepted are added to `index`.

    Lines before the frontier were decided by an earlier commit and are read again for a table that is behind, e.g. of
    a dataset that was added: it takes the rows of those that were accepted, and that the contracts still accept.
    """
    decided = decoded.positions < frontier
    kept = _deduplicated(decoded, index, decided)
    outcomes = np.full(len(decoded.positions), DEAD, np.uint8)
    redacted = np.zeros(len(decoded.positions), bool)
    received = [np.zeros(0, np.int64)]
    for (part, good), stored in zip(decoded.candidates, kept, strict=True):
        at = part["row"].to_numpy()
        outcomes[at[good]] = DUPLICATE
        outcomes[at[stored]] = ACCEPTED
        redacted[at] = part["redacted"].to_numpy()
        if "received_at" in part.column_names:
            new = pa.array(stored & ~decided[at])
            received.append(part["received_at"].filter(new).drop_null().cast(pa.int64()).to_numpy())
    rows = {
        name: [_dead_rows(decoded, decided, contract)]
        if contract.kind is Kind.DEAD_LETTERS
        else [_rows(decoded, one.rows, stored, contract) for one, stored in zip(decoded.candidates, kept, strict=True)]
        for name, contract in contracts.items()
        if contract.is_stream
    }
    return MicroBatch(
        decoded.partition,
        decoded.start,
        decoded.end,
        decoded.positions,
        outcomes,
        redacted,
        rows,
        np.concatenate(received),
    )


def _deduplicated(decoded: Decoded, index: DedupIndex, decided: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """For each part, which of its rows are good and stored once; new ones are added to `index`."""
    chosen = [np.flatnonzero(good) for _, good in decoded.candidates]

    def gathered(name: str) -> npt.NDArray:
        columns = [part[name].to_numpy()[rows] for (part, _), rows in zip(decoded.candidates, chosen, strict=True)]
        return np.concatenate([np.zeros(0, np.uint64), *columns])

    at = gathered("row").astype(np.int64)
    halves = [gathered("key_high"), gathered("key_low")]
    offsets = decoded.positions[at].astype(np.uint64)
    keys = np.stack([*halves, np.full(len(at), decoded.partition, np.uint64), offsets])
    # The first delivery is kept, whichever way of decoding it took.
    in_order = np.argsort(at)
    stored = np.empty(len(at), bool)
    stored[in_order], new = index.filter_new(keys[:, in_order], decided[at[in_order]])
    index.add(keys[:, in_order[new]])
    kept = []
    begin = 0
    for (part, _), rows in zip(decoded.candidates, chosen, strict=True):
        mask = np.zeros(len(part), bool)
        mask[rows[stored[begin : begin + len(rows)]]] = True
        kept.append(mask)
        begin += len(rows)
    return kept


def _rows(decoded: Decoded, part: pa.Table, stored: npt.NDArray[np.bool_], contract: Contract) -> Selection:
    """The dataset's rows among the stored ones of a part, with the place in the log that each came from."""
    given = set(part.column_names)
    names = [c.name for c in contract.columns if (c.source or c.logic) and c.name in given]
    positions = {
        "log_partition": pa.array(np.full(len(part), decoded.partition, np.int64)),
        "log_offset": pa.array(decoded.positions[part["row"].to_numpy()]),
    }
    rows = part.select(names)
    for column in contract.columns:
        if column.system in positions:
            rows = rows.append_column(column.name, positions[column.system])
    return Selection(rows, stored & part[IN + contract.name].to_numpy())


def _dead_rows(decoded: Decoded, decided: npt.NDArray[np.bool_], contract: Contract) -> Selection:
    """Dead letters as rows, each with its line byte for byte; without those of lines that were decided before."""
    letters = decoded.dead.table()
    rows = letters["row"].to_numpy()
    columns = {
        "log_partition": pa.repeat(decoded.partition, len(letters)),
        "log_offset": pa.array(decoded.positions[rows]),
        "rejected_at": pa.repeat(pa.scalar(decoded.now, pa.timestamp("us", "UTC")), len(letters)),
        **{name: letters[name] for name in letters.column_names if name != "row"},
    }
    schema = arrow_schema(contract)
    return Selection(pa.table({name: columns[name] for name in schema.names}, schema=schema), ~decided[rows])
