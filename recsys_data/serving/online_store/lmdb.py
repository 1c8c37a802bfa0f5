"""The embedded online store: LMDB, a memory-mapped B+ tree in one folder, read by any number of processes.

Two databases take turns as the current generation: a rebuild fills the other one, and the last transaction swaps them.
Readers take no lock and see one commit. After a power failure the last commits may be missing, whole, together with
their position. The folder must be on a disk of this machine, because LMDB locks by shared memory.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import lmdb

from recsys_data.errors import Permanent, PositionMoved, Transient
from recsys_data.serving.online_store.long_keys import LongKeys
from recsys_data.serving.online_store.protocol import Change

# The library's types do not say that values are bytes, as they are where no buffers are asked for.
Transaction = Any

# Addresses that are reserved, not memory and not disk: the file grows as it is written. Less where they are limited.
MAP_BYTES = 1 << 40
LEAST_MAP_BYTES = 1 << 30
# Of processes times threads that read at once.
READERS = 1024
GENERATIONS = (b"values-0", b"values-1")
# A transaction of a rebuild, which needs no more memory than this.
REBUILD_BYTES = 32 * 1024 * 1024

# In the main database, beside the names of the generations.
CURRENT, POSITION, BUILDING = b"current", b"position", b"building"
DAMAGED = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


class LmdbStore:
    """The store in a folder, which is made if it is missing.

    Raises:
        Permanent: the files are damaged.
        Transient: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._environment = Environment.of(folder)
        self._long = self._environment.long
        self._closed = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        environment = self._environment
        with environment.reading() as transaction:
            values = environment.generations[transaction.get(CURRENT) or GENERATIONS[0]]
            return _get_many(self._long, transaction, values, keys)

    def position(self) -> bytes | None:
        with self._environment.reading() as transaction:
            return transaction.get(POSITION)

    def commit(self, expected: bytes | None, position: bytes, changes: Iterable[Change]) -> None:
        packed = self._long.packed
        with self._environment.writing() as transaction:
            if (found := transaction.get(POSITION)) != expected:
                raise PositionMoved(
                    f"The online store is at {found!r}, not at {expected!r}: another process wrote it. Read its "
                    "position, and apply what follows that."
                )
            values = self._environment.current(transaction)
            for key, value in changes:
                if value is None:
                    transaction.delete(self._long.stored(key), db=values)
                else:
                    transaction.put(*packed(key, value), db=values)
            transaction.put(POSITION, position)

    @contextmanager
    def rebuild(self) -> Iterator["LmdbRebuild"]:
        token = uuid4().bytes
        environment = self._environment
        with environment.writing() as transaction:
            transaction.put(BUILDING, token)
            transaction.drop(environment.other(transaction), delete=False)
        new = LmdbRebuild(environment, token)
        try:
            yield new
        finally:
            new.discard()

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In the order of the keys (of the first bytes of those longer than 478), as of one commit.

        A scan that is not finished keeps the file from using space again.
        """
        seek = prefix[: self._long.prefix]
        with self._environment.reading() as transaction:
            cursor = transaction.cursor(db=self._environment.current(transaction))
            if not (cursor.set_range(seek) if seek else cursor.first()):
                return
            for stored, packed in cursor:
                if not stored.startswith(seek):
                    return
                key, value = self._long.original(stored, packed)
                if key.startswith(prefix):
                    yield key, value

    def clear(self) -> None:
        with self._environment.writing() as transaction:
            for values in self._environment.generations.values():
                transaction.drop(values, delete=False)
            for name in (CURRENT, POSITION, BUILDING):
                transaction.delete(name)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._environment.release()


class LmdbRebuild:
    """The generation that is not current; see `Rebuild`."""

    def __init__(self, environment: "Environment", token: bytes) -> None:
        self._environment = environment
        self._token = token

    def put(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        left = iter(values)
        for first in left:
            with self._writing() as transaction:
                other = self._environment.other(transaction)
                size = 0
                for key, value in itertools.chain((first,), left):
                    transaction.put(*self._environment.long.packed(key, value), db=other)
                    size += len(key) + len(value)
                    if size >= REBUILD_BYTES:
                        break

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        environment = self._environment
        with environment.reading() as transaction:
            self._check(transaction)
            return _get_many(environment.long, transaction, environment.other(transaction), keys)

    def publish(self, position: bytes) -> None:
        with self._writing() as transaction:
            name = self._environment.other_name(transaction)
            transaction.put(CURRENT, name)
            transaction.put(POSITION, position)
            transaction.delete(BUILDING)
        with self._environment.writing() as transaction:
            # Another rebuild may have begun, which needs the place and has emptied it.
            if transaction.get(BUILDING) is None and self._environment.current_name(transaction) == name:
                transaction.drop(self._environment.other(transaction), delete=False)

    def discard(self) -> None:
        """Remove it, unless it was published or another rebuild began."""
        with self._environment.writing() as transaction:
            if transaction.get(BUILDING) == self._token:
                transaction.delete(BUILDING)
                transaction.drop(self._environment.other(transaction), delete=False)

    @contextmanager
    def _writing(self) -> Iterator[Transaction]:
        with self._environment.writing() as transaction:
            self._check(transaction)
            yield transaction

    def _check(self, transaction: Transaction) -> None:
        if transaction.get(BUILDING) != self._token:
            raise PositionMoved(
                "The rebuild of the online store is void: it was published, or another one began. Begin again if the "
                "store is not as it should be."
            )


class Environment:
    """The open files of a folder, which a process may open only once: shared by all stores on it.

    Attributes:
        generations: the databases by their names.
        long: fits keys into LMDB's limit.
    """

    _open: "dict[Path, Environment]" = {}
    _lock = threading.Lock()

    @classmethod
    def of(cls, folder: Path) -> "Environment":
        """The one of a folder."""
        with cls._lock:
            with _explained(folder, lmdb.Error, OSError):
                folder.mkdir(parents=True, exist_ok=True)
                path = folder.resolve()
                if not (found := cls._open.get(path)):
                    found = cls._open[path] = cls(path)
            found._users += 1
            return found

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._users = 0
        self._lmdb = _opened(folder)
        self._lmdb.reader_check()
        self.generations = {name: self._lmdb.open_db(name) for name in GENERATIONS}
        self.long = LongKeys(self._lmdb.max_key_size())

    def release(self) -> None:
        """Close it when nobody uses it any more."""
        with self._lock:
            self._users -= 1
            if not self._users:
                del self._open[self._folder]
                self._lmdb.close()

    def reading(self) -> "Reading":
        """A read transaction."""
        return Reading(self._lmdb, self._folder)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A write transaction, which waits for the one of another process."""
        with _explained(self._folder, lmdb.Error):
            # A reader that was killed would keep the file from using space again.
            self._lmdb.reader_check()
            with self._lmdb.begin(write=True) as transaction:
                yield transaction

    def current_name(self, transaction: Transaction) -> bytes:
        return transaction.get(CURRENT) or GENERATIONS[0]

    def other_name(self, transaction: Transaction) -> bytes:
        return GENERATIONS[self.current_name(transaction) == GENERATIONS[0]]

    def current(self, transaction: Transaction) -> Any:
        """The database that is read."""
        return self.generations[self.current_name(transaction)]

    def other(self, transaction: Transaction) -> Any:
        """The database that a rebuild fills."""
        return self.generations[self.other_name(transaction)]


class Reading:
    """A read transaction whose errors are explained: faster than a generator, which small reads would notice."""

    __slots__ = ("_folder", "_lmdb", "_transaction")

    def __init__(self, environment: lmdb.Environment, folder: Path) -> None:
        self._lmdb = environment
        self._folder = folder

    def __enter__(self) -> Transaction:
        try:
            self._transaction = self._lmdb.begin()
        except lmdb.Error as error:
            raise _explanation(self._folder, error) from error
        return self._transaction

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._transaction.abort()
        if isinstance(error, lmdb.Error):
            raise _explanation(self._folder, error) from error


def _get_many(long: LongKeys, transaction: Transaction, values: Any, keys: Sequence[bytes]) -> list[bytes | None]:
    get = transaction.get
    # Faster than to ask for each key whether it fits.
    if all(keys) and max(map(len, keys), default=0) < long.limit:
        return [get(key, None, values) for key in keys]
    found: list[bytes | None] = []
    for key in keys:
        stored = long.stored(key)
        packed = get(stored, None, values)
        found.append(None if packed is None else long.original(stored, packed)[1])
    return found


def _opened(folder: Path) -> lmdb.Environment:
    size = MAP_BYTES
    while True:
        try:
            return lmdb.open(
                str(folder), map_size=size, max_dbs=len(GENERATIONS), max_readers=READERS, metasync=False, mode=0o600
            )
        except lmdb.MemoryError:
            # The process may not have so many addresses (ulimit -v).
            if size <= LEAST_MAP_BYTES:
                raise
            size //= 2


@contextmanager
def _explained(folder: Path, *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise _explanation(folder, error) from error


def _explanation(folder: Path, error: Exception) -> Exception:
    if isinstance(error, DAMAGED):
        return Permanent(
            f"The online store in {folder} cannot be read: {error}. Stop what uses it, remove the folder, and rebuild "
            "the store from the lake."
        )
    if isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
        return Permanent(
            f"The online store in {folder} needs more addresses than this process may have: {error}. Raise its limit "
            "(ulimit -v)."
        )
    if isinstance(error, lmdb.ReadersFullError):
        return Transient(f"The online store in {folder} has {READERS} readers, the most at once. Use fewer workers.")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return Permanent(f"The online store cannot be in {folder}: {error}. Remove what is there.")
    return Transient(f"The online store in {folder} cannot be used now: {error}. Is the disk full, or not writable?")
