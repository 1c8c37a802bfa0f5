"""Columns that repeat a column of what they refer to, such as the price of an item: how often they say otherwise.

Each event is compared with the states that were known at its moment and a day later: a snapshot says at the end of a
day what changed on it. A row counts as different if it is like neither.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from recsys_data.background import gives_way
from recsys_data.contracts.model import Column, Contract, history_name
from recsys_data.contracts.types import decimal_of
from recsys_data.monitoring.quality import stored_since
from recsys_data.sql import quote
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LATE = timedelta(days=1)
# Of numbers, relative: a price that was a decimal and is a double is the same.
TOLERANCE = 1e-6
MOST_EXAMPLES = 10
CURRENCY = "currency"


@dataclass(frozen=True, slots=True)
class Differences:
    """Recently stored rows of a column against the column that it repeats.

    Attributes:
        rows: with a value, of keys whose value was known.
        different: rows whose value is another one.
        examples: key, value in the event, value that was known; the most frequent keys first.
    """

    rows: int
    different: int
    examples: list[tuple[str, Any, Any]]

    @property
    def share(self) -> float:
        return self.different / self.rows if self.rows else 0.0


@gives_way
def differences(
    connection: "DuckDBPyConnection", lake: Lake, contract: Contract, column: Column, since: datetime
) -> Differences:
    """Compare rows stored since then, point in time; amounts in different currencies are not compared."""
    assert column.same_as
    same = column.same_as
    reference = next(one for one in contract.references if one.dataset == same.dataset)
    other = lake.contracts[same.dataset]
    source, where = stored_since(lake, contract, since)
    history = lake.table(history_name(same.dataset))
    states = relation(history, data_files(history))
    key, time, late = quote(reference.column), quote(contract.event_time.name), LATE // timedelta(hours=1)
    both = [any(one.name == CURRENCY for one in columns) for columns in (contract.columns, other.columns)]
    money = f"coalesce(e.{CURRENCY} = s.{CURRENCY}, true)" if all(both) and column.name != CURRENCY else "true"
    value = "s.value = e.value"
    if column.type in ("number", "integer") or decimal_of(column.type):
        value = f"abs(s.value::DOUBLE - e.value) <= {TOLERANCE} * greatest(1, abs(e.value))"
    own, currency = quote(column.name), f", {CURRENCY}" if all(both) else ""
    rows = connection.execute(
        f"""WITH events AS MATERIALIZED (
                SELECT row_number() OVER () AS number, {key} AS key, {own} AS value, {time} AS at{currency}
                FROM ({source}) WHERE {where} AND {key} IS NOT NULL AND {own} IS NOT NULL),
            states AS (
                SELECT {quote(reference.key)} AS key, {quote(same.column)} AS value, valid_from, valid_to{currency}
                FROM ({states}) WHERE {quote(same.column)} IS NOT NULL),
            compared AS (
                SELECT e.number, any_value(e.key) AS key, any_value(e.value) AS value, bool_or({value}) AS same,
                    arg_min(s.value, s.valid_from) AS known
                FROM events e JOIN states s ON s.key = e.key AND s.valid_from <= e.at + INTERVAL {late} HOUR
                    AND (s.valid_to > e.at OR s.valid_to IS NULL) AND {money}
                GROUP BY e.number)
        SELECT count(*), count(*) FILTER (NOT same),
            (SELECT list((key, value, known)) FROM (
                SELECT key, value, any_value(known) AS known FROM compared WHERE NOT same
                GROUP BY key, value ORDER BY count(*) DESC, key, value LIMIT {MOST_EXAMPLES}))
        FROM compared"""
    ).fetchall()[0]
    return Differences(rows[0], rows[1], [tuple(one) for one in rows[2] or ()])
