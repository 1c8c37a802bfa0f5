"""Files below a table's folder that nothing refers to any more, and their removal.

Expired snapshots, compaction and writers that died leave data files and manifests behind; Iceberg removes none.
Data flow: files of the folder - what the table's metadata refers to -> since when each was found unreferenced (a
SQLite file beside the tables) -> data files that were so for a day, and others that were so for hours, are removed.
What counts is how long a file has been unreferenced, not its age: a reader that began before a commit replaced a
file goes on reading it.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.durable import local_path
from recsys_data.errors import Permanent, Transient

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from recsys_data.storage.iceberg.file_io import DurableFileIO, FoundFile

# For those who began to read: a query may last, and knows the data files that it reads.
MARGIN = timedelta(hours=23)
# Manifests are read while a query is planned, and every commit leaves some: a day of them would outweigh the data.
METADATA_MARGIN = timedelta(hours=3)
# What Iceberg writes; anything else in the folder is somebody else's.
SUFFIXES = (".parquet", ".avro", ".metadata.json")
# Clocks of files are a few milliseconds behind.
CLOCK_SECONDS = 2.0
# Those of an object store are another machine's.
STORE_CLOCK_SECONDS = 900.0
TABLES = """
    PRAGMA temp_store = FILE;
    CREATE TABLE IF NOT EXISTS unreferenced (path TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE found (path TEXT PRIMARY KEY, bytes INTEGER, written REAL) WITHOUT ROWID;
    CREATE TEMP TABLE referenced (path TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Orphans:
    """What was found in a table's folder.

    Attributes:
        removed: files that were removed, and how many bytes they had.
        waiting: files that nothing refers to, but not for long enough, and how many bytes they have.
    """

    removed: int
    removed_bytes: int
    waiting: int
    waiting_bytes: int


def remove_orphans(
    table: "Table",
    notes: Path,
    margin: timedelta = MARGIN,
    now: float | None = None,
    intended: Callable[[], Iterable[str]] = tuple,
    referenced: "Callable[[Table], Iterable[str]] | None" = None,
) -> Orphans:
    """Remove the files below the table's folder to which nothing has referred for `margin`.

    Paths are kept on the disk, not in memory, however many there are. Two calls at once wait for each other.

    Args:
        table: whose folder is searched; it is refreshed.
        notes: SQLite file that keeps since when a file is unreferenced; without it the time begins anew.
        margin: how long readers, and writers that have not committed yet, keep data files; other files for as long,
            but no longer than `METADATA_MARGIN`.
        now: seconds since 1970.
        intended: gives the files that an intent refers to, for tables that have one.
        referenced: gives what `references` gives.

    Raises:
        Permanent: the table refers to files that are not there, or not below its folder; nothing was removed.
        Transient: another process does the same.
    """
    now = time.time() if now is None else now
    referenced = referenced or references
    root, io = _spelled(table.location()), _io_of(table)
    with _notes(notes) as database:
        # Files first: what is written while the metadata is read is then no candidate.
        began = time.time()
        database.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?)", _files(io, root))
        _refer(database, referenced(table.refresh()))
        _check(database, table, io, began)
        _refer(database, intended())
        _note(database, now)
        # Somebody may have committed meanwhile.
        _refer(database, referenced(table.refresh()))
        _refer(database, intended())
        return _remove(database, io, now, margin)


def clear_referenced(table: "Table", notes: Path) -> None:
    """Take back what was noted of files that the table refers to now; to be called before files are replaced.

    A writer may have been about to commit a file when it was noted. Were that remembered when the file is replaced
    days later, it would go at once, and with it what readers began to read a moment before.

    Raises:
        Permanent, Transient: as `remove_orphans` does.
    """
    with _notes(notes) as database:
        _refer(database, references(table.refresh()))
        database.execute("DELETE FROM unreferenced WHERE path IN (SELECT path FROM referenced)")


@contextmanager
def _notes(notes: Path) -> Iterator[sqlite3.Connection]:
    """The notes, for one process at a time; what was changed in them is kept if all goes well."""
    notes.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(notes, timeout=30, isolation_level=None)) as database:
            database.executescript(TABLES)
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise Transient(
            f"{notes} cannot be written: {error}. Is table maintenance running elsewhere? Try again later."
        ) from None
    except sqlite3.DatabaseError as error:
        raise Permanent(f"{notes} is damaged: {error}. Remove it; unreferenced files then wait anew.") from None


def _spelled(location: str) -> str:
    """A location as the listing of files spells it."""
    path = local_path(location)
    return location if path is None else os.path.normpath(path)


def _io_of(table: "Table") -> "DurableFileIO":
    """Its file access, which can list files."""
    from recsys_data.storage.iceberg.file_io import DurableFileIO

    if not isinstance(table.io, DurableFileIO):
        raise Permanent(f"{'.'.join(table.name())} is read by {type(table.io).__name__}; expected the lake's own.")
    return table.io


def _files(io: "DurableFileIO", folder: str) -> "Iterator[FoundFile]":
    """The files below a folder that Iceberg may have written."""
    return (file for file in io.files_below(folder) if file.location.endswith(SUFFIXES))


def _refer(database: sqlite3.Connection, locations: Iterable[str]) -> None:
    """Add files that are referred to."""
    paths = ((_spelled(where),) for where in locations)
    database.executemany("INSERT OR IGNORE INTO referenced VALUES (?)", paths)


def references(table: "Table") -> Iterator[str]:
    """Everything that the current metadata, any of its snapshots or its log of earlier metadata refers to."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    yield from (file.statistics_path for file in table.metadata.statistics)
    yield from (file.statistics_path for file in table.metadata.partition_statistics)
    # Snapshots share most of their manifests.
    seen: set[str] = set()
    for snapshot in table.metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                yield manifest.manifest_path
                yield from (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))


def _check(database: sqlite3.Connection, table: "Table", io: "DurableFileIO", began: float) -> None:
    """Refuse to remove anything when files go by other names than those by which they are referred to."""
    root = _spelled(table.location())
    margin = CLOCK_SECONDS if local_path(root) else STORE_CLOCK_SECONDS
    unknown: Iterable[tuple[str]] = database.execute("SELECT path FROM referenced EXCEPT SELECT path FROM found")
    for (path,) in unknown:
        # Old metadata files go whenever somebody commits.
        if path.endswith(".metadata.json"):
            continue
        found = io.found(path) if path.startswith(f"{root}/") else None
        if found is None or found.written < began - margin:
            raise Permanent(
                f"{'.'.join(table.name())} refers to {path}, which was not found below {root}. "
                "Nothing was removed. Was the lake moved, or were files removed by hand? Bring them back."
            )


def _note(database: sqlite3.Connection, now: float) -> None:
    """Bring up to date which files are unreferenced, and since when."""
    gone = "path NOT IN (SELECT path FROM found) OR path IN (SELECT path FROM referenced)"
    database.execute(f"DELETE FROM unreferenced WHERE {gone}")
    unreferenced = "SELECT path, ? FROM found WHERE path NOT IN (SELECT path FROM referenced)"
    database.execute(f"INSERT OR IGNORE INTO unreferenced {unreferenced}", (now,))


def _remove(database: sqlite3.Connection, io: "DurableFileIO", now: float, margin: timedelta) -> Orphans:
    """Remove the files that nothing has referred to for their margin, and that were written before it."""
    orphans = "unreferenced JOIN found USING (path) WHERE path NOT IN (SELECT path FROM referenced)"
    data, metadata = (now - one.total_seconds() for one in (margin, min(margin, METADATA_MARGIN)))
    due = f"max(since, written) <= iif(path LIKE '%.parquet', {data!r}, {metadata!r})"
    waiting = database.execute(f"SELECT count(*), coalesce(sum(bytes), 0) FROM {orphans} AND NOT {due}").fetchone()
    removed = removed_bytes = 0
    for path, size in database.execute(f"SELECT path, bytes FROM {orphans} AND {due}"):
        io.delete(path)
        removed, removed_bytes = removed + 1, removed_bytes + size
    return Orphans(removed, removed_bytes, *waiting)
