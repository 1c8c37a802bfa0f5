"""What a lake held at a moment, so that the same rows are read later, whatever was ingested or expired since.

A stream is what lies before its positions in the event log: late events and replayed ones have later positions. A
history is the states that were known up to its newest moment, ends that came later undone. A count and a digest of the
rows say whether that is still so: retention, erasure and snapshots that were taken again take rows away.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from recsys_data.contracts.model import Contract, Kind
from recsys_data.errors import UserError
from recsys_data.features.lake import FeatureSources
from recsys_data.sql import quote
from recsys_data.storage.ledger import read_ledger

if TYPE_CHECKING:
    import duckdb

    from recsys_data.storage.tables import Lake


class Stored(msgspec.Struct, frozen=True):
    """What a dataset held.

    Attributes:
        version: of its contract.
        sha256: of the contract's file.
        snapshot_id: Iceberg's, for people: snapshots expire.
        positions: log partition -> position up to which it had been read; empty for a history.
        until: of a history, the newest moment at which a state began or ended, in microseconds since 1970.
        rows: how many.
        digest: of the rows' keys (and, of a history, when each was valid), whatever their order.
    """

    version: str
    sha256: str
    snapshot_id: int | None
    positions: dict[int, int]
    until: int | None
    rows: int
    digest: str


class StoredThen:
    """Reads datasets as they were.

    Args:
        lake: where they are.
        known: as in the point-in-time join.
        stored: dataset -> what it held; datasets that are not named are read as they are.
    """

    def __init__(self, lake: "Lake", known: str, stored: Mapping[str, Stored]) -> None:
        self.stored = stored
        self.features = FeatureSources(lake, known=known, kept=self.kept)

    def rows(self, dataset: str) -> str:
        """SQL of all rows of a dataset."""
        return self.features.rows(dataset)

    def kept(self, dataset: str, rows: str) -> str:
        """SQL of those of the rows of a dataset that it held."""
        return kept(self.stored[dataset], rows) if dataset in self.stored else rows


def kept(stored: Stored, rows: str) -> str:
    """SQL of those of the rows of a dataset that it held then."""
    if stored.until is not None:
        over = f"CASE WHEN epoch_us(valid_to) <= {stored.until} THEN valid_to END AS valid_to"
        open_ = f"coalesce(epoch_us(valid_to) > {stored.until}, true) AS is_current"
        return f"SELECT * REPLACE ({over}, {open_}) FROM ({rows}) WHERE epoch_us(valid_from) <= {stored.until}"
    before = [
        f"(log_partition = {partition} AND log_offset < {position})" for partition, position in stored.positions.items()
    ]
    return f"SELECT * FROM ({rows}) WHERE {' OR '.join(before) or 'false'}"


def stored_now(lake: "Lake", connection: "duckdb.DuckDBPyConnection", datasets: Iterable[str]) -> dict[str, Stored]:
    """What datasets hold now."""
    found = {}
    for name in datasets:
        contract, table = lake.contracts[name], lake.table(name)
        snapshot = table.current_snapshot()
        rows = FeatureSources(lake).rows(name)
        until = None
        if contract.kind is Kind.HISTORY:
            newest = "greatest(max(epoch_us(valid_from)), max(epoch_us(valid_to)))"
            ((until,),) = connection.execute(f"SELECT coalesce({newest}, 0) FROM ({rows})").fetchall()
        one = Stored(
            contract.version,
            file_digest(contract),
            snapshot.snapshot_id if snapshot else None,
            {} if contract.kind is Kind.HISTORY else dict(sorted(read_ledger(table).positions.items())),
            until,
            0,
            "",
        )
        count, digest = _digest(connection, contract, kept(one, rows))
        found[name] = msgspec.structs.replace(one, rows=count, digest=digest)
    return found


def check_stored(lake: "Lake", connection: "duckdb.DuckDBPyConnection", stored: Mapping[str, Stored]) -> None:
    """Refuse to read what is not there any more.

    Raises:
        UserError: a dataset does not have the rows that it had; says how many it has.
    """
    for name, one in stored.items():
        if name not in lake.contracts:
            raise UserError(f"{name} has no contract any more. Put the contract back, or build a new version.")
        found = _digest(connection, lake.contracts[name], kept(one, FeatureSources(lake).rows(name)))
        if found != (one.rows, one.digest):
            raise UserError(
                f"{name} does not hold what the training set was built from: {one.rows:,} rows then, {found[0]:,} of "
                "them now. Retention or erasure removed rows, or snapshots were taken again. Build a new version."
            )


def file_digest(contract: Contract) -> str:
    """SHA-256 of the file that a contract is declared in."""
    return sha256(contract.path.read_bytes()).hexdigest()


def _digest(connection: "duckdb.DuckDBPyConnection", contract: Contract, rows: str) -> tuple[int, str]:
    names = [column.name for column in contract.columns if column.key]
    if contract.kind is Kind.HISTORY:
        names += ["valid_to"]
    text = " || '|' || ".join(f"coalesce({quote(name)}::VARCHAR, '')" for name in names)
    # DuckDB's own hash may differ between its versions.
    found = connection.execute(f"SELECT count(*), bit_xor(md5_number_lower({text})) FROM ({rows})").fetchall()
    return found[0][0], f"{found[0][1] or 0:016x}"
