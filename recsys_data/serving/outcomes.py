"""What became of recommendations: shown, clicked, bought and revenue, by scenario, model and variant.

An outcome counts for an impression that has its recommendation id and item; each impression counts once, however often
it was clicked. What was shown to bots is left out. Shares have Wilson's interval of 95 % (JASA 22, 1927), which holds
for few and for rare outcomes too. From 30 visitors on, impressions count for as many fewer as the variance between
visitors is larger than that of independent impressions.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from math import sqrt
from typing import TYPE_CHECKING

import msgspec

from recsys_data.serving.bots import EVENTS, VISITOR, bots_sql, connect_events
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb

NORMAL_95 = 1.959963984540054
# With fewer, how much their impressions depend on each other is not known.
LEAST_VISITORS = 30


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
        visitors: to whom they were shown.
        shown_to_bots: impressions that are in none of the other numbers.
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
    visitors: int = 0
    shown_to_bots: int = 0


# $since is NULL for all impressions. Repeated impressions of an item in one recommendation are one.
QUERY = f"""
    WITH bots AS ({{bots}}),
    shown AS (
        SELECT recommendation_id, item_id, min(list_id) AS scenario, min(model) AS model, min(variant) AS variant,
            min({VISITOR}) AS visitor, min(event_ts)::DATE AS day
        FROM {EVENTS}
        WHERE type = 'impression' AND recommendation_id IS NOT NULL AND ($since IS NULL OR event_ts >= $since)
        GROUP BY recommendation_id, item_id),
    followed AS (
        SELECT recommendation_id, item_id, bool_or(type = 'click') AS clicked, bool_or(type = 'purchase') AS bought,
            coalesce(sum(value) FILTER (type = 'purchase'), 0) AS revenue
        FROM {EVENTS}
        WHERE type IN ('click', 'purchase') AND recommendation_id IS NOT NULL
            AND ($since IS NULL OR event_ts >= $since)
        GROUP BY recommendation_id, item_id),
    of_visitors AS (
        SELECT scenario, {{model}} AS model, variant, visitor, bots.visitor IS NOT NULL AS bot,
            count(DISTINCT recommendation_id) AS answers, count(*) AS shown, count(*) FILTER (clicked) AS clicked,
            count(*) FILTER (bought) AS bought, coalesce(sum(revenue), 0)::DOUBLE AS revenue
        FROM shown LEFT JOIN followed USING (recommendation_id, item_id) LEFT JOIN bots USING (visitor, day)
        GROUP BY ALL)
    SELECT scenario, model, variant, {{sums}} FROM of_visitors
    GROUP BY ALL ORDER BY scenario NULLS LAST, model NULLS LAST, variant NULLS LAST"""
SUMS = {
    "answers": "sum(answers)",
    "shown": "sum(shown)",
    "clicked": "sum(clicked)",
    "bought": "sum(bought)",
    "visitors": "count(DISTINCT visitor)",
    "shown_squared": "sum(shown * shown)",
    "clicked_squared": "sum(clicked * clicked)",
    "clicked_shown": "sum(clicked * shown)",
    "bought_squared": "sum(bought * bought)",
    "bought_shown": "sum(bought * shown)",
}


def outcomes(lake: Lake, since: datetime | None = None) -> list[Outcomes]:
    """The outcomes of all recommendations that were shown at `since` or later; None: of all."""
    connection, contexts = connect_events(lake)
    with connection:
        return outcomes_of(connection, since, contexts)


def outcomes_of(
    connection: "duckdb.DuckDBPyConnection", since: datetime | None = None, contexts: bool = False
) -> list[Outcomes]:
    """The same, of a session with a view `interactions` and, if `contexts`, one of that name."""
    return [
        Outcomes(
            scenario=scenario,
            model=model,
            variant=variant,
            answers=one["answers"],
            shown=one["shown"],
            clicked=one["clicked"],
            bought=one["bought"],
            revenue=revenue,
            click_rate=rate_of(one, "clicked"),
            purchase_rate=rate_of(one, "bought"),
            visitors=one["visitors"],
            shown_to_bots=of_bots,
        )
        for scenario, model, variant, one, revenue, of_bots in counted(connection, since, contexts)
    ]


def counted(
    connection: "duckdb.DuckDBPyConnection", since: datetime | None, contexts: bool, by_model: bool = True
) -> Iterator[tuple[str | None, str | None, str | None, dict[str, int], float, int]]:
    """Scenario, model, variant, `SUMS`, revenue and impressions to bots of each group; see `outcomes_of`.

    Args:
        connection: has the views.
        since: None: of all.
        contexts: whether there is such a view.
        by_model: whether models are groups of their own; otherwise the model is None.
    """
    sums = [f"coalesce({sql} FILTER (NOT bot), 0)::BIGINT AS {name}" for name, sql in SUMS.items()]
    sums += ["coalesce(sum(revenue) FILTER (NOT bot), 0) AS revenue", "coalesce(sum(shown) FILTER (bot), 0)::BIGINT"]
    model = "model" if by_model else "NULL::VARCHAR"
    query = QUERY.format(bots=bots_sql(contexts), sums=", ".join(sums), model=model)
    for scenario, name, variant, *values, revenue, of_bots in connection.execute(query, {"since": since}).fetchall():
        yield scenario, name, variant, dict(zip(SUMS, values, strict=True)), revenue, of_bots


def rate_of(sums: Mapping[str, int], name: str) -> Share:
    """The share of impressions that have the outcome of this name, from `SUMS`."""
    return wilson(sums[name], sums["shown"], effect_of(sums, name))


def effect_of(sums: Mapping[str, int], name: str) -> float:
    """The design effect of that share; 1 where it is not known."""
    count, shown, visitors = sums[name], sums["shown"], sums["visitors"]
    if visitors < LEAST_VISITORS or not 0 < count < shown:
        return 1.0
    rate = count / shown
    spread = sums[f"{name}_squared"] - 2 * rate * sums[f"{name}_shown"] + rate * rate * sums["shown_squared"]
    return design_effect(spread * visitors / (visitors - 1), rate, shown)


def design_effect(spread: float, rate: float, shown: int) -> float:
    """How many times as large the variance of a rate is as with independent impressions (Kish), at least 1.

    Args:
        spread: sum over visitors of (outcomes - rate * impressions) squared.
        rate: outcomes per impression.
        shown: impressions.
    """
    return max(1.0, spread / (rate * (1 - rate) * shown))


def wilson(count: int, of: int, effect: float = 1.0) -> Share:
    """The share `count / of` with Wilson's 95 % interval; `effect` is that of the design, as many are like one.

    >>> [round(one, 4) for one in msgspec.structs.astuple(wilson(5, 100))]
    [0.05, 0.0215, 0.1118]
    >>> wilson(0, 0)
    Share(value=0.0, low=0.0, high=1.0)
    """
    if not of:
        return Share(0.0, 0.0, 1.0)
    share, square, size = count / of, NORMAL_95**2, of / effect
    middle = (share + square / (2 * size)) / (1 + square / size)
    half = NORMAL_95 / (1 + square / size) * sqrt(share * (1 - share) / size + square / (4 * size * size))
    return Share(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))
