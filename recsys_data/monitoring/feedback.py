"""Feedback loops: what each model showed on each day, and what came of it.

Data flow: impressions with a `recommendation_id` -> items by model and day -> coverage, concentration, new items,
popularity; impressions -> clicks and purchases of the same recommendation and item -> rates with intervals. All of it
is SQL over interactions and the history of the catalogue. Run alone: `recsys-data feedback`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from recsys_data.background import gives_way
from recsys_data.contracts.model import history_name
from recsys_data.contracts.servers import Reference
from recsys_data.days import day_number
from recsys_data.settings import Settings
from recsys_data.sql import open_session, quote
from recsys_data.storage.iceberg.manifest_stats import days as days_of
from recsys_data.storage.query import data_files, file_path, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

INTERACTIONS = "interactions"
NEEDED = ("type", "item_id", "recommendation_id", "user_id", "anonymous_id", "event_ts")
# After which clicks and purchases of an impression do not count any more.
MATURITY = timedelta(days=1)
NEW_DAYS, POPULAR_DAYS = 30, 7
TOP = 0.01
# They are read from their files once.
MOST_ROWS_COPIED = 5_000_000
# Two-sided 95 %.
DEVIATE = 1.96
# A fall is reported if it is by a quarter, and further than chance goes in one of ten thousand comparisons.
FALL, CHANCE, BEFORE_DAYS, LEAST_DAYS, LEAST_IMPRESSIONS = 0.75, 4.0, 7, 3, 300


class Rate(msgspec.Struct, frozen=True):
    """Outcomes per impression, with an interval of 95 % over visitors."""

    count: int
    rate: float
    low: float
    high: float


class ModelDay(msgspec.Struct, frozen=True):
    """What a model showed on a day.

    Attributes:
        day: UTC, of the impression.
        model: as impressions name it; `(none)` where they name none.
        impressions, lists, visitors, items: how many there are, the latter three different ones.
        coverage: share of the available items of the catalogue that were shown; None without a catalogue.
        gini: concentration of impressions on items, those never shown included: 0 all equal, near 1 on a few.
        top_share: share of the impressions that the most shown hundredth of the items had.
        new_share: share of the impressions of items that came into the catalogue in the last 30 days.
        popularity: how often the shown items were acted on in the seven days before, in multiples of the average item.
        clicks, purchases: of the same recommendation and item within a day.
        matured: whether that day is over for all of them, so that the rates are final.
    """

    day: str
    model: str
    impressions: int
    lists: int
    visitors: int
    items: int
    coverage: float | None
    gini: float
    top_share: float
    new_share: float | None
    popularity: float | None
    clicks: Rate
    purchases: Rate
    matured: bool


class Fall(msgspec.Struct, frozen=True):
    """A model whose rate fell: on its last matured day, and on the days before."""

    day: str
    model: str
    outcome: str
    before: float
    now: float


@gives_way
def feedback(
    lake: Lake, settings: Settings, days: int = 14, until: str | None = None, now: datetime | None = None
) -> list[ModelDay]:
    """What each model showed, a row for each model and day, in order; empty if impressions name no recommendation.

    Args:
        lake: where interactions are.
        settings: say how much memory is used before it spills.
        days: how many.
        until: the last of them, e.g. 2026-11-22; None: the last that is over.
        now: tells which days have matured.
    """
    now = now or datetime.now(UTC)
    contract = lake.contracts[INTERACTIONS]
    if not {*NEEDED} <= {column.name for column in contract.columns}:
        return []
    table = lake.table(INTERACTIONS)
    today = day_number(now.astimezone(UTC).date())
    stored = days_of(table)
    last = day_number(until) if until else max((day for day in stored if day < today), default=0)
    first = last - days + 1
    files = [
        file_path(task.file)
        for task in table.scan().plan_files()
        if first - POPULAR_DAYS <= task.file.partition[0] <= last + MATURITY.days
    ]
    reference = next((one for one in contract.references if one.column == "item_id"), None)
    with open_session(parallel=True, memory_bytes=settings.history_memory_mb * 1_000_000) as connection:
        model = "model" if any(column.name == "model" for column in contract.columns) else "NULL"
        few = sum(one.rows for day, one in stored.items() if day >= first - POPULAR_DAYS) <= MOST_ROWS_COPIED
        kind = "TABLE" if few else "VIEW"
        connection.execute(f"CREATE TEMP {kind} events AS {_events(relation(table, files), model)}")
        _catalogue(connection, lake, reference)
        _shown(connection, first, last)
        rows = connection.execute(_report()).fetchall()
    mature = (now - MATURITY).astimezone(UTC).date().isoformat()
    return [
        ModelDay(*row[:11], clicks=Rate(*row[11:15]), purchases=Rate(*row[15:19]), matured=row[0] < mature)
        for row in rows
    ]


def falls(found: Sequence[ModelDay]) -> list[Fall]:
    """The models whose rate of clicks or purchases fell on their last matured day against the week before it."""
    by_model: dict[str, list[ModelDay]] = defaultdict(list)
    for one in found:
        if one.matured and one.impressions >= LEAST_IMPRESSIONS:
            by_model[one.model].append(one)
    fallen = []
    for model, days in by_model.items():
        *before, last = days[-BEFORE_DAYS - 1 :]
        if len(before) < LEAST_DAYS:
            continue
        for outcome in ("clicks", "purchases"):
            rate, own = getattr(last, outcome).rate, _variance(getattr(last, outcome))
            shown = sum(one.impressions for one in before)
            usual = sum(getattr(one, outcome).count for one in before) / shown
            variance = sum(one.impressions**2 * _variance(getattr(one, outcome)) for one in before) / shown**2
            if rate < FALL * usual and usual - rate > CHANCE * math.sqrt(own + variance):
                fallen.append(Fall(last.day, model, outcome, usual, rate))
    return fallen


def _variance(rate: Rate) -> float:
    return max((rate.high - rate.rate) / DEVIATE, (rate.rate - rate.low) / DEVIATE) ** 2


def _events(rows: str, model: str) -> str:
    return f"""SELECT event_ts::DATE - DATE '1970-01-01' AS day, epoch_us(event_ts) AS ts, type, item_id,
        recommendation_id, coalesce(user_id, anonymous_id) AS visitor, coalesce({model}, '(none)') AS model
        FROM ({rows}) WHERE item_id IS NOT NULL"""


def _catalogue(connection: "DuckDBPyConnection", lake: Lake, reference: Reference | None) -> None:
    """States of items: `catalogue` (item_id, available, begins, ends as days since 1970)."""
    if reference is None:
        connection.execute(
            "CREATE TEMP TABLE catalogue AS SELECT '' AS item_id, true AS available, 0 AS begins, 0 AS ends WHERE false"
        )
        return
    history = lake.table(history_name(reference.dataset))
    columns = {column.name: column.type for column in lake.contracts[reference.dataset].columns}
    available = "coalesce(available, true)" if columns.get("available") == "boolean" else "true"
    connection.execute(
        f"""CREATE TEMP TABLE catalogue AS SELECT {quote(reference.key)} AS item_id, {available} AS available,
            epoch_us(valid_from) // 86400000000 AS begins,
            coalesce(epoch_us(valid_to) // 86400000000, 2147483647) AS ends
        FROM ({relation(history, data_files(history))})"""
    )


def _shown(connection: "DuckDBPyConnection", first: int, last: int) -> None:
    """`shown` (day, model, item_id, n) and `served` (day, model, visitor, impressions, clicks, purchases, lists)."""
    outcomes = {"clicks": "click", "purchases": "purchase"}
    for name, kind in outcomes.items():
        connection.execute(
            f"""CREATE TEMP TABLE {name} AS SELECT recommendation_id, item_id, min(ts) AS ts FROM events
            WHERE type = '{kind}' AND recommendation_id IS NOT NULL GROUP BY ALL"""
        )
    within = " ".join(
        f"""LEFT JOIN {name} ON {name}.recommendation_id = i.recommendation_id AND {name}.item_id = i.item_id
        AND {name}.ts >= i.ts AND {name}.ts < i.ts + {MATURITY // timedelta(microseconds=1)}"""
        for name in outcomes
    )
    connection.execute(
        f"""CREATE TEMP TABLE served AS SELECT i.day, i.model, i.visitor, count(*) AS impressions,
            count(clicks.ts) AS clicks, count(purchases.ts) AS purchases,
            count(DISTINCT i.recommendation_id) AS lists
        FROM (FROM events WHERE type = 'impression' AND recommendation_id IS NOT NULL
            AND day BETWEEN {first} AND {last}) i {within} GROUP BY ALL;
        CREATE TEMP TABLE shown AS SELECT day, model, item_id, count(*) AS n FROM events
        WHERE type = 'impression' AND recommendation_id IS NOT NULL AND day BETWEEN {first} AND {last} GROUP BY ALL;
        CREATE TEMP TABLE acted AS SELECT day, item_id, count(*) AS n FROM events WHERE type <> 'impression'
        GROUP BY ALL"""
    )


def _report() -> str:
    """SQL of a row for each model and day."""
    rates = ", ".join(
        f"""sum({name})::BIGINT, any_value({name}_rate),
        greatest(0, any_value({name}_rate) - {DEVIATE} * sqrt({_cluster_variance(name)})),
        least(1, any_value({name}_rate) + {DEVIATE} * sqrt({_cluster_variance(name)}))"""
        for name in ("clicks", "purchases")
    )
    return f"""
        WITH days AS (SELECT DISTINCT day, model FROM shown),
        there AS (
            SELECT DISTINCT d.day, item_id FROM (SELECT DISTINCT day FROM days) d JOIN catalogue c
            ON c.available AND c.begins <= d.day + 1 AND c.ends > d.day),
        size AS (SELECT day, count(*) AS size FROM there GROUP BY day),
        ages AS (SELECT item_id, min(begins) AS came FROM catalogue GROUP BY item_id),
        began AS (SELECT min(came) AS began FROM ages),
        popular AS (
            SELECT d.day, a.item_id, sum(a.n) AS n FROM (SELECT DISTINCT day FROM days) d
            JOIN acted a ON a.day BETWEEN d.day - {POPULAR_DAYS} AND d.day - 1 GROUP BY ALL),
        all_acted AS (SELECT day, sum(n) AS acted FROM popular GROUP BY day),
        items AS (
            SELECT s.day, s.model, s.item_id, s.n, there.item_id IS NOT NULL AS listed, popular.n AS acts,
                ages.came > began.began AND ages.came >= s.day - {NEW_DAYS} AS new,
                row_number() OVER (PARTITION BY s.day, s.model ORDER BY s.n, s.item_id) AS rank,
                count(*) OVER (PARTITION BY s.day, s.model) AS items,
                count(*) FILTER (there.item_id IS NULL) OVER (PARTITION BY s.day, s.model) AS unlisted
            FROM shown s LEFT JOIN there USING (day, item_id) LEFT JOIN ages USING (item_id)
            LEFT JOIN popular USING (day, item_id) CROSS JOIN began),
        sized AS (
            SELECT items.*, coalesce(size, 0) + unlisted AS total, size, acted
            FROM items LEFT JOIN size USING (day) LEFT JOIN all_acted USING (day)),
        spread AS (
            SELECT day, model, sum(n) AS n, count(*) AS items, count(*) FILTER (listed) / any_value(size) AS coverage,
                sum((2.0 * (total - items + rank) - total - 1) * n) / (any_value(total) * sum(n)) AS gini,
                coalesce(sum(n) FILTER (items - rank < ceil(total * {TOP})), 0) / sum(n) AS top_share,
                CASE WHEN any_value(size) IS NOT NULL THEN coalesce(sum(n) FILTER (new), 0) / sum(n) END AS new_share,
                sum(n * coalesce(acts, 0)) / sum(n) / (any_value(acted) / any_value(total)) AS popularity
            FROM sized GROUP BY day, model),
        rated AS (
            SELECT *, sum(clicks) OVER w / sum(impressions) OVER w AS clicks_rate,
                sum(purchases) OVER w / sum(impressions) OVER w AS purchases_rate
            FROM served WINDOW w AS (PARTITION BY day, model)),
        outcomes AS (
            SELECT day, model, sum(lists)::BIGINT AS lists, count(visitor) AS visitors, {rates}
            FROM rated GROUP BY day, model)
        SELECT (DATE '1970-01-01' + day::INTEGER)::VARCHAR, model, n::BIGINT, lists, visitors, items, coverage, gini,
            top_share, new_share, popularity, outcomes.* EXCLUDE (day, model, lists, visitors)
        FROM spread JOIN outcomes USING (day, model) ORDER BY day, model"""


def _cluster_variance(name: str) -> str:
    """SQL of the variance of a ratio over visitors, whose impressions depend on each other (linearized)."""
    residual = f"({name} - {name}_rate * impressions)"
    spread = f"sum({residual} * {residual}) / (sum(impressions) * sum(impressions))"
    return f"count(*) / greatest(1, count(*) - 1) * {spread}"


def by_measure(found: Sequence[ModelDay]) -> Mapping[str, Mapping[str, list[tuple[str, float]]]]:
    """The measures that are drawn over days: name -> model -> (day, value)."""
    values = {
        "clicks per impression": [(one, one.clicks.rate) for one in found if one.matured],
        "coverage": [(one, one.coverage) for one in found],
        "Gini": [(one, one.gini) for one in found],
        "popularity": [(one, one.popularity) for one in found],
    }
    series: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for measure, points in values.items():
        for one, value in points:
            if value is not None:
                series.setdefault(measure, {}).setdefault(one.model, []).append((one.day, value))
    return series
