"""Who may work: locks that end with their process, however it ends.

They save work. What keeps tables right, on one machine and across machines, is the compare-and-set of their commits.
A lease has a name. Where the catalog is on PostgreSQL it is an advisory lock there, among all machines of the lake;
otherwise a kernel lock on a file of the state folder, among the processes of this machine.
"""

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from recsys_data.errors import Transient
from recsys_data.redaction import redacted, redacted_url
from recsys_data.settings import Settings

if TYPE_CHECKING:
    from psycopg import Connection

POLL_SECONDS = 0.02
# A question to another machine.
REMOTE_POLL_SECONDS = 0.2
CONNECT_SECONDS = 10
POSTGRESQL = "postgresql://"
# What a session may call itself, bytes.
NOTE_BYTES = 63
HOLDER = """
    SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND objsubid = 1
      AND classid = ((%(key)s::BIGINT >> 32) & 4294967295)::OID AND objid = (%(key)s::BIGINT & 4294967295)::OID
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Lease(Protocol):
    """A lease of this process, held or not; closing it gives it up.

    Attributes:
        place: what messages call it.
        pause: seconds between two questions of one that waits for it.
    """

    place: str
    pause: float

    def take(self, shared: bool = False) -> bool:
        """Hold it, unless another process does."""
        ...

    def release(self) -> None:
        """Let others hold it."""
        ...

    def publish(self, note: bytes) -> None:
        """Say something about this process, which holds it, to others: `NOTE_BYTES` of ASCII."""
        ...

    def holder(self) -> bytes | None:
        """What the process that holds it alone published; None if none does."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...


@contextlib.contextmanager
def open_lease(settings: Settings, name: str) -> Iterator[Lease]:
    """The lease of this name; nobody holds it by that.

    Raises:
        Transient: the database that it is in cannot be reached.
    """
    remote = settings.catalog.startswith(POSTGRESQL)
    opened = DatabaseLease(settings.catalog, name) if remote else FileLease(settings.lock_path(name))
    try:
        yield opened
    finally:
        opened.close()


@contextlib.contextmanager
def lease(settings: Settings, name: str, wait_seconds: float, shared: bool = False) -> Iterator[bool]:
    """Hold the lease of this name; gives False where another process still holds it after `wait_seconds`.

    Raises:
        Transient: the database that it is in cannot be reached.
    """
    with open_lease(settings, name) as opened:
        yield _wait(opened, wait_seconds, shared)


@contextlib.contextmanager
def exclusive_lease(settings: Settings, name: str, busy: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the lease of this name alone.

    Raises:
        Transient: another process still holds it after `wait_seconds`, with the text `busy`; or the database that it is
            in cannot be reached.
    """
    with lease(settings, name, wait_seconds) as taken:
        if not taken:
            raise Transient(busy)
        yield


def _wait(opened: Lease, seconds: float, shared: bool) -> bool:
    deadline = time.monotonic() + seconds
    while not (taken := opened.take(shared)) and time.monotonic() < deadline:
        time.sleep(opened.pause)
    return taken


class FileLease:
    """A kernel lock on a file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.place, self.pause = str(path), POLL_SECONDS
        self._file = path.open("a+b")

    def take(self, shared: bool = False) -> bool:
        return try_lock(self._file, shared)

    def release(self) -> None:
        unlock(self._file)

    def publish(self, note: bytes) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(note)
        self._file.flush()

    def holder(self) -> bytes | None:
        if self.take():
            self.release()
            return None
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        self._file.close()


class DatabaseLease:
    """An advisory lock of PostgreSQL, which ends with its session.

    If the session breaks, another process may take it over while this one goes on.
    """

    def __init__(self, url: str, name: str) -> None:
        self.place, self.pause = f"{name} in {redacted_url(url)}", REMOTE_POLL_SECONDS
        self._url = url
        self._key = lease_key(name)
        self._connection = self._connect()

    def _connect(self) -> "Connection":
        import psycopg

        try:
            return psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        except psycopg.Error as error:
            raise self._failed(error) from None

    def _ask(self, statement: str, **values: object) -> object:
        import psycopg

        try:
            row = self._connection.execute(statement.encode(), {"key": self._key, **values}).fetchone()
        except psycopg.Error as error:
            raise self._failed(error) from None
        return row[0] if row else None

    def _failed(self, error: Exception) -> Transient:
        text = redacted((str(error).strip().splitlines() or [type(error).__name__])[0])
        return Transient(f"The lease {self.place} cannot be asked for: {text}. Check that the database runs.")

    def take(self, shared: bool = False) -> bool:
        return bool(self._ask(f"SELECT pg_try_advisory_lock{'_shared' if shared else ''}(%(key)s)"))

    def release(self) -> None:
        self._ask("SELECT pg_advisory_unlock(%(key)s)")

    def publish(self, note: bytes) -> None:
        if len(note) > NOTE_BYTES:
            raise ValueError(f"{note!r} has {len(note)} bytes; expected at most {NOTE_BYTES}.")
        self._ask("SELECT set_config('application_name', %(note)s, false)", note=note.decode("ascii"))

    def holder(self) -> bytes | None:
        found = self._ask(HOLDER)
        return None if found is None else str(found).encode()

    def close(self) -> None:
        self._connection.close()


def lease_key(name: str) -> int:
    """The number of an advisory lock; 64 bits, so that names do not meet."""
    return int.from_bytes(hashlib.sha256(f"recsys-data {name}".encode()).digest()[:8], "big", signed=True)


@contextlib.contextmanager
def file_lock(path: Path, wait_seconds: float, shared: bool = False) -> Iterator[bool]:
    """Hold a lock file; gives False where another process still holds it after `wait_seconds`."""
    opened = FileLease(path)
    try:
        yield _wait(opened, wait_seconds, shared)
    finally:
        opened.close()


@contextlib.contextmanager
def exclusive(path: Path, busy: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a lock file alone.

    Raises:
        Transient: another process still holds it after `wait_seconds`; with the text `busy`.
    """
    with file_lock(path, wait_seconds) as taken:
        if not taken:
            raise Transient(busy)
        yield


def try_lock(file: BinaryIO | int, shared: bool = False) -> bool:
    """Lock an open file or folder, unless another holds it; closing it unlocks it."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: BinaryIO) -> None:
    """Let others lock the file while it stays open."""
    fcntl.flock(file, fcntl.LOCK_UN)
