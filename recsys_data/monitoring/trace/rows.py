"""What the stream tables hold of an event: rows with the files and commits they came with, and dead letters.

Data flow: data files (DuckDB) for the rows, manifests for who added their files -> `StoredRow`, `DeadLetter`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.contracts.model import Contract
from recsys_data.contracts.rules import session
from recsys_data.days import day_key
from recsys_data.durable import local_path
from recsys_data.errors import Transient
from recsys_data.sql import quote
from recsys_data.storage.availability import read_failure
from recsys_data.storage.query import data_files, relation

if TYPE_CHECKING:
    from pyiceberg.table import Table

LogPosition = tuple[int, int]  # log partition, position
# More rows of one id than this are not listed.
MOST = 200
SHOWN_BYTES = 600
POSITION = ("log_partition", "log_offset")


class StoredRow(msgspec.Struct, frozen=True):
    """A row of a stream table.

    Attributes:
        day: partition of the table (UTC day of the event).
        snapshot: the snapshot that added the data file; compaction adds a file anew.
        added_at: when that was; None where the snapshot has expired.
        seconds: from receipt until the row was written.
        row: its columns; None unless asked for.
    """

    dataset: str
    log_partition: int
    log_offset: int
    day: str
    file: str
    snapshot: int | None
    added_at: datetime | None
    ingested_at: datetime | None
    received_at: datetime | None
    seconds: float | None
    row: dict[str, Any] | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """A rejected line; `raw` is its beginning, None unless asked for, `bytes` its length."""

    dataset: str
    reason: str
    detail: str | None
    log_partition: int
    log_offset: int
    rejected_at: datetime | None
    received_at: datetime | None
    bytes: int
    raw: str | None = None


def rows_of(
    table: "Table", contract: Contract, ids: Sequence[str], positions: Collection[LogPosition], all_columns: bool
) -> list[dict[str, Any]]:
    """Rows with one of these ids or positions, those of positions first, each with its file; `MOST` + 1 at most.

    Raises:
        Transient: the files were replaced meanwhile.
    """
    import duckdb

    file = file_column(contract)
    needed = (*POSITION, "event_id", "received_at", stored_at_column(contract), "reason", "detail", "raw")
    stored = [field.name for field in table.schema().fields if all_columns or field.name in needed]
    at = " OR ".join(f"(log_partition = {partition} AND log_offset = {offset})" for partition, offset in positions)
    there = f"({at})" if at else "(log_partition IS NULL)"
    wanted = f"event_id IN ({', '.join('?' * len(ids))})"
    query = (
        f"SELECT {', '.join(map(quote, [*stored, file]))} FROM ({relation(table, data_files(table), file)}) "
        f"WHERE {wanted} OR {there} ORDER BY {there} DESC, log_partition, log_offset LIMIT {MOST + 1}"
    )
    with session(parallel=True) as connection:
        try:
            return connection.sql(query, params=list(ids)).to_arrow_table().to_pylist()
        except duckdb.Error as error:
            if (said := read_failure(error)) is None:
                raise
            raise Transient(
                f"{contract.name} could not be read, because its files changed: {said}. Try again."
            ) from None


def file_column(contract: Contract) -> str:
    """A name for the file of a row that no column has."""
    name = "data_file"
    while any(column.name.lower() == name for column in contract.columns):
        name += "_"
    return name


def stored_at_column(contract: Contract) -> str:
    """The column that says when a row was stored."""
    return next((column.name for column in contract.columns if column.system == "ingested_at"), "")


def stored_rows(table: "Table", contract: Contract, found: Sequence[dict[str, Any]], rows: bool) -> list[StoredRow]:
    """What `rows_of` found, with where it lies; with `rows` also its columns."""
    file = file_column(contract)
    origins = _origins(table, {one[file] for one in found})
    result = []
    for one in found:
        path = one.pop(file)
        snapshot_id, day = origins.get(path, (None, None))
        snapshot = None if snapshot_id is None else table.metadata.snapshot_by_id(snapshot_id)
        ingested, received = one.get(stored_at_column(contract)), one.get("received_at")
        result.append(
            StoredRow(
                dataset=contract.name,
                log_partition=one["log_partition"],
                log_offset=one["log_offset"],
                day="" if day is None else day_key(day),
                file=path,
                snapshot=snapshot_id,
                added_at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC) if snapshot else None,
                ingested_at=ingested,
                received_at=received,
                seconds=round((ingested - received).total_seconds(), 3) if ingested and received else None,
                row=one if rows else None,
            )
        )
    return result


def _origins(table: "Table", files: set[str]) -> Mapping[str, tuple[int | None, int]]:
    """The snapshot that added each file, and its partition (days since 1970), by the file's path."""
    origins = {}
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot and files else ():
        for entry in manifest.fetch_manifest_entry(table.io):
            path = str(local_path(entry.data_file.file_path) or entry.data_file.file_path)
            if path in files:
                origins[path] = (entry.snapshot_id, entry.data_file.partition[0])
    return origins


def dead_letter(contract: Contract, one: dict[str, Any], rows: bool) -> DeadLetter:
    """A row of a table of rejects; with `rows` also the beginning of its line."""
    raw = one["raw"] or b""
    return DeadLetter(
        dataset=contract.name,
        reason=one["reason"],
        detail=one["detail"],
        log_partition=one["log_partition"],
        log_offset=one["log_offset"],
        rejected_at=one.get(stored_at_column(contract)),
        received_at=one.get("received_at"),
        bytes=len(raw),
        raw=shortened(raw) if rows else None,
    )


def shortened(raw: bytes) -> str:
    r"""The beginning of a line as text: bytes that are not UTF-8 and every control character escaped.

    >>> shortened(b'{"a":"\xff\x1b[31m"}'), shortened(b"x" * 601)[-20:]
    ('{"a":"\\xff\\x1b[31m"}', 'xxxxxxx… (601 bytes)')
    """
    text = raw[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(raw) <= SHOWN_BYTES else f"{text}… ({len(raw):,} bytes)"
