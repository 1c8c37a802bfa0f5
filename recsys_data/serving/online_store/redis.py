"""The online store in Redis or Valkey: one hash, whose fields are the position and the values.

A commit is a MULTI that a WATCH of the hash guards, so that readers (one HMGET) see it whole, and of two writers one is
refused. A rebuild fills a hash of its own, which RENAME makes current. The server must not evict keys
(`maxmemory-policy noeviction`); were the hash evicted, the store would be empty and without a position, and be rebuilt.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
    WatchError,
)

from recsys_data.errors import Permanent, PositionMoved, Transient, UserError
from recsys_data.redaction import redacted, redacted_url, secrets_of
from recsys_data.serving.online_store.protocol import Change

SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
NAME = "recsys_data:online"
POSITION = b"position"
# Before each key, so that none is the position.
VALUE = b":"
READ_SECONDS = 2.0
# A large commit is carried out as a whole.
WRITE_SECONDS = 60.0
# Fields of one command, and keys of one step of a scan.
FIELDS = 1000
REBUILD_BYTES = 4 * 1024 * 1024
# What a rebuild that was killed left expires; the token first, without which nothing is added.
BUILDING_SECONDS = 3600
AWAY = (ConnectionError, TimeoutError, BusyLoadingError, OutOfMemoryError, ReadOnlyError, TryAgainError)
REFUSED = (AuthenticationError, NoPermissionError)


class RedisStore:
    """The store of a URL, `redis://`, `rediss://`, `valkey://` or `valkeys://`; the option `prefix` names the hash.

    Raises:
        UserError: the URL makes no sense.
    """

    def __init__(self, url: str) -> None:
        self._shown = redacted_url(url)
        self._secrets = secrets_of(url)
        scheme, _, rest = url.partition("://")
        place, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        self._name = (options.pop("prefix", "") or NAME).encode()
        plain = f"{SCHEMES[scheme]}://{place}" + (f"?{urlencode(options)}" if options else "")
        try:
            self._reads = Redis.from_url(plain, socket_timeout=READ_SECONDS, socket_connect_timeout=READ_SECONDS)
            self._writes = Redis.from_url(plain, socket_timeout=WRITE_SECONDS, socket_connect_timeout=READ_SECONDS)
            # It takes options without a look, until it connects.
            pool = self._reads.connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"The URL {self._shown} of the online store makes no sense: {self._clean(error)}. Expected "
                "redis://user:password@host:6379/0."
            ) from None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._get_many(self._name, keys)

    def position(self) -> bytes | None:
        with self._explained():
            return self._reads.hget(self._name, POSITION)  # type: ignore[return-value]

    def commit(self, expected: bytes | None, position: bytes, changes: Iterable[Change]) -> None:
        with self._explained(), self._writes.pipeline(transaction=True) as pipeline:
            pipeline.watch(self._name)
            if (found := pipeline.hget(self._name, POSITION)) != expected:
                raise PositionMoved(
                    f"The online store is at {found!r}, not at {expected!r}: another process wrote it. Read its "
                    "position, and apply what follows that."
                )
            pipeline.multi()
            left = iter(changes)
            while some := dict(itertools.islice(left, FIELDS)):
                values: dict[Any, Any] = {VALUE + key: value for key, value in some.items() if value is not None}
                if values:
                    pipeline.hset(self._name, mapping=values)
                if deleted := [VALUE + key for key, value in some.items() if value is None]:
                    pipeline.hdel(self._name, *deleted)
            pipeline.hset(self._name, POSITION, position)
            pipeline.execute()

    @contextmanager
    def rebuild(self) -> Iterator["RedisRebuild"]:
        new = RedisRebuild(self, uuid4().hex.encode())
        new.begin()
        try:
            yield new
        finally:
            new.discard()

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In no order; while others write, a key may be given twice, and what they change may be missed."""
        special = b"*?[]\\^"
        pattern = b"".join(b"\\%c" % one if one in special else b"%c" % one for one in VALUE + prefix) + b"*"
        with self._explained():
            for field, value in self._reads.hscan_iter(self._name, match=pattern, count=FIELDS):
                yield field[len(VALUE) :], value

    def clear(self) -> None:
        with self._explained():
            self._writes.unlink(self._name)

    def close(self) -> None:
        self._reads.close()
        self._writes.close()

    def _get_many(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        with self._explained():
            return self._reads.hmget(name, [VALUE + key for key in keys])  # type: ignore[return-value]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except WatchError as error:
            raise PositionMoved(
                f"The online store {self._shown} was written by another process, or the connection broke, while it "
                f"was to be changed ({self._clean(error)}). Read its position, and apply what follows that."
            ) from None
        except REFUSED as error:
            raise Permanent(
                f"The online store {self._shown} refuses: {self._clean(error)}. Correct user, password and rights."
            ) from None
        except AWAY as error:
            raise Transient(
                f"The online store {self._shown} cannot be used now: {self._clean(error)}. Is the server running?"
            ) from None
        except RedisError as error:
            raise Permanent(
                f"The online store {self._shown} cannot do this: {self._clean(error)}. Expected Redis 6 or Valkey, "
                "with nothing else under its name."
            ) from None

    def _clean(self, error: Exception) -> str:
        return redacted(f"{type(error).__name__}: {error}", self._secrets)


class RedisRebuild:
    """A hash of its own, named by a token that the newest rebuild has; see `Rebuild`."""

    def __init__(self, store: RedisStore, token: bytes) -> None:
        self._store = store
        self._writes = store._writes
        self._newest = store._name + b":building"
        self._token = token

    def begin(self) -> None:
        """Become the newest rebuild; what an earlier one wrote is removed."""
        with self._store._explained():
            before = self._writes.getset(self._newest, self._token)
            self._writes.expire(self._newest, BUILDING_SECONDS)
            if before:
                self._writes.unlink(self._hash(before))  # type: ignore[arg-type]

    def put(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        left = iter(values)
        for first in left:
            mapping: dict[Any, Any] = {}
            size = 0
            for key, value in itertools.chain((first,), left):
                mapping[VALUE + key] = value
                size += len(key) + len(value)
                if size >= REBUILD_BYTES or len(mapping) >= FIELDS:
                    break
            with self._changing() as pipeline:
                pipeline.hset(self._hash(self._token), mapping=mapping)
                pipeline.expire(self._hash(self._token), 2 * BUILDING_SECONDS)
                pipeline.expire(self._newest, BUILDING_SECONDS)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._store._get_many(self._hash(self._token), keys)

    def publish(self, position: bytes) -> None:
        name = self._store._name
        with self._changing() as pipeline:
            pipeline.hset(self._hash(self._token), POSITION, position)
            pipeline.persist(self._hash(self._token))
            # RENAME would free the old hash while everybody waits.
            pipeline.unlink(name)
            pipeline.rename(self._hash(self._token), name)
            pipeline.delete(self._newest)

    def discard(self) -> None:
        """Remove it, unless it was published or another rebuild began."""
        try:
            with self._changing() as pipeline:
                pipeline.unlink(self._hash(self._token), self._newest)
        except Transient:
            # It is not there any more, or expires.
            return

    def _hash(self, token: bytes) -> bytes:
        return self._store._name + b":building:" + token

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        with self._store._explained(), self._writes.pipeline(transaction=True) as pipeline:
            pipeline.watch(self._newest)
            if pipeline.get(self._newest) != self._token:
                raise PositionMoved(
                    "The rebuild of the online store is void: it was published, or another one began. Begin again if "
                    "the store is not as it should be."
                )
            pipeline.multi()
            yield pipeline
            pipeline.execute()
