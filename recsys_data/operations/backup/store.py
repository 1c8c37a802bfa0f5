"""The folder of a backup: copies of files that do not change, and an index that says which of them are one point.

Data flow: file -> copy + SHA-256 -> `index.db` -> `publish`, one transaction, makes everything that was added the new
point. Until then, and after a crash, the point before holds. What is copied already is not copied again: a file counts
as the same by its name, size and time, as with rsync. Copies keep the names of their files, so that a backup can also
be read without this program.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recsys_data.durable import sync_file
from recsys_data.errors import Permanent

INDEX = "index.db"
LOCK = "lock"
BLOCK = 1 << 20
# A row is committed with its neighbours, for each commit waits for the disk; that of a large file at once, so that a
# backup that breaks off need not copy it again.
ROWS_A_COMMIT = 64
LARGE_BYTES = 8 * 1024 * 1024
TABLES = """
    CREATE TABLE IF NOT EXISTS copies
        (path TEXT PRIMARY KEY, target TEXT NOT NULL, bytes INTEGER, mtime INTEGER, sha256 TEXT) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS copies_target ON copies (target, bytes, mtime);
    CREATE TABLE IF NOT EXISTS point (path TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS building (path TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS facts (json TEXT NOT NULL);
"""
Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file of a point.

    Attributes:
        path: below the backup's folder.
        target: where it belongs, below the state folder.
        bytes: its size.
        mtime: nanoseconds since 1970 at which the original was written.
        sha256: of its content.
    """

    path: str
    target: str
    bytes: int
    mtime: int
    sha256: str


class Store:
    """A backup's folder, opened. One process at a time; `close` it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.copied_files = self.copied_bytes = 0
        self._index = sqlite3.connect(folder / INDEX, timeout=30)
        try:
            self._index.executescript(TABLES)
        except sqlite3.DatabaseError as error:
            raise Permanent(f"{folder / INDEX} cannot be used: {error}. Choose another folder.") from None

    def close(self) -> None:
        """Let go of the index."""
        self._index.close()

    def facts(self) -> dict[str, object] | None:
        """What was said of the point; None where there is none yet."""
        row = self._index.execute("SELECT json FROM facts").fetchone()
        return msgspec.json.decode(row[0]) if row else None

    def point(self) -> Iterator[Copy]:
        """The files of the point, by target."""
        columns = "path, target, bytes, mtime, sha256"
        for row in self._index.execute(f"SELECT {columns} FROM copies JOIN point USING (path) ORDER BY target"):
            yield Copy(*row)

    def size(self) -> tuple[int, int]:
        """Files and bytes of the point."""
        sums = "count(*), coalesce(sum(bytes), 0)"
        return self._index.execute(f"SELECT {sums} FROM copies JOIN point USING (path)").fetchone()

    def begin(self) -> None:
        """Begin a new point. What a broken one had copied is used again."""
        self.copied_files = self.copied_bytes = 0
        with self._index:
            self._index.execute("DELETE FROM building")

    def add(self, target: str, source: Path, size: int | None = None, told: Told = lambda count: None) -> None:
        """Make a file, or its first `size` bytes, part of the new point.

        Args:
            target: where it belongs, below the state folder.
            source: the file; what is copied of it does not change any more.
            size: how much of it.
            told: is called with the bytes that were settled, piece by piece.

        Raises:
            FileNotFoundError: it is not there (any more).
        """
        with source.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            size = status.st_size if size is None else size
            known = self._known(target, size, status.st_mtime_ns)
            if known is None:
                known = self._free_path(target)
                digest = copy(file.fileno(), self.folder / known, size, status.st_mtime_ns, told)
                self._index.execute(
                    "INSERT OR REPLACE INTO copies VALUES (?, ?, ?, ?, ?)",
                    (known, target, size, status.st_mtime_ns, digest),
                )
                self.copied_files, self.copied_bytes = self.copied_files + 1, self.copied_bytes + size
                if self.copied_files % ROWS_A_COMMIT == 0 or size >= LARGE_BYTES:
                    self._index.commit()
            else:
                told(size)
        self._index.execute("INSERT OR IGNORE INTO building VALUES (?)", (known,))

    def add_database(self, target: str, source: Path, read: Callable[[Path], None] = lambda path: None) -> None:
        """Make a SQLite database part of the new point, as of one moment; `read` may look at the copy."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".database-") as folder:
            path = Path(folder) / source.name
            uri = f"{source.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=30)) as live, closing(sqlite3.connect(path)) as taken:
                live.backup(taken)
                # The copy stands alone: no write-ahead log lies beside it.
                taken.execute("PRAGMA journal_mode = DELETE")
            self.add(target, path)
            read(path)

    def publish(self, facts: dict[str, object]) -> None:
        """Make everything that was added the point, and remove what belongs to no point any more."""
        for parent, _, _ in os.walk(self.folder):
            sync_file(Path(parent))
        with self._index:
            self._index.execute("DELETE FROM point")
            self._index.execute("INSERT INTO point SELECT path FROM building")
            self._index.execute("DELETE FROM building")
            self._index.execute("DELETE FROM copies WHERE path NOT IN (SELECT path FROM point)")
            self._index.execute("DELETE FROM facts")
            self._index.execute("INSERT INTO facts VALUES (?)", (msgspec.json.encode(facts).decode(),))
        self._tidy()

    def _known(self, target: str, size: int, mtime: int) -> str | None:
        """The copy that is there already, whole as far as its size tells."""
        wanted = "SELECT path FROM copies WHERE target = ? AND bytes = ? AND mtime = ?"
        for (path,) in self._index.execute(wanted, (target, size, mtime)).fetchall():
            there = self.folder / path
            if there.is_file() and there.stat().st_size == size:
                return path
        return None

    def _free_path(self, target: str) -> str:
        """A name that no copy has: that of the file or, when it changed, with a number after it."""
        path, number = target, 1
        while self._index.execute("SELECT 1 FROM copies WHERE path = ?", (path,)).fetchone():
            number += 1
            path = f"{target}~{number}"
        return path

    def _tidy(self) -> None:
        for parent, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.relpath(Path(parent) / name, self.folder)
                ours = not path.startswith(INDEX) and path != LOCK
                if ours and not self._index.execute("SELECT 1 FROM copies WHERE path = ?", (path,)).fetchone():
                    (self.folder / path).unlink(missing_ok=True)


def copy(source: int, path: Path, size: int, mtime: int, told: Told = lambda count: None) -> str:
    """Copy the first `size` bytes of an open file to a new one, durably; returns their SHA-256.

    Raises:
        Permanent: the file is shorter.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    digest, left = hashlib.sha256(), size
    with temporary.open("wb", buffering=0) as file:
        while left and (block := os.read(source, min(BLOCK, left))):
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
            left -= len(block)
            told(len(block))
        if left:
            raise Permanent(f"{path.name} ends {left:,} bytes too early. Look after the disk that it lies on.")
        os.fsync(file.fileno())
    os.utime(temporary, ns=(mtime, mtime))
    temporary.replace(path)
    return digest.hexdigest()


def digest_of(path: Path, told: Told = lambda count: None) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            told(len(block))
    return digest.hexdigest()
