"""Rows of snapshot datasets that clients push one by one, kept as the full state that a snapshot is made of.

Data flow: `put` -> a SQLite file of the state folder, durable -> `publish` -> `landing/DATASET/DAY/pushed.jsonl` of the
current UTC day, which is a whole state -> the snapshot of that day, once it is over. Several processes may share the
file.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from recsys_data.contracts.model import Contract
from recsys_data.contracts.servers import LANDING
from recsys_data.errors import Transient
from recsys_data.leases import file_lock
from recsys_data.settings import Settings
from recsys_data.sources.datasets.landing import State, land

Row = dict[str, Any]

FILE = "rows.db"
LOCK = "publish.lock"
SOURCE = "pushed"
BUSY_SECONDS = 10.0
BATCH = 10_000
TABLES = """
    CREATE TABLE IF NOT EXISTS rows (
        dataset TEXT, key TEXT, row BLOB, withdrawn INTEGER NOT NULL, PRIMARY KEY (dataset, key)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS withdrawn ON rows (dataset) WHERE withdrawn;
    CREATE TABLE IF NOT EXISTS changes (dataset TEXT PRIMARY KEY, count INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS published (dataset TEXT PRIMARY KEY, day TEXT NOT NULL, changes INTEGER NOT NULL);"""


class PushedRows:
    """The state of all datasets that rows are pushed to.

    A deleted row is remembered as NULL, so that `withdrawn` knows it.

    Args:
        settings: say where files are.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.pushed_dir
        self._landing = settings.landing_dir
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._withdrawn: dict[str, tuple[int, frozenset[str]]] = {}

    def put(self, dataset: str, rows: Mapping[str, Row | None], *, merge: bool = False) -> None:
        """Replace rows by their keys, all or none; they are durable when this returns.

        Args:
            dataset: which.
            rows: by key, without the key's own column; None deletes.
            merge: keep columns that a row does not name.

        Raises:
            Transient: the file cannot be written now.
        """
        with self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")
            for key, row in rows.items():
                given = row
                if merge and row is not None:
                    given = (_row(database, dataset, key) or {}) | row
                encoded = None if given is None else msgspec.json.encode(given, order="sorted")
                withdrawn = given is None or given.get("available") is False
                database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", (dataset, key, encoded, withdrawn))
            database.execute(
                "INSERT INTO changes VALUES (?, 1) ON CONFLICT (dataset) DO UPDATE SET count = count + 1", (dataset,)
            )

    def get(self, dataset: str, key: str) -> Row | None:
        """A row; None if it was not pushed or was deleted."""
        if not self._there:
            return None
        with self._open() as database:
            return _row(database, dataset, key)

    def page(self, dataset: str, after: str, count: int) -> list[tuple[str, Row]]:
        """At most `count` rows with their keys, in the order of the keys, from the first behind `after`."""
        if not self._there:
            return []
        with self._open() as database:
            found = database.execute(
                "SELECT key, row FROM rows WHERE dataset = ? AND key > ? AND row IS NOT NULL ORDER BY key LIMIT ?",
                (dataset, after, count),
            ).fetchall()
        return [(key, msgspec.json.decode(row)) for key, row in found]

    def withdrawn(self, dataset: str) -> frozenset[str]:
        """Keys of rows that were deleted, or are not available."""
        if not self._there:
            return frozenset()
        with self._open() as database:
            # What is counted before is read again if it changes meanwhile.
            count = _number(database, "SELECT count FROM changes WHERE dataset = ?", dataset)
            seen, keys = self._withdrawn.get(dataset, (0, frozenset()))
            if seen != count:
                found = database.execute("SELECT key FROM rows WHERE dataset = ? AND withdrawn", (dataset,))
                keys = frozenset(key for (key,) in found)
                self._withdrawn[dataset] = count, keys
            return keys

    def publish(self, keys: Mapping[str, str], day: date | None = None) -> list[str]:
        """Write the state of each dataset that changed, or has no file of this day yet, to the landing folder.

        Args:
            keys: dataset -> name of its key column.
            day: the UTC day; None: today.

        Returns:
            The datasets whose files were written.

        Raises:
            Transient: the file of rows cannot be read now.
        """
        if not self._there:
            return []
        day = day or datetime.now(UTC).date()
        written = []
        # One process at a time: an older state must not replace a newer one.
        with file_lock(self._folder / LOCK, 0) as taken:
            for dataset in keys if taken else ():
                with self._open() as database:
                    count = _number(database, "SELECT count FROM changes WHERE dataset = ?", dataset)
                    before = database.execute(
                        "SELECT day, changes FROM published WHERE dataset = ?", (dataset,)
                    ).fetchone()
                if not count or before == (day.isoformat(), count):
                    continue
                land(self._landing, State(dataset, day, SOURCE, lambda one=dataset: self._lines(one, keys[one])))
                with self._open() as database, database:
                    database.execute(
                        "INSERT OR REPLACE INTO published VALUES (?, ?, ?)", (dataset, day.isoformat(), count)
                    )
                written.append(dataset)
        return written

    def _lines(self, dataset: str, key_column: str) -> Iterator[list[bytes]]:
        after = ""
        while rows := self.page(dataset, after, BATCH):
            yield [msgspec.json.encode({key_column: key, **_named(key, row, key_column)}) for key, row in rows]
            after = rows[-1][0]

    @property
    def _there(self) -> bool:
        return self._database is not None or (self._folder / FILE).exists()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone.

        Raises:
            Transient: the file cannot be used now.
        """
        with self._lock:
            try:
                if self._database is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._database = sqlite3.connect(
                        self._folder / FILE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                    )
                    self._database.execute("PRAGMA journal_mode = WAL")
                    self._database.execute("PRAGMA synchronous = FULL")
                    self._database.executescript(TABLES)
                yield self._database
            except sqlite3.Error as error:
                raise Transient(f"{self._folder / FILE} cannot be used now: {error}. Try again later.") from error

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._database is not None:
                with closing(self._database):
                    self._database = None


def takes_pushed(contract: Contract) -> bool:
    """Whether the snapshot of a dataset reads the landing folder, to which pushed rows are published."""
    return any(server.location == LANDING % contract.name for server in contract.servers)


def _row(database: sqlite3.Connection, dataset: str, key: str) -> Row | None:
    found = database.execute("SELECT row FROM rows WHERE dataset = ? AND key = ?", (dataset, key)).fetchone()
    return msgspec.json.decode(found[0]) if found and found[0] is not None else None


def _number(database: sqlite3.Connection, query: str, dataset: str) -> int:
    found = database.execute(query, (dataset,)).fetchone()
    return found[0] if found else 0


def _named(key: str, row: Row, key_column: str) -> Row:
    """A row with something to recommend it by, which the contract of items asks for: for want of that, its id."""
    if key_column == "item_id" and not any(row.get(name) for name in ("title", "description", "price")):
        return row | {"title": key}
    return row
