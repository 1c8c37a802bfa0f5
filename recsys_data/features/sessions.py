"""Sessions: what a visitor did without a pause of 30 minutes, as a source for feature views.

The rows of the stream come back with what their session was as of them: `session_id`, `session_depth` (events so far,
this one among them), `session_seconds` (since it began) and `session_query` (the last one). A view takes their `last`
over a rolling window as long as the gap. A row is known once all rows of its session up to it are, so that nothing
leaks; until a late event is known, a view therefore shows the session as it was before that event.
"""

from dataclasses import replace

from recsys_data.features.view import MINUTE, Source
from recsys_data.sql import literal, quote

GAP = 30 * MINUTE
COLUMNS = {
    "session_id": "VARCHAR",
    "session_depth": "BIGINT",
    "session_seconds": "DOUBLE",
    "session_query": "VARCHAR",
}


def sessions(
    source: Source, query: str, *, visitor: tuple[str, ...] = ("user_id", "anonymous_id"), searched: str, gap: int = GAP
) -> tuple[Source, str]:
    """The source of sessions, and SQL of its rows.

    Args:
        source: a stream with a time.
        query: SQL of its rows.
        visitor: columns of whose sessions they are, the first that is not NULL; rows without any are left out.
        searched: column of what was searched for.
        gap: microseconds without an event after which a session is over.
    """
    time, known = quote(source.time or ""), quote(source.known or source.time or "")
    order = ", ".join([time, *map(quote, source.order)])
    # The columns tell ids of different kinds apart.
    ids = [literal(f"{name}:") + " || " + quote(name) for name in visitor]
    who = f"coalesce({', '.join(ids)})"
    so_far = f'(PARTITION BY "#who", "#session" ORDER BY {order} ROWS UNBOUNDED PRECEDING)'
    known_now = f" REPLACE (max({known}) OVER {so_far} AS {known})" if source.known else ""
    sql = f"""WITH visits AS (SELECT *, {who} AS "#who" FROM ({query}) WHERE {who} IS NOT NULL AND {time} IS NOT NULL),
        gaps AS (SELECT *, coalesce(epoch_us({time}) - lag(epoch_us({time})) OVER (PARTITION BY "#who" ORDER BY {order})
            >= {gap}, true) AS "#starts" FROM visits),
        numbered AS (SELECT * EXCLUDE ("#starts"), count(*) FILTER (WHERE "#starts") OVER (
            PARTITION BY "#who" ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS "#session" FROM gaps)
        SELECT * EXCLUDE ("#who", "#session"){known_now},
            md5("#who" || ' ' || epoch_us(min({time}) OVER {so_far})) AS session_id,
            count(*) OVER {so_far} AS session_depth,
            (epoch_us({time}) - epoch_us(min({time}) OVER {so_far})) / 1e6::DOUBLE AS session_seconds,
            last_value({quote(searched)} IGNORE NULLS) OVER {so_far} AS session_query
        FROM numbered"""
    return replace(source, columns={**source.columns, **COLUMNS}), sql
