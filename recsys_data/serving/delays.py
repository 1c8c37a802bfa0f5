"""How long events take: from their receipt until answers use them, and to the answer that used them first.

Data flow: what follows the lake reports events once answers use them; answers take the newest of their visitor. Both
are counted for Prometheus, the second is in the impressions too, where `recsys-data status` reads it.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from recsys_data.serving.log import DELAY, SOURCE
from recsys_data.serving.metrics import ServingMetrics
from recsys_data.sql import literal, open_session
from recsys_data.storage.query import file_path, relation
from recsys_data.storage.tables import Lake

EVENTS = "interactions"
# How far back the status looks.
WINDOW = timedelta(hours=1)

# Visitors whose newest event has not been used yet.
WAITING = 50_000
# Of which the quantiles are.
LATELY = 2_000
# A visitor who asks later than this after answers could use the event says nothing about how fast it went.
SOON_SECONDS = 10.0


class Delay(msgspec.Struct, frozen=True):
    """Quantiles of the last events; None where there were none."""

    events: int
    p50_s: float | None
    p95_s: float | None


class EventDelays:
    """Remembers the newest event of visitors until an answer uses it.

    Args:
        metrics: count the seconds.
    """

    def __init__(self, metrics: ServingMetrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        # When the newest event was received, and from when on answers use it.
        self._waiting: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._online: deque[float] = deque(maxlen=LATELY)
        self._used: deque[float] = deque(maxlen=LATELY)

    def arrived(self, events: Iterable[tuple[Collection[str], float | None]]) -> None:
        """Answers use these events from now on: what their visitor is known by, and when they were received.

        Seconds since 1970; events without that, which no collector received, are left out.
        """
        now = time.time()
        with self._lock:
            for keys, received_at in events:
                if received_at is None:
                    continue
                delay = max(0.0, now - received_at)
                self._online.append(delay)
                self._metrics.event_online_seconds.observe(delay)
                for key in keys:
                    self._waiting.pop(key, None)
                    self._waiting[key] = (received_at, now)
            while len(self._waiting) > WAITING:
                self._waiting.popitem(last=False)

    def used(self, keys: Collection[str]) -> float | None:
        """An answer is given to a visitor: seconds since their newest event was received.

        None if another answer used that event already, or if answers could have used it for long.
        """
        if not self._waiting:
            return None
        now = time.time()
        with self._lock:
            found = [at for key in keys if (at := self._waiting.pop(key, None)) is not None]
            if not found or now - max(found)[1] > SOON_SECONDS:
                return None
            delay = max(0.0, now - max(found)[0])
            self._used.append(delay)
        self._metrics.event_used_seconds.observe(delay)
        return delay

    def online(self) -> Delay:
        """Receipt until answers use an event."""
        return self._quantiles(self._online)

    def first_answers(self) -> Delay:
        """Receipt to the first answer that used an event, of visitors who ask soon."""
        return self._quantiles(self._used)

    def _quantiles(self, kept: Collection[float]) -> Delay:
        with self._lock:
            values = sorted(kept)
        if not values:
            return Delay(0, None, None)
        return Delay(len(values), *(round(values[int(share * (len(values) - 1))], 3) for share in (0.5, 0.95)))


def stored_delays(lake: Lake, now: datetime | None = None) -> Delay:
    """Receipt to the first answer that used an event, of the answers of the last hour that are stored."""
    now = now or datetime.now(UTC)
    # A contract of one's own may have fewer columns.
    if not lake.exists(EVENTS) or not {"properties", "source"} <= {one.name for one in lake.contracts[EVENTS].columns}:
        return Delay(0, None, None)
    table = lake.table(EVENTS)
    since = now - WINDOW
    first = (since - datetime(1970, 1, 1, tzinfo=UTC)).days
    files = [file_path(task.file) for task in table.scan().plan_files() if task.file.partition[0] >= first]
    if not files:
        return Delay(0, None, None)
    with open_session() as connection:
        events, *quantiles = connection.execute(
            f"""SELECT count(delay), quantile_disc(delay, 0.5), quantile_disc(delay, 0.95) FROM (
                SELECT TRY_CAST(json_extract_string(properties, '$.{DELAY}') AS DOUBLE) AS delay
                FROM ({relation(table, files)})
                WHERE type = 'impression' AND source = {literal(SOURCE)} AND event_ts >= $since
                    AND contains(properties, {literal(DELAY)}))""",
            {"since": since},
        ).fetchall()[0]
    return Delay(events, *quantiles)
