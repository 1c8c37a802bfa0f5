"""How far an online store is behind the lake."""

import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from recsys_data.errors import RecsysDataError
from recsys_data.serving.online.position import decode
from recsys_data.serving.online_store.open import EMBEDDED, open_online_store
from recsys_data.serving.online_store.protocol import OnlineStore
from recsys_data.storage.iceberg.manifest_stats import days as days_of

if TYPE_CHECKING:
    from recsys_data.settings import Settings
    from recsys_data.storage.tables import Lake


class OnlineLag(msgspec.Struct, frozen=True):
    """Where an online store is.

    Attributes:
        rows: of streams that are in the lake and not in the store; 0: it is equal.
        seconds: since the last commit that was followed, if rows wait; None: the store was never written.
        positions: stream -> log partition -> the next position.
    """

    rows: int
    seconds: float | None
    positions: dict[str, dict[int, int]]


def lag_of(lake: "Lake", store: OnlineStore) -> OnlineLag:
    """How far a store is behind.

    Raises:
        Transient: it cannot be read now.
    """
    stored = store.position()
    position = decode(stored)
    rows = 0
    for name, stream in position.streams.items():
        there = sum(one.rows for one in days_of(lake.table(name)).values())
        rows += max(0, there - sum(stream.days.values()))
    positions = {name: stream.positions for name, stream in position.streams.items()}
    if stored is None:
        return OnlineLag(rows, None, positions)
    return OnlineLag(rows, max(0.0, time.time() - position.moment / 1e6) if rows else 0.0, positions)


def lag_now(lake: "Lake", settings: "Settings") -> OnlineLag | str | None:
    """How far the store that the settings name is behind; text: why it cannot be said; None: there is none yet."""
    if settings.online_store == EMBEDDED and not settings.online_dir.exists():
        return None
    try:
        with closing(open_online_store(settings)) as store:
            return lag_of(lake, store)
    except RecsysDataError as error:
        return str(error)
