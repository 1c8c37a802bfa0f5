"""Whether stored rows keep to their contracts, asked of the tables themselves rather than of what was meant.

Checks are made while others consume: they read much, and give way to them. Sessions are those of `rules.session`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_data.background import gives_way
from recsys_data.contracts.model import Contract, history_name
from recsys_data.contracts.rules import reasons, set_variables
from recsys_data.contracts.servers import Reference
from recsys_data.settings import Settings
from recsys_data.sql import literal, quote
from recsys_data.storage.query import data_files, relation
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RECENT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """How many recently stored rows there are, and how many of them break each rule."""

    rows: int
    broken: dict[str, int]


@gives_way
def rule_counts(
    connection: "DuckDBPyConnection", lake: Lake, contract: Contract, settings: Settings, since: datetime
) -> RuleCounts:
    """Judge the rows that were stored since then by every row rule of the contract."""
    rules = reasons(contract)
    sums = ", ".join(f"count(*) FILTER (WHERE {broken}) AS {quote(reason)}" for reason, broken in rules)
    source, where = stored_since(lake, contract, since)
    set_variables(connection, settings.first_day, datetime.now(UTC))
    row = connection.execute(f"SELECT count(*), {sums} FROM ({source}) WHERE {where}").fetchall()[0]
    return RuleCounts(row[0], {reason: count for (reason, _), count in zip(rules, row[1:], strict=True)})


@dataclass(frozen=True, slots=True)
class ReferenceCounts:
    """How many recently stored rows have a value, how many of an unknown key, and how many keys are known."""

    rows: int
    unknown: int
    known_keys: int

    @property
    def share(self) -> float:
        return self.unknown / self.rows if self.rows else 0.0


@gives_way
def reference_counts(
    connection: "DuckDBPyConnection", lake: Lake, contract: Contract, reference: Reference, since: datetime
) -> ReferenceCounts:
    """Look up a column's values of rows stored since then among all keys that its dataset ever had."""
    history = lake.table(history_name(reference.dataset))
    keys = f"SELECT DISTINCT {quote(reference.key)} AS key FROM ({relation(history, data_files(history))})"
    source, where = stored_since(lake, contract, since)
    column = quote(reference.column)
    row = connection.execute(
        f"""WITH keys AS MATERIALIZED ({keys})
            SELECT count(*), count(*) FILTER (WHERE key IS NULL), (SELECT count(*) FROM keys)
            FROM (SELECT {column} AS value FROM ({source}) WHERE {where} AND {column} IS NOT NULL)
            LEFT JOIN keys ON key = value"""
    ).fetchall()[0]
    return ReferenceCounts(*row)


@gives_way
def stored_rows(connection: "DuckDBPyConnection", lake: Lake, contract: Contract, since: datetime) -> int:
    """How many rows were stored since then."""
    source, where = stored_since(lake, contract, since)
    return connection.execute(f"SELECT count(*) FROM ({source}) WHERE {where}").fetchall()[0][0]


def stored_since(lake: Lake, contract: Contract, since: datetime) -> tuple[str, str]:
    """SQL source and condition for the rows stored since then; files without any are not read."""
    from pyiceberg.expressions import GreaterThanOrEqual

    stored = next(column.name for column in contract.columns if column.system == "ingested_at")
    table = lake.table(contract.name)
    files = data_files(table, GreaterThanOrEqual(stored, since.isoformat()))  # pyright: ignore[reportCallIssue]
    return relation(table, files), f"{quote(stored)} >= {literal(since.isoformat())}::TIMESTAMPTZ"
