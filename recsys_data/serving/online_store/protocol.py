"""The online store: what a backend must do, whatever it is built on.

It maps keys to values and holds one position, which says up to where of the lake the values are. It is a cache of the
lake and is rebuilt from it at any time. Any number of processes read; one writes at a time, and a second writer is
refused by the compare-and-set of `commit`.

>>> with store.rebuild() as new:  # doctest: +SKIP
...     new.put([(b"user:1", b"...")])
...     new.publish(b"position 7")
>>> store.commit(b"position 7", b"position 8", [(b"user:1", b"..."), (b"user:2", None)])  # doctest: +SKIP
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

# A key with a value, or with None to delete it.
Change = tuple[bytes, bytes | None]


class Readable(Protocol):
    """What features are read from: a store, or a new generation of it."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        ...


class Rebuild(Protocol):
    """A new generation of the whole store, beside the current one, which readers see until `publish`."""

    def put(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        """Write values, as often as needed and in bounded memory.

        Raises:
            PositionMoved: another rebuild began; this one is void.
            Transient: the store cannot be written now.
        """
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What this generation holds, in the order of the keys."""
        ...

    def publish(self, position: bytes) -> None:
        """Make the generation current, at once; the old one is removed.

        A position that is older than the store's is allowed: whoever follows the lake goes on from there.

        Raises:
            PositionMoved: another rebuild began; this one is void.
            Transient: the store cannot be written now.
        """
        ...


class OnlineStore(Protocol):
    """Keys and values are any bytes; values of up to 150 kB work with every backend. Thread-safe."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none; all as of one commit.

        Raises:
            Transient: the store cannot be read now.
        """
        ...

    def position(self) -> bytes | None:
        """What the last commit or rebuild wrote; None: the store was never written.

        Raises:
            Transient: the store cannot be read now.
        """
        ...

    def commit(self, expected: bytes | None, position: bytes, changes: Iterable[Change]) -> None:
        """Apply all changes and the position at once, or nothing. Of several changes of a key the last one counts.

        Raises:
            PositionMoved: the position of the store is not `expected`.
            Transient: the store cannot be written now. Read the position before trying again: a connection that
                broke may hide a commit that was made.
            Permanent: a value is larger than the backend takes.
        """
        ...

    def rebuild(self) -> AbstractContextManager[Rebuild]:
        """Write everything anew beside readers, who see it from `publish` on.

        Without `publish` nothing changes. What a rebuild that was killed left is removed by the next one.
        """
        ...

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Everything that is committed, each key once while nobody writes.

        Backends that keep order give it in the order of the keys, and as of one commit; see the backend.
        """
        ...

    def clear(self) -> None:
        """Delete everything, the position too."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...
