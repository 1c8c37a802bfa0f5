"""Rows of some days -> counts by day and bin, in a DuckDB table of bounded size.

Categories with at least a fiftieth of the values on one of the days are bins of their own, at most MOST_BINS; numbers
lie between the deciles of the reference days. What was grouped on the way spills to disk.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recsys_data.contracts.features.datasets import stream_of
from recsys_data.contracts.features.sources import dataset_of
from recsys_data.contracts.features.view import FeatureView
from recsys_data.contracts.model import Contract, history_name
from recsys_data.days import MICROSECONDS_PER_DAY
from recsys_data.monitoring.drift.columns import CATEGORIES, ELEMENTS, HOURS, MISSING, Compared, parts_of
from recsys_data.sql import literal, quote
from recsys_data.storage.iceberg.manifest_stats import days as days_of
from recsys_data.storage.query import data_files, file_path, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COUNTS, UNITS = "drift_counts", "drift_units"
# Who acts; the rows of one are alike, so that they say little more than one row would.
ACTOR = ("user_id", "anonymous_id")
LEAST_SHARE, MOST_BINS, LONGEST = 0.02, 50, 60
OTHER, NULL, VALUE = "(other)", "NULL", "value"
# They are read from their files once, and not once for each column.
MOST_ROWS_COPIED = 2_000_000
DECILES = [n / 10 for n in range(1, 10)]


class Counter:
    """Counts the rows of a dataset on some days."""

    def __init__(
        self,
        connection: "DuckDBPyConnection",
        lake: Lake,
        contract: Contract,
        compared: Sequence[Compared],
        day: int,
        reference: Sequence[int],
    ) -> None:
        """Make the empty tables COUNTS (series, part, day, bin, n) and UNITS (series, part, day, units).

        Args:
            connection: with room for what is counted.
            lake: where the dataset is.
            contract: of the dataset.
            compared: what is counted; the series are numbered in this order.
            day: since 1970, the day that is evaluated.
            reference: the days that it is compared with.
        """
        self.connection, self.lake, self.contract, self.compared, self.day = connection, lake, contract, compared, day
        self.days = {day, *reference}
        self.time = quote(contract.event_time.name)
        self.rows = "FROM drift_rows"
        stored = days_of(lake.table(contract.name))
        few = sum(stored[one].rows for one in self.days if one in stored) <= MOST_ROWS_COPIED
        wanted = {*(one.column for one in compared), contract.event_time.name, parts_of(contract), *ACTOR}
        columns = ", ".join(quote(one.name) for one in contract.columns if one.name in wanted)
        connection.execute(
            f"CREATE OR REPLACE TEMP {'TABLE' if few else 'VIEW'} drift_rows AS "
            f"SELECT {columns}, day FROM ({self._of(contract)})"
        )
        self.actors = _actors_of(contract, lake.contracts)
        if self.actors:
            connection.execute(
                f"""CREATE OR REPLACE TEMP TABLE drift_actors AS SELECT day, {actors_in(self.actors)} AS actors
                FROM ({self._of(self.actors)}) GROUP BY day"""
            )
        self._joined: set[str] = set()
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE {COUNTS} (series INTEGER, part VARCHAR, day BIGINT, bin VARCHAR, n BIGINT);
            CREATE OR REPLACE TEMP TABLE {UNITS} (series INTEGER, part VARCHAR, day BIGINT, units BIGINT)"""
        )

    def count(self) -> None:
        """Count all that is compared."""
        series = [*enumerate(self.compared)]
        self._missing([(number, one) for number, one in series if one.kind == MISSING])
        self._units(series)
        for number, one in series:
            if one.kind == HOURS:
                self._insert(number, f"lpad(hour({self.time})::VARCHAR, 2, '0') || 'h'", self.rows)
            elif one.kind != MISSING and self._is_there(one):
                self._values(number, one)

    def _is_there(self, one: Compared) -> bool:
        """Whether rows that are referred to are known."""
        if one.reference is None:
            return True
        history = self.lake.table(history_name(one.reference.dataset))
        return history.metadata.current_snapshot_id is not None

    def _of(self, contract: Contract) -> str:
        """SQL of the rows of a dataset on the days, with `day`."""
        table = self.lake.table(contract.name)
        files = [file_path(task.file) for task in table.scan().plan_files() if task.file.partition[0] in self.days]
        day = f"{quote(contract.event_time.name)}::DATE - DATE '1970-01-01' AS day"
        return f"SELECT *, {day} FROM ({relation(table, files)})"

    def _missing(self, series: Sequence[tuple[int, Compared]]) -> None:
        """Count missing values of all columns at once."""
        part = parts_of(self.contract)
        part = quote(part) if part else "''"
        for name, sign in ((VALUE, ""), (NULL, "count(*) - ")):
            counted = {number: f"{sign}count({quote(one.column)})" for number, one in series}
            rows = self._by_series(part, counted)
            self.connection.execute(f"INSERT INTO {COUNTS} SELECT series, part, day, '{name}', n FROM ({rows})")

    def _units(self, series: Sequence[tuple[int, Compared]]) -> None:
        """Count the independent units of all columns at once: those with missing values by part."""
        part, actors = parts_of(self.contract), actors_in(self.contract)
        missing = {number: actors for number, one in series if one.kind == MISSING}
        others = {
            number: actors if one.kind == HOURS else f"{actors} FILTER ({quote(one.column)} IS NOT NULL)"
            for number, one in series
            if one.kind != MISSING
        }
        rows = " UNION ALL ".join(
            self._by_series(by, counted)
            for by, counted in ((quote(part) if part else "''", missing), ("''", others))
            if counted
        )
        if self.actors and self.contract.view and rows:
            shares = ", ".join(
                f"({number}, {window_share(self.contract.view, one.column)!r}::DOUBLE)" for number, one in series
            )
            rows = f"""SELECT series, part, day, greatest(1, coalesce(least(n, actors * share), n))::BIGINT AS n
                FROM ({rows}) JOIN (VALUES {shares}) AS shares(series, share) USING (series)
                LEFT JOIN drift_actors USING (day)"""
        if rows:
            self.connection.execute(f"INSERT INTO {UNITS} SELECT series, part, day, n FROM ({rows})")

    def _by_series(self, part: str, counted: Mapping[int, str]) -> str:
        """SQL of aggregates by part and day, a row for each series."""
        if not counted:
            return "SELECT 0 AS series, '' AS part, 0 AS day, 0 AS n WHERE false"
        columns = ", ".join(f'{sql} AS "{number}"' for number, sql in counted.items())
        wide = f"SELECT {part} AS part, day, {columns} FROM drift_rows GROUP BY ALL"
        names = ", ".join(f'"{number}"' for number in counted)
        long = f"UNPIVOT ({wide}) ON {names} INTO NAME series VALUE n"
        return f"SELECT series::INTEGER AS series, part, day, n FROM ({long})"

    def _insert(self, series: int, name: str, rows: str, number: str = "count(*)") -> None:
        self.connection.execute(
            f"INSERT INTO {COUNTS} SELECT {series}, '', day, {name}, {number} FROM ({rows}) GROUP BY ALL"
        )

    def _values(self, series: int, one: Compared) -> None:
        """Count values by what they are: `drift_values` holds each with how often it occurs on a day."""
        if one.reference:
            source = f"SELECT day, {quote(one.attribute)} AS value, n FROM {self._referred(one)}"
        else:
            source = f"SELECT day, {quote(one.column)} AS value, 1 AS n FROM ({self.rows})"
        if one.kind == ELEMENTS:
            source = f"SELECT day, unnest(value) AS value, n FROM ({source})"
        if one.kind in (CATEGORIES, ELEMENTS):
            self._categories(series, source)
        else:
            self._numbers(series, source)

    def _categories(self, series: int, source: str) -> None:
        # Long texts are told apart by how they begin.
        grouped = f"""SELECT day, left(value::VARCHAR, {LONGEST}) AS bin, sum(n)::BIGINT AS n FROM ({source})
            WHERE value IS NOT NULL GROUP BY ALL"""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE drift_values AS {grouped}")
        kept = f"""SELECT bin FROM (SELECT bin, n / sum(n) OVER (PARTITION BY day) AS share FROM drift_values)
            GROUP BY bin HAVING max(share) >= {LEAST_SHARE} ORDER BY max(share) DESC, bin LIMIT {MOST_BINS}"""
        name = f"CASE WHEN bin IN (SELECT bin FROM drift_kept) THEN bin ELSE {literal(OTHER)} END"
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE drift_kept AS {kept}")
        self._insert(series, name, "FROM drift_values", "sum(n)::BIGINT")
        self.connection.execute("DROP TABLE drift_values; DROP TABLE drift_kept")

    def _numbers(self, series: int, source: str) -> None:
        source = f"SELECT day, value::DOUBLE AS value, n FROM ({source}) WHERE value IS NOT NULL"
        found = self.connection.execute(
            f"SELECT approx_quantile(value, {DECILES}) FROM ({source}) WHERE day <> {self.day}"
        ).fetchall()[0][0]
        edges = sorted({float(f"{edge:.4g}") for edge in found or ()})
        self._insert(series, _bin_of(edges), source, "sum(n)::BIGINT")

    def _referred(self, one: Compared) -> str:
        """A table of the rows that a column refers to, as they were in the end of the day, with how often they are."""
        assert one.reference
        name, key = quote(f"drift_of_{one.column}"), quote(one.reference.key)
        if one.column not in self._joined:
            history = self.lake.table(history_name(one.reference.dataset))
            states = relation(history, data_files(history))
            keys = f"""SELECT day, {quote(one.column)} AS key, count(*) AS n FROM ({self.rows})
                WHERE {quote(one.column)} IS NOT NULL GROUP BY ALL"""
            known = "valid_from < end_of_day AND (valid_to >= end_of_day OR valid_to IS NULL)"
            self.connection.execute(
                f"""CREATE OR REPLACE TEMP TABLE {name} AS SELECT k.day, k.n, s.* FROM (
                SELECT *, (DATE '1970-01-01' + (day + 1)::INTEGER)::TIMESTAMPTZ AS end_of_day FROM ({keys})) k
                JOIN ({states}) s ON s.{key} = k.key AND {known}"""
            )
            self._joined.add(one.column)
        return name


def actors_in(contract: Contract) -> str:
    """SQL of how many there are whose rows do not depend on each other: actors, or else rows."""
    names = [one for one in ACTOR if any(column.name == one for column in contract.columns)]
    return f"approx_count_distinct(coalesce({', '.join(map(quote, names))}))" if names else "count(*)"


def _actors_of(contract: Contract, contracts: Mapping[str, Contract]) -> Contract | None:
    """The stream whose actors make up the values of a view of something else, e.g. of items."""
    stream = stream_of(contract.view) if contract.view else None
    if stream is None or any(column.name in ACTOR for column in contract.columns):
        return None
    return contracts[dataset_of(stream)]


def window_share(view: FeatureView, name: str) -> float:
    """Which share of a day's actors are in the window of a feature at the end of the day, at most all."""
    feature = next(one for one in view.features if one.name == name)
    if feature.expression is not None:
        words = set(re.findall(r"\w+", feature.expression)) - {name}
        used = [window_share(view, one.name) for one in view.features if one.name in words]
        return min(used, default=1.0)
    size = feature.window.size if feature.is_aggregate else 0
    return min(1.0, size / MICROSECONDS_PER_DAY) if size else 1.0


def _bin_of(edges: Sequence[float]) -> str:
    """SQL of the interval that a value lies in.

    >>> _bin_of([1.0, 2.5])
    "CASE WHEN value <= 1.0 THEN 'up to 1' WHEN value <= 2.5 THEN 'up to 2.5' ELSE 'above 2.5' END"
    """
    if not edges:
        return f"'{VALUE}'"
    cases = " ".join(f"WHEN value <= {edge!r} THEN 'up to {edge:g}'" for edge in edges)
    return f"CASE {cases} ELSE 'above {edges[-1]:g}' END"
