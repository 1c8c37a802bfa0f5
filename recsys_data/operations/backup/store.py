"""The folder of a backup: copies of files, and `point.json`, which lists those of the restore point.

Data flow: file -> copy and its SHA-256 -> a line of `copied.jsonl` -> `publish` replaces `point.json`: everything that
was added is the new point. Until then, and after a crash, the point before stays valid. A file is not copied again if
its name, size and time are those of a copy, as with rsync. Copies keep the names of their files, so that a backup can
also be read without this program.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from recsys_data.durable import sync_file, write_atomically
from recsys_data.errors import Permanent, UserError
from recsys_data.leases import exclusive

if TYPE_CHECKING:
    from pyiceberg.io import InputStream

    from recsys_data.storage.iceberg.file_io import DurableFileIO

VERSION = 3
# What a point of a lake of this machine says: an earlier program can restore it.
LOCAL_VERSION = 2
POINT = "point.json"
COPIED = "copied.jsonl"
LOCK = "lock"
# The SQLite database that held version 1 of the point.
INDEX = "index.db"
BLOCK = 1 << 20
# Gets how many files are done, and how many there are.
OnProgress = Callable[[int, int], None]


class Object(NamedTuple):
    """A file that is read through the lake's access to files."""

    io: "DurableFileIO"
    location: str

    def __str__(self) -> str:
        return self.location

    def found(self) -> tuple[int, int]:
        """Its bytes, and when it was written (nanoseconds); FileNotFoundError if it is not there."""
        found = self.io.found(self.location)
        if found is None:
            raise FileNotFoundError(self.location)
        return found.bytes, int(found.written * 1e9)

    def open(self) -> "InputStream":
        return self.io.new_input(self.location).open()


class Copy(msgspec.Struct, frozen=True):
    """A copied file: `path` below the backup's folder, `target` below the state folder, `mtime` in nanoseconds."""

    path: str
    target: str
    bytes: int
    mtime: int
    sha256: str


class Point(msgspec.Struct, frozen=True):
    """A restore point.

    Attributes:
        version: of this format.
        data_dir: the state folder; Iceberg's metadata name files by their whole path, so it is restored to this one.
        made_at: when its catalog was copied.
        positions: end of the copied log by partition.
        dagster: whether Dagster's storage is part of it.
        files: by target.
        warehouse: where the files below `lake/` belong, if their catalog or they are not in the state folder.
    """

    version: int
    data_dir: str
    made_at: datetime
    positions: dict[int, int]
    dagster: bool
    files: tuple[Copy, ...] = ()
    warehouse: str = ""

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files)


class Store:
    """A backup's folder, to make a new point in. One process at a time; `close` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.point = read_point(folder)
        journal = folder / COPIED
        copies = [*(self.point.files if self.point else ()), *_journaled(journal)]
        self._known = {(one.target, one.bytes, one.mtime): one for one in copies}
        self._paths = {one.path for one in copies}
        self._journal = journal.open("ab", buffering=0)
        self.begin()

    def close(self) -> None:
        self._journal.close()

    def begin(self) -> None:
        """Begin a new point. What an interrupted one had copied is used again."""
        self.copied_files = self.copied_bytes = 0
        self._new: dict[str, Copy] = {}

    def add(self, target: str, source: "Path | Object", size: int | None = None) -> None:
        """Make a file, or its first `size` bytes, part of the new point.

        Args:
            target: where it belongs, below the state folder.
            source: the file; what is copied of it does not change any more.
            size: how much of it.

        Raises:
            FileNotFoundError: it is not there (any more).
        """
        if isinstance(source, Object):
            whole, mtime = source.found()
        else:
            whole, mtime = (status := source.stat()).st_size, status.st_mtime_ns
        size = whole if size is None else size
        known = self._known.get((target, size, mtime))
        if known is None or not _has_size(self.folder / known.path, size):
            path = target if target not in self._paths else f"{target}~{mtime}-{size}"
            known = Copy(path, target, size, mtime, copy(source, self.folder / path, size, mtime))
            self._known[target, size, mtime] = known
            self._paths.add(path)
            self._journal.write(msgspec.json.encode(known) + b"\n")
            self.copied_files, self.copied_bytes = self.copied_files + 1, self.copied_bytes + size
        self._new[known.path] = known

    def add_database(self, target: str, source: Path, read: Callable[[Path], None] = lambda path: None) -> None:
        """Make a SQLite database part of the new point, as of one moment; `read` may read the copy."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".database-") as folder:
            path = Path(folder) / source.name
            uri = f"{source.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=30)) as live, closing(sqlite3.connect(path)) as taken:
                live.backup(taken)
                # The copy stands alone: no write-ahead log lies beside it.
                taken.execute("PRAGMA journal_mode = DELETE")
            self.add(target, path)
            read(path)

    def publish(self, point: Point) -> Point:
        """Make everything that was added the files of the point, and remove every other file."""
        for parent, _, _ in os.walk(self.folder):
            sync_file(Path(parent))
        files = tuple(sorted(self._new.values(), key=lambda one: one.target))
        point = msgspec.structs.replace(point, files=files)
        write_atomically(self.folder / POINT, msgspec.json.encode(point))
        self._journal.truncate(0)
        for path in self.folder.rglob("*"):
            if path.is_file() and str(path.relative_to(self.folder)) not in {*self._new, POINT, COPIED, LOCK}:
                path.unlink()
        return point


def alone(folder: Path) -> AbstractContextManager[None]:
    """Be the only one at work on a backup; `Transient` if another one is."""
    busy = f"Another process is at work on the backup in {folder}. Wait for it, and try again."
    return exclusive(folder / LOCK, busy)


def is_backup(folder: Path) -> bool:
    """Whether a backup, completed or not, was made there."""
    return any((folder / name).is_file() for name in (POINT, COPIED, INDEX))


def read_point(folder: Path) -> Point | None:
    """The point of a backup; None if none was completed.

    Raises:
        UserError: another version of this program made it, or it is damaged.
    """
    path = folder / (POINT if (folder / POINT).is_file() or not (folder / INDEX).is_file() else INDEX)
    if not path.is_file():
        return None
    try:
        point = _version_1(path) if path.name == INDEX else msgspec.json.decode(path.read_bytes(), type=Point)
        if point is None or point.version <= VERSION:
            return point
        found = f"it has version {point.version}, and this program knows {VERSION}"
    except (msgspec.DecodeError, sqlite3.Error) as error:
        found = str(error)
    raise UserError(f"{path} cannot be read: {found}. Use the version that made it, or another backup.")


def _version_1(path: Path) -> Point | None:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as index:
        facts = index.execute("SELECT json FROM facts").fetchone()
        rows = index.execute("SELECT path, target, bytes, mtime, sha256 FROM copies JOIN point USING (path)")
        files = tuple(Copy(*row) for row in rows)
        return msgspec.structs.replace(msgspec.json.decode(facts[0], type=Point), files=files) if facts else None


def _journaled(path: Path) -> Iterator[Copy]:
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        # A crash may have cut a line: what it was of is copied again.
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=Copy)


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def copy(source: "Path | Object", path: Path, size: int, mtime: int) -> str:
    """Copy the first `size` bytes of a file to a new one, durably; returns their SHA-256.

    Raises:
        FileNotFoundError: the file is not there (any more).
        Permanent: the file is shorter.
    """
    temporary = path.with_name(f".{path.name}.part")
    digest, left = hashlib.sha256(), size
    with source.open() if isinstance(source, Object) else source.open("rb", buffering=0) as file:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as copied:
            while left and (block := file.read(min(BLOCK, left))):
                digest.update(block)
                copied.write(block)
                left -= len(block)
            copied.flush()
            os.fsync(copied.fileno())
    if left:
        raise Permanent(f"{source} ends {left:,} bytes too early. Check the disk that it is on.")
    os.utime(temporary, ns=(mtime, mtime))
    temporary.replace(path)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
