"""What became of recommendations: shown, clicked, bought and revenue, by scenario, model and variant.

An outcome counts for an impression that has its recommendation id and item; each impression counts once, however often
it was clicked. Shares have Wilson's interval of 95 % (JASA 22, 1927), which holds for few and for rare outcomes too; it
takes impressions as independent, so that it is too narrow where a visitor is shown many lists.
"""

from datetime import datetime
from math import sqrt
from typing import TYPE_CHECKING

import msgspec

from recsys_data.storage.query import connect
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb

EVENTS = "interactions"
NORMAL_95 = 1.959963984540054


class Share(msgspec.Struct, frozen=True):
    """A share of impressions, with its 95 % interval."""

    value: float
    low: float
    high: float


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the recommendations of a scenario, model and variant.

    Attributes:
        scenario, model, variant: as in the impressions; None where they have none.
        answers: recommendations.
        shown: impressions.
        clicked: impressions that were clicked.
        bought: impressions whose item was bought.
        revenue: sum of the value of those purchases.
        click_rate: clicked / shown.
        purchase_rate: bought / shown.
    """

    scenario: str | None
    model: str | None
    variant: str | None
    answers: int
    shown: int
    clicked: int
    bought: int
    revenue: float
    click_rate: Share
    purchase_rate: Share


# $since is NULL for all impressions. Repeated impressions of an item in one recommendation are one.
QUERY = f"""
    WITH shown AS (
        SELECT recommendation_id, item_id, min(list_id) AS scenario, min(model) AS model, min(variant) AS variant
        FROM {EVENTS}
        WHERE type = 'impression' AND recommendation_id IS NOT NULL AND ($since IS NULL OR event_ts >= $since)
        GROUP BY recommendation_id, item_id),
    followed AS (
        SELECT recommendation_id, item_id, bool_or(type = 'click') AS clicked, bool_or(type = 'purchase') AS bought,
            coalesce(sum(value) FILTER (type = 'purchase'), 0) AS revenue
        FROM {EVENTS}
        WHERE type IN ('click', 'purchase') AND recommendation_id IS NOT NULL
            AND ($since IS NULL OR event_ts >= $since)
        GROUP BY recommendation_id, item_id)
    SELECT scenario, model, variant, count(DISTINCT recommendation_id) AS answers, count(*) AS shown,
        count(*) FILTER (clicked) AS clicked, count(*) FILTER (bought) AS bought,
        coalesce(sum(revenue), 0)::DOUBLE AS revenue
    FROM shown LEFT JOIN followed USING (recommendation_id, item_id)
    GROUP BY ALL ORDER BY scenario NULLS LAST, model NULLS LAST, variant NULLS LAST"""


def outcomes(lake: Lake, since: datetime | None = None) -> list[Outcomes]:
    """The outcomes of all recommendations that were shown at `since` or later; None: of all."""
    with connect(lake, [EVENTS]) as connection:
        return outcomes_of(connection, since)


def outcomes_of(connection: "duckdb.DuckDBPyConnection", since: datetime | None = None) -> list[Outcomes]:
    """The same, of a session with a view `interactions`."""
    found = []
    for *group, answers, shown, clicked, bought, revenue in connection.execute(QUERY, {"since": since}).fetchall():
        scenario, model, variant = group
        found.append(
            Outcomes(
                scenario=scenario,
                model=model,
                variant=variant,
                answers=answers,
                shown=shown,
                clicked=clicked,
                bought=bought,
                revenue=revenue,
                click_rate=wilson(clicked, shown),
                purchase_rate=wilson(bought, shown),
            )
        )
    return found


def wilson(count: int, of: int) -> Share:
    """The share `count / of` with Wilson's 95 % interval.

    >>> [round(one, 4) for one in msgspec.structs.astuple(wilson(5, 100))]
    [0.05, 0.0215, 0.1118]
    >>> wilson(0, 0)
    Share(value=0.0, low=0.0, high=1.0)
    """
    if not of:
        return Share(0.0, 0.0, 1.0)
    share, square = count / of, NORMAL_95**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = NORMAL_95 / (1 + square / of) * sqrt(share * (1 - share) / of + square / (4 * of * of))
    return Share(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))
