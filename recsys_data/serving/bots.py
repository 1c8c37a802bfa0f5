"""Which visitors are bots on a day: crawlers that say so, and visitors that act as fast as no person does.

The limits of speed are those of the shipped training sets.
"""

from typing import TYPE_CHECKING

from recsys_data.sql import literal
from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb

EVENTS = "interactions"
CONTEXTS = "contexts"
VISITOR = "coalesce(user_id, anonymous_id)"
# Names in the user agents of crawlers and of browsers without a window; case does not matter. Libraries are not among
# them: apps and the backends of shops send what people did with them.
CRAWLERS = (
    r"(?:^|[^u])bot\b|crawl|spider|slurp|archiver|facebookexternalhit|embedly|bingpreview|lighthouse"
    r"|headless|phantomjs|scrapy"
)
TOO_MANY = "events > 5000 OR (clicks > 500 AND purchases = 0)"


def bots_sql(contexts: bool, since: str = "$since") -> str:
    """SQL of the days of bots: `visitor`, `day`, and `crawler` (whether the user agent said so).

    Args:
        contexts: whether the session has the view `contexts`; without it only speed tells.
        since: SQL of the moment from which on events count, NULL for all.
    """
    recent = f"({since} IS NULL OR event_ts >= {since})"
    crawlers = "SELECT NULL::VARCHAR AS visitor, NULL::DATE AS day WHERE false"
    if contexts:
        crawlers = f"""
            SELECT DISTINCT {VISITOR} AS visitor, event_ts::DATE AS day FROM {CONTEXTS}
            WHERE {recent} AND user_agent IN (
                SELECT user_agent FROM (SELECT DISTINCT user_agent FROM {CONTEXTS} WHERE {recent})
                WHERE regexp_matches(user_agent, {literal(CRAWLERS)}, 'i'))"""
    return f"""
        SELECT visitor, day, bool_or(crawler) AS crawler FROM (
            SELECT visitor, day, true AS crawler FROM ({crawlers})
            UNION ALL
            SELECT visitor, day, false FROM (
                SELECT {VISITOR} AS visitor, event_ts::DATE AS day, count(*) AS events,
                    count(*) FILTER (type = 'click') AS clicks, count(*) FILTER (type = 'purchase') AS purchases
                FROM {EVENTS} WHERE {recent} GROUP BY ALL)
            WHERE {TOO_MANY})
        WHERE visitor IS NOT NULL GROUP BY ALL"""


def connect_events(lake: Lake) -> "tuple[duckdb.DuckDBPyConnection, bool]":
    """A session with `interactions` and, where there are some, `contexts`; and whether there are."""
    contexts = CONTEXTS in lake.contracts and lake.exists(CONTEXTS)
    contexts = contexts and any(column.name == "user_agent" for column in lake.contracts[CONTEXTS].columns)
    return connect(lake, [EVENTS, *([CONTEXTS] if contexts else [])]), contexts
