"""How much of the traffic is of bots, by day: crawlers that say so, and visitors that act as fast as no person does.

Data flow: interactions and user agents in contexts -> the days of bots (`serving/bots.py`) -> shares of events,
impressions and visitors. Run alone: the check `bots` of interactions.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median

import msgspec

from recsys_data.background import gives_way
from recsys_data.serving.bots import EVENTS, VISITOR, bots_sql, connect_events
from recsys_data.storage.tables import Lake

DAYS = 14
# A share is reported that is this large, and so many times as large as usual.
LEAST_SHARE, TIMES = 0.05, 3.0
BEFORE_DAYS = 7


class BotDay(msgspec.Struct, frozen=True):
    """The traffic of a day (UTC).

    Attributes:
        day: e.g. 2026-11-22.
        events, impressions, visitors: all of them.
        bot_events, bot_impressions, bot_visitors: those of bots.
        crawlers: visitors whose user agent says that they are.
    """

    day: str
    events: int
    impressions: int
    visitors: int
    bot_events: int
    bot_impressions: int
    bot_visitors: int
    crawlers: int

    @property
    def share(self) -> float:
        """Of the events."""
        return self.bot_events / self.events if self.events else 0.0


@gives_way
def bots(lake: Lake, days: int = DAYS, now: datetime | None = None) -> list[BotDay]:
    """The last days that are over, in order; empty without interactions."""
    if not lake.exists(EVENTS):
        return []
    now = (now or datetime.now(UTC)).astimezone(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    connection, contexts = connect_events(lake)
    with connection:
        rows = connection.execute(
            f"""WITH bots AS ({bots_sql(contexts)})
            SELECT day::VARCHAR, count(*), count(*) FILTER (type = 'impression'), count(DISTINCT e.visitor),
                count(*) FILTER (bots.visitor IS NOT NULL),
                count(*) FILTER (bots.visitor IS NOT NULL AND type = 'impression'),
                count(DISTINCT bots.visitor), count(DISTINCT bots.visitor) FILTER (crawler)
            FROM (
                SELECT {VISITOR} AS visitor, event_ts::DATE AS day, type FROM {EVENTS}
                WHERE event_ts >= $since AND event_ts < $until) e
            LEFT JOIN bots USING (visitor, day) GROUP BY day ORDER BY day""",
            {"since": today - timedelta(days=days), "until": today},
        ).fetchall()
    return [BotDay(*row) for row in rows]


def surge(found: Sequence[BotDay]) -> tuple[float, float] | None:
    """The usual share of the events and that of the last day, if bots came; else None.

    >>> quiet = [BotDay(f"2026-01-0{n}", 100, 0, 9, 2, 0, 1, 1) for n in range(1, 5)]
    >>> surge(quiet), surge([*quiet, BotDay("2026-01-05", 100, 0, 9, 30, 0, 1, 1)])
    (None, (0.02, 0.3))
    """
    if not found:
        return None
    *before, last = found[-BEFORE_DAYS - 1 :]
    usual = median(one.share for one in before) if before else 0.0
    return (usual, last.share) if last.share >= max(LEAST_SHARE, TIMES * usual) else None


def by_measure(found: Sequence[BotDay]) -> Mapping[str, Mapping[str, list[tuple[str, float]]]]:
    """Shares of bots, as `plots.lines_png` draws them."""
    impressions = [(one.day, one.bot_impressions / one.impressions) for one in found if one.impressions]
    return {"share of bots": {"events": [(one.day, one.share) for one in found], "impressions": impressions}}
