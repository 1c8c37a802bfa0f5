"""Whether an online store holds what a rebuild from the lake gives, compared key by key."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from recsys_data.errors import Transient
from recsys_data.serving.online.layout import Layout
from recsys_data.serving.online.owners import MERGES, OWNER
from recsys_data.serving.online.pieces import Pieces, decoded, settled
from recsys_data.serving.online.position import KEY, Position, decode
from recsys_data.serving.online.updater import Updater
from recsys_data.serving.online_store.protocol import OnlineStore

if TYPE_CHECKING:
    from recsys_data.storage.tables import Lake

TRIES = 20
TOLERANCE = 1e-9


class Verified(NamedTuple):
    """What was compared.

    Attributes:
        keys: how many there are.
        different: keys that hold something else, or are in one of both only.
    """

    keys: int
    different: list[bytes]


def verify(lake: "Lake", store: OnlineStore, most: int = 100) -> Verified:
    """Compare a store with a rebuild as of the same position.

    Of views over histories it is compared which entities there are: their values are those of another moment.

    Args:
        lake: what the store is a cache of.
        store: which nobody writes meanwhile; otherwise the rebuild may not meet its position.
        most: how many differences are looked for.

    Raises:
        Transient: the store is empty, or goes on faster than the rebuild.
    """
    from recsys_data.serving.online_store.lmdb import LmdbStore

    with tempfile.TemporaryDirectory() as folder, closing(LmdbStore(Path(folder))) as fresh:
        updater = Updater(lake, fresh)
        for _ in range(TRIES):
            updater.update()
            if _streams(decode(store.position())) == _streams(decode(fresh.position())):
                break
        else:
            raise Transient("The online store is not where the lake is. Let `recsys-data online update` catch up.")
        layouts = {(one.view.name, one.name): one for view in updater.views.values() for one in view.streams}
        return _compared(layouts, store, fresh, most)


def _streams(position: Position) -> dict[str, dict[int, int]]:
    return {name: stream.positions for name, stream in position.streams.items()}


def _compared(layouts: dict[tuple[str, str], Layout], store: OnlineStore, fresh: OnlineStore, most: int) -> Verified:
    now = max(decode(store.position()).moment, decode(fresh.position()).moment)
    keys = 0
    different: list[bytes] = []
    for one, other in ((store, fresh), (fresh, store)):
        for batch in _batches(one):
            values = other.get_many([key for key, _ in batch])
            for (key, value), theirs in zip(batch, values, strict=True):
                keys += one is store
                # Keys that both have were compared the first time.
                if theirs is not None and one is fresh:
                    continue
                if len(different) < most and not _same(layouts, key, value, theirs, now):
                    different.append(key)
    return Verified(keys, different)


def _batches(store: OnlineStore, size: int = 1000) -> Iterator[list[tuple[bytes, bytes]]]:
    batch: list[tuple[bytes, bytes]] = []
    for key, value in store.scan():
        if key != KEY:
            batch.append((key, value))
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def _same(layouts: dict[tuple[str, str], Layout], key: bytes, mine: bytes, theirs: bytes | None, now: int) -> bool:
    """Whether two values mean the same from a moment on: what no window reaches any more does not count."""
    if mine == theirs:
        return True
    parts = msgspec.msgpack.decode(key)
    layout = layouts.get((parts[0], parts[1]))
    if layout is None or len(parts) < 4:
        # Values of histories are those of the moment at which they were computed.
        return parts[0] not in (OWNER, MERGES) and bool(mine) == bool(theirs)
    return all(
        _equal(a, b) for a, b in zip(_settled(layout, mine, now), _settled(layout, theirs or b"", now), strict=True)
    )


def _settled(layout: Layout, value: bytes, now: int) -> list[Pieces]:
    stored = [value] if value else []
    groups = decoded(layout.groups, stored, np.zeros(len(stored), np.int64))
    return [
        part
        for group, (pieces, waiting) in zip(layout.groups, groups, strict=True)
        for part in settled(group, pieces, waiting, now)
    ]


def _equal(one: Pieces, other: Pieces) -> bool:
    lists = [*zip([*one.hashes, *one.best], [*other.hashes, *other.best], strict=True)]
    return (
        np.array_equal(one.start, other.start)
        and np.array_equal(one.whole, other.whole)
        and np.allclose(one.real, other.real, rtol=TOLERANCE, atol=0)
        and all(np.array_equal(a.piece, b.piece) and list(a.key) == list(b.key) for a, b in lists)
    )
