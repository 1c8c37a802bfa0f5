"""Intents: what a consumer has decided about log lines, durable before the first of its table commits.

Data flow: data files of all stream tables (synced) -> one intent file `WAREHOUSE/intents/NAME.json` (synced) -> one
commit a table, each with a ledger that names the intent. The dead letters come first: of two consumers that decide
about the same lines, the one that commits to them first wins. The next consumer completes the intent that they name,
from the file alone: no line is validated again, so that a contract, a setting or a library that changed meanwhile
cannot change an outcome. See docs/decisions/0009-intents.md.
"""

import logging
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from recsys_data.errors import Permanent, PositionMoved
from recsys_data.storage.commit import commit
from recsys_data.storage.ledger import Ledger, follows, is_made, read_ledger
from recsys_data.storage.parquet import described

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from recsys_data.storage.iceberg.file_io import DurableFileIO

logger = logging.getLogger(__name__)

FOLDER = "intents"
SUFFIX = ".json"


class StoredFile(msgspec.Struct, frozen=True, array_like=True):
    """A data file as its manifest will describe it; see `parquet.described`."""

    location: str
    partition: int | bool
    rows: int
    size: int
    nulls: dict[int, int]
    lower: dict[int, bytes]
    upper: dict[int, bytes]

    @classmethod
    def of(cls, file: "DataFile") -> "StoredFile":
        return cls(
            file.file_path,
            file.partition[0],
            file.record_count,
            file.file_size_in_bytes,
            file.null_value_counts or {},
            file.lower_bounds or {},
            file.upper_bounds or {},
        )

    def data_file(self, table: "Table") -> "DataFile":
        """The file to append to a table."""
        return described(table, self.location, self.partition, self.rows, self.size, self.nulls, self.lower, self.upper)


class LineOutcomes(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of each line `[start, end)` of a log partition: zlib of one byte a line (see `micro_batch.py`)."""

    partition: int
    start: int
    end: int
    packed: bytes

    @classmethod
    def of(cls, partition: int, start: int, end: int, outcomes: npt.NDArray[np.uint8]) -> "LineOutcomes":
        return cls(partition, start, end, zlib.compress(outcomes.tobytes(), 1))

    def outcomes(self) -> npt.NDArray[np.uint8]:
        """Shape (lines,)."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8)


class TableIntent(msgspec.Struct, frozen=True):
    """The commit of one table: its files, and its ledger before and after."""

    base: Ledger
    ledger: Ledger
    files: list[StoredFile]

    def is_pending(self, stored: Ledger) -> bool:
        """Whether this commit may still be made on top of what the table's ledger is."""
        return not is_made(stored, self.base, self.ledger) and follows(stored, self.base, self.ledger)


class Intent(msgspec.Struct, frozen=True):
    """One decision about log lines.

    Attributes:
        name: unique; the token of the ledgers that it makes.
        decided_at: when, UTC.
        decided_by: what it depends on: fingerprint of the contracts, settings, versions of code and libraries.
        lines: what became of each line.
        tables: by dataset, in the order of the commits.
    """

    name: str
    decided_at: datetime
    decided_by: dict[str, str]
    lines: list[LineOutcomes]
    tables: dict[str, TableIntent]


def write_intent(io: "FileIO", warehouse: str, intent: Intent) -> None:
    """Write an intent; it is on the disk when this returns."""
    with io.new_output(intent_location(warehouse, intent.name)).create(overwrite=True) as stream:
        stream.write(msgspec.json.encode(intent))


def read_intent(io: "FileIO", warehouse: str, name: str) -> Intent | None:
    """The intent of this name; None if its file is not there.

    Raises:
        Permanent: the file is damaged.
    """
    location = intent_location(warehouse, name)
    try:
        with io.new_input(location).open() as stream:
            return msgspec.json.decode(stream.read(), type=Intent)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Permanent(f"{location} is damaged: {error}. Restore the lake folder from a backup.") from error


def remove_intent(io: "FileIO", warehouse: str, name: str) -> None:
    """Remove an intent that every table has, or that no table can get any more."""
    if name:
        io.delete(intent_location(warehouse, name))


def complete(intent: Intent, tables: Mapping[str, "Table"], decided_by: Mapping[str, str]) -> None:
    """Make the commits of an intent that its process did not live to make; idempotent.

    Args:
        intent: the one that the first table names.
        tables: those of its tables that exist; they are refreshed.
        decided_by: as a decision of now would name it; a difference is logged.

    Raises:
        Transient: the catalog cannot be written now.
    """
    for name, part in intent.tables.items():
        if name not in tables:
            continue
        table = tables[name].refresh()
        if not part.is_pending(read_ledger(table)):
            continue
        changed = [key for key, value in intent.decided_by.items() if decided_by.get(key, value) != value]
        logger.warning(
            "Completing the commit of %s that another process began at %s%s.",
            name,
            intent.decided_at.isoformat(timespec="seconds"),
            f" (changed since, and not applied to it: {', '.join(changed)})" if changed else "",
        )
        try:
            commit(table, part.base, part.ledger, [file.data_file(table) for file in part.files], shared=True)
        except PositionMoved:
            # Another process has completed it and gone on.
            table.refresh()


def referenced_files(io: "DurableFileIO", warehouse: str, table: "Table") -> Iterator[str]:
    """Data files that an intent lists and its table does not have yet: no orphans."""
    for name in intents_in(io, warehouse):
        intent = intent_of(io, warehouse, name)
        part = intent.tables.get(table.name()[-1]) if intent else None
        if part and part.is_pending(read_ledger(table)):
            yield from (file.location for file in part.files)


def intents_in(io: "DurableFileIO", warehouse: str) -> list[str]:
    """Names of the intents that are there."""
    files = (file.location.rpartition("/")[2] for file in io.files_below(f"{warehouse}/{FOLDER}"))
    return [name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX)]


def intent_of(io: "FileIO", warehouse: str, name: str) -> Intent | None:
    """The intent of this name; None if its file is not there or was never written whole."""
    try:
        return read_intent(io, warehouse, name)
    except Permanent:
        return None


def intent_location(warehouse: str, name: str) -> str:
    """The file of an intent."""
    return f"{warehouse}/{FOLDER}/{name}{SUFFIX}"
