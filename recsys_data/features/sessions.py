"""Sessions: what a visitor did without a pause of 30 minutes, as a source for feature views.

The rows of the stream come back with what their session was as of them: `visitor_id` (the user, or else the anonymous
id), `visit_id`, `visit_depth` (events so far, this one among them), `visit_seconds` (since it began), `visit_query`
(the last one) and `previous_item_id` (the item before this one that the visitor acted on, if it is another). A view
takes their `last` over a rolling window as long as the gap. A row is known once all rows of its session up to it are,
so that nothing leaks; until a late event is known, a view therefore shows the session as it was before that event.

Of a session that lasts for days, a row sees what happened since the beginning of the day before, so that the rows of
a day depend on two days of events and no more.
"""

from recsys_data.contracts.features.sources import IDENTITY
from recsys_data.contracts.features.view import DAY, MINUTE, Source
from recsys_data.sql import literal, quote

GAP = 30 * MINUTE
# Being shown is not an act of the visitor.
ACTED = "CASE WHEN type <> 'impression' THEN item_id END"


def sessions(source: Source, query: str, *, gap: int = GAP) -> str:
    """SQL of the rows of sessions.

    Args:
        source: interactions, or a stream with their columns.
        query: SQL of its rows.
        gap: microseconds without an event after which a session is over.
    """
    time, known = quote(source.time or ""), quote(source.known or source.time or "")
    order = ", ".join([time, *map(quote, source.order)])
    # The columns tell ids of different kinds apart.
    who = f"coalesce({', '.join(literal(f'{name}:') + ' || ' + quote(name) for name in IDENTITY)})"
    by_day = f'(PARTITION BY "#who", "#seen" ORDER BY {order}'
    so_far = f'(PARTITION BY "#who", "#seen", "#session" ORDER BY {order} ROWS UNBOUNDED PRECEDING)'
    before = so_far.replace("ROWS UNBOUNDED PRECEDING", "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING")
    known_now = f" REPLACE (max({known}) OVER {so_far} AS {known})" if source.known else ""
    return f"""WITH visits AS (SELECT *, {who} AS "#who", {ACTED} AS "#acted", epoch_us({time}) // {DAY} AS "#day"
            FROM ({query}) WHERE {who} IS NOT NULL AND {time} IS NOT NULL),
        seen AS (SELECT *, unnest(["#day", "#day" + 1]) AS "#seen" FROM visits),
        gaps AS (SELECT *, coalesce(epoch_us({time}) - lag(epoch_us({time})) OVER {by_day}) >= {gap}, true) AS "#starts"
            FROM seen),
        numbered AS (SELECT * EXCLUDE ("#starts"), count(CASE WHEN "#starts" THEN true END) OVER {by_day}
            ROWS UNBOUNDED PRECEDING) AS "#session" FROM gaps)
        SELECT * EXCLUDE ("#who", "#acted", "#day", "#seen", "#session") FROM (SELECT *{known_now},
            coalesce({", ".join(map(quote, IDENTITY))}) AS visitor_id,
            md5("#who" || ' ' || epoch_us(min({time}) OVER {so_far})) AS visit_id,
            count(*) OVER {so_far} AS visit_depth,
            (epoch_us({time}) - epoch_us(min({time}) OVER {so_far})) / 1e6::DOUBLE AS visit_seconds,
            last_value(query IGNORE NULLS) OVER {so_far} AS visit_query,
            nullif(last_value("#acted" IGNORE NULLS) OVER {before}, item_id) AS previous_item_id
        FROM numbered) WHERE "#seen" = "#day\""""
