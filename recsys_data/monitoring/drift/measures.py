"""Distances between counts, in SQL: of the evaluated day to its reference, and of each reference day to the others.

PSI is the sum of (p - q) ln(p / q) over the bins, the Jensen-Shannon distance the square root of the divergence with
base 2. Half a row is added to each bin (Jeffreys), so that a bin that only one side has counts by how much is in it.
"""

from typing import TYPE_CHECKING, NamedTuple

from recsys_data.monitoring.drift.counts import COUNTS, NULL, UNITS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_SHOWN = 3


class Distance(NamedTuple):
    """One day of one part of a series against the (other) reference days.

    Attributes:
        rows: with a value on the day.
        others: with a value on the days that it is compared with.
        units: independent ones that these rows are of, on the day.
        other_units: on the days that it is compared with.
        bins: how many there are.
        psi: population stability index.
        jensen_shannon: distance from 0 to 1.
        missing: how much greater the share of NULL is than on the others, from -1 to 1.
        changed: the bins that changed most: name, share on the others, share on the day.
    """

    series: int
    part: str
    day: int
    rows: int
    others: int
    units: int
    other_units: int
    bins: int
    psi: float
    jensen_shannon: float
    missing: float
    changed: list[dict]


def distances(connection: "DuckDBPyConnection", day: int) -> list[Distance]:
    """The distances of all series that were counted."""
    rows = connection.execute(f"""
        WITH counted AS (SELECT series, coalesce(part, '') AS part, day, bin, sum(n)::DOUBLE AS n FROM {COUNTS}
                GROUP BY ALL),
            targets AS (SELECT DISTINCT series, part, day AS target FROM counted),
            compared AS (
                SELECT series, part, target, bin, coalesce(sum(n) FILTER (day = target), 0) AS n,
                    coalesce(sum(n) FILTER (day NOT IN (target, {day})), 0) AS m
                FROM targets JOIN counted USING (series, part) GROUP BY ALL),
            summed AS (
                SELECT *, count(*) OVER w AS bins, sum(n) OVER w AS rows, sum(m) OVER w AS others
                FROM compared WINDOW w AS (PARTITION BY series, part, target)),
            shares AS (
                SELECT *, (n + 0.5) / (rows + 0.5 * bins) AS p, (m + 0.5) / (others + 0.5 * bins) AS q,
                    (p + q) / 2 AS middle FROM summed),
            units AS (
                SELECT series, part, target, sum(units) FILTER (day = target)::BIGINT AS own,
                    sum(units) FILTER (day NOT IN (target, {day}))::BIGINT AS other
                FROM targets JOIN (SELECT * REPLACE (coalesce(part, '') AS part) FROM {UNITS}) USING (series, part)
                GROUP BY ALL)
        SELECT series, part, target, any_value(rows)::BIGINT, any_value(others)::BIGINT,
            any_value(own), any_value(other), any_value(bins)::BIGINT,
            sum((p - q) * ln(p / q)),
            sqrt(greatest(0, sum(p * log2(p / middle) + q * log2(q / middle)) / 2)),
            coalesce(sum(n / rows - m / others) FILTER (bin = '{NULL}'), 0),
            list({{name: bin, before: m / others, now: n / rows}} ORDER BY (p - q) * ln(p / q) DESC, bin)
                [:{MOST_SHOWN}]
        FROM shares JOIN units USING (series, part, target) WHERE rows > 0 AND others > 0
        GROUP BY ALL ORDER BY ALL""").fetchall()
    return [Distance(*row) for row in rows]


def bins_of(connection: "DuckDBPyConnection", series: int, part: str, day: int) -> list[tuple[str, float, float]]:
    """The bins of a series: name, share on the reference days, share on the day."""
    return connection.execute(
        f"""SELECT bin, sum(n) FILTER (day <> {day}) / sum(sum(n) FILTER (day <> {day})) OVER (),
            sum(n) FILTER (day = {day}) / sum(sum(n) FILTER (day = {day})) OVER ()
        FROM {COUNTS} WHERE series = ? AND coalesce(part, '') = ? GROUP BY bin ORDER BY min(rowid), bin""",
        [series, part],
    ).fetchall()
