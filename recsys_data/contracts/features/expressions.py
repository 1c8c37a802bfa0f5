"""SQL that stands in feature views: what it refers to, what type it has, and whether it may do what it does."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.sql_guard import ForbiddenSql, check_query, syntax_tree
from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb

REQUEST, TIMESTAMP = "request", "timestamp"


def references(connection: "duckdb.DuckDBPyConnection", expression: str) -> set[str]:
    """Names that an expression uses in lower case, as DuckDB compares them; those of the request as `request.NAME`.

    >>> from recsys_data.sql import open_session
    >>> sorted(references(open_session(), "clicks / views + request.price"))
    ['clicks', 'request.price', 'views']
    """
    found: set[str] = set()

    def name(node: dict[str, Any]) -> None:
        path = [part.lower() for part in node["column_names"]]
        found.add(".".join(path[:2]) if path[0] == REQUEST else path[0])

    _visit(syntax_tree(connection, f"SELECT {expression}"), name)
    return found


def renamed(connection: "duckdb.DuckDBPyConnection", expression: str, names: Mapping[str, str]) -> str:
    """The expression with other names: what `references` calls it -> name of the column."""

    def rename(node: dict[str, Any]) -> None:
        first, *rest = node["column_names"]
        key = first.lower()
        if key == REQUEST and rest:
            key, rest = f"{REQUEST}.{rest[0].lower()}", rest[1:]
        node["column_names"] = [names[key], *rest]

    tree = syntax_tree(connection, f"SELECT {expression}")
    _visit(tree, rename)
    text = json.dumps({"error": False, "statements": tree})
    return connection.execute("SELECT json_deserialize_sql(?::JSON)", [text]).fetchall()[0][0].removeprefix("SELECT ")


def type_of(connection: "duckdb.DuckDBPyConnection", expression: str, columns: Mapping[str, str]) -> str:
    """DuckDB type of an expression over one row.

    Args:
        connection: a confined session.
        expression: SQL.
        columns: name -> DuckDB type.

    Raises:
        ForbiddenSql: it reads tables, calls a function that is not allowed, or is an aggregate.
        duckdb.Error: it cannot be evaluated.
    """
    row = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in columns.items())
    # As a condition it cannot be an aggregate, a window or a list of rows.
    statement = f"SELECT ({expression}) FROM (SELECT {row}) WHERE false AND ({expression}) IS NULL"
    check_query(connection, statement, tables=False)
    kinds = connection.sql(statement).types
    if len(kinds) != 1:
        raise ForbiddenSql(f"it is {len(kinds)} values")
    return str(kinds[0])


def request_type(request: Mapping[str, str]) -> str:
    """DuckDB type of `request`: what a spine must have, and its timestamp."""
    columns = {TIMESTAMP: "TIMESTAMPTZ", **request}
    return f"STRUCT({', '.join(f'{quote(name)} {kind}' for name, kind in columns.items())})"


def in_order(needs: Mapping[str, set[str]]) -> tuple[Sequence[str], Sequence[str]]:
    """Names so that each comes after what it needs, and the names that this cannot be done for.

    >>> in_order({"b": {"a", "x"}, "a": set(), "c": {"d"}, "d": {"c"}})
    (['a', 'b'], ['c', 'd'])
    """
    ordered: list[str] = []
    rest = dict(needs)
    while ready := [name for name, wanted in rest.items() if not wanted & rest.keys()]:
        ordered += ready
        rest = {name: wanted for name, wanted in rest.items() if name not in ready}
    return ordered, list(rest)


def _visit(node: Any, visitor: Any) -> None:
    """Call `visitor` with every reference to a column in a syntax tree."""
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        visitor(node)
    elif isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            _visit(child, visitor)
