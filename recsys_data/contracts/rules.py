"""Contract -> SQL: which rows are rejected, and for which reason.

The expressions run in DuckDB sessions made by `session()`, which gives them the macros and variables that
contracts may use: `local_time(ts, zone)`, `getvariable('first_day')`, `getvariable('now')`.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.model import Column, Contract
from recsys_data.contracts.sql_guard import LISTED, ForbiddenSql, check_query
from recsys_data.contracts.types import duckdb_type
from recsys_data.errors import ContractError
from recsys_data.sql import literal, open_session, quote

if TYPE_CHECKING:
    import duckdb

# Local times beyond the years 1 to 9999 are none, because readers of the lake cannot hold them.
MACROS = """
CREATE TABLE known_time_zones AS SELECT name FROM pg_timezone_names();
CREATE MACRO local_time(ts, zone) AS
    CASE WHEN zone IN (SELECT name FROM known_time_zones)
          AND ts BETWEEN TIMESTAMPTZ '0001-01-02 00:00:00+00' AND TIMESTAMPTZ '9999-12-30 00:00:00+00'
         THEN ts AT TIME ZONE zone END;
"""
_checking = Lock()


def session(parallel: bool = False, confined: bool = False, **config: Any) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB session in which the expressions of contracts can be evaluated.

    Where it is `confined`, SQL reaches neither files nor the network: a rule judges what stands in an event.
    `config` holds further settings of DuckDB.
    """
    # A batch is one Arrow table and its rows are identified by number, not by order.
    connection = open_session(parallel, **{"preserve_insertion_order": False, **config})
    prepare(connection)
    if confined:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    return connection


def prepare(connection: "duckdb.DuckDBPyConnection") -> None:
    """Give a session what the expressions of contracts may use."""
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(MACROS)
    set_variables(connection, date(1995, 1, 1), datetime(2000, 1, 1, tzinfo=UTC))


def set_variables(connection: "duckdb.DuckDBPyConnection", first_day: date, now: datetime) -> None:
    """Set what rules may refer to; `now` is UTC."""
    connection.execute(f"SET VARIABLE first_day = TIMESTAMPTZ '{first_day.isoformat()} 00:00:00+00'")
    connection.execute(f"SET VARIABLE now = TIMESTAMPTZ '{now.replace(tzinfo=None).isoformat(' ')}+00'")


def reasons(contract: Contract) -> list[tuple[str, str]]:
    """What a row can be rejected for, in the order it is decided: (reason, SQL that is true where it is broken).

    Required columns and enumerations come first, then the contract's own rules. A rule is broken where its
    predicate is false; where it is NULL there is nothing to judge, as in a CHECK constraint.
    """
    broken = [(f"missing_{c.name}", _missing(c)) for c in contract.columns if c.required and not c.system]
    broken += [
        (f"unknown_{c.name}", f"{quote(c.name)} NOT IN ({', '.join(map(literal, c.enum))})")
        for c in contract.columns
        if c.enum and not c.system
    ]
    return broken + [(rule.name, f"NOT ({rule.predicate})") for rule in contract.rules]


def reason_case(contract: Contract) -> str:
    """SQL expression: the first reason for which the row is rejected, or NULL."""
    whens = "\n".join(f"WHEN {broken} THEN {literal(reason)}" for reason, broken in reasons(contract))
    return f"CASE {whens} END" if whens else "NULL::VARCHAR"


def redacted_value(column: Column) -> str:
    """SQL expression: the value of a column that asks for consent, as far as it is kept."""
    return f"CASE WHEN {quote(column.consent or '')} THEN {quote(column.name)} ELSE {column.without_consent} END"


def with_computed(columns: Iterable[Column], rows: str) -> str:
    """SQL: the rows of a query with the columns that are computed from others (`transformLogic`), in their order."""
    # One SELECT each, because a computed column may build on another.
    for c in columns:
        if c.logic:
            rows = f"SELECT *, ({c.logic})::{duckdb_type(c.type)} AS {quote(c.name)} FROM ({rows})"
    return rows


def columns_of(expression: str, contract: Contract) -> list[str]:
    """The columns of the contract that an expression speaks of, in its order."""
    words = dict.fromkeys(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", re.sub(r"'[^']*'", "", expression)))
    names = {column.name for column in contract.columns}
    return [word for word in words if word in names]


def check_expressions(contract: Contract) -> None:
    """Refuse a contract whose SQL does not fit its columns.

    Raises:
        ContractError: naming the file, the rule or column, and what DuckDB says.
    """
    expressions = [(f"rule {rule.name}", rule.predicate, "BOOLEAN") for rule in contract.rules]
    expressions += [(f"column {c.name}", c.logic, duckdb_type(c.type)) for c in contract.columns if c.logic]
    expressions += [(f"column {c.name}", c.without_consent, duckdb_type(c.type)) for c in contract.columns if c.consent]
    if contract.row_when:
        expressions.append(("rowWhen", contract.row_when, "BOOLEAN"))
    if expressions:
        _check(str(contract.path), contract, expressions)


def check_predicates(where: str, contract: Contract, predicates: Mapping[str, str]) -> None:
    """Refuse conditions over rows of a dataset that do not fit its columns.

    Args:
        where: the file that says them.
        contract: of the dataset.
        predicates: place in the file -> SQL.

    Raises:
        ContractError: naming the file, the place, and what DuckDB says.
    """
    if predicates:
        _check(where, contract, [(place, sql, "BOOLEAN") for place, sql in predicates.items()])


def _check(where: str, contract: Contract, expressions: Sequence[tuple[str, str, str]]) -> None:
    import duckdb

    columns = ", ".join(f"NULL::{duckdb_type(c.type)} AS {quote(c.name)}" for c in contract.columns)
    # All at once takes a fraction of the time of one after the other, which is left for finding the fault.
    if _all_fit(columns, tuple(expressions)):
        return
    with session(confined=True) as connection:
        for place, expression, kind in expressions:
            one = [(place, expression, kind)]
            try:
                found = _types(connection, columns, one)
            except ForbiddenSql as refused:
                raise ContractError(
                    f"{where}: {place}: `{expression}` is refused: {refused}. The SQL of contracts computes "
                    f"from the columns of one row; take that out. The functions it may call are listed in {LISTED}."
                ) from None
            except duckdb.Error as error:
                first = str(error).strip().splitlines()[0]
                raise ContractError(
                    f"{where}: {place}: `{expression}` cannot be evaluated: {first}. "
                    f"It may use the columns of {contract.name}: {', '.join(c.name for c in contract.columns)}."
                ) from None
            if not _fit(found, one):
                expected = "true or false" if kind == "BOOLEAN" else kind
                raise ContractError(
                    f"{where}: {place}: `{expression}` is {', '.join(found[:-1])}; expected {expected}."
                )


@lru_cache(maxsize=256)
def _all_fit(columns: str, expressions: tuple[tuple[str, str, str], ...]) -> bool:
    """Kept, because contracts are read again and again."""
    import duckdb

    with _checking, contextlib.suppress(duckdb.Error, ForbiddenSql):
        return _fit(_types(_checker(os.getpid()), columns, expressions), expressions)
    return False


@lru_cache(maxsize=1)
def _checker(process: int) -> "duckdb.DuckDBPyConnection":
    """The session of this process that checks contracts: it takes longer to make than a contract to check."""
    return session(confined=True)


def _types(
    connection: "duckdb.DuckDBPyConnection", columns: str, expressions: Sequence[tuple[str, str, str]]
) -> list[str]:
    """DuckDB's types of each expression, as it is and cast to its kind.

    Raises:
        ForbiddenSql: one reads more than the row, or calls a function that is not on the list.
        duckdb.Error: one cannot be evaluated.
    """
    values = ", ".join(f"({expression}), ({expression})::{kind}" for _, expression, kind in expressions)
    # As conditions they may be no aggregates, windows or lists of rows: each is of one row by itself.
    conditions = " AND ".join(f"({expression}) IS NULL" for _, expression, _ in expressions)
    statement = f"SELECT {values} FROM (SELECT {columns}) WHERE false AND {conditions}"
    check_query(connection, statement, tables=False)
    return [str(kind) for kind in connection.sql(statement).types]


def _fit(found: Sequence[str], expressions: Sequence[tuple[str, str, str]]) -> bool:
    """Whether each expression is one value, and a predicate true or false."""
    if len(found) != 2 * len(expressions):
        return False
    return all(kind != "BOOLEAN" or own == kind for (_, _, kind), own in zip(expressions, found[::2], strict=True))


def _missing(column: Column) -> str:
    name = quote(column.name)
    return f"coalesce({name}, '') = ''" if column.type == "string" else f"{name} IS NULL"
