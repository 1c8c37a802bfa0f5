"""SQL that stands in feature views: what it refers to, what type it has, and whether it may do what it does."""

import json
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.sql_guard import ForbiddenSql, check_query, syntax_tree
from recsys_data.sql import quote

if TYPE_CHECKING:
    import duckdb

REQUEST, TIMESTAMP = "request", "timestamp"
# What DuckDB makes anew in each query, as functions or as names without brackets.
VARYING = frozenset({
    "random", "setseed", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "now", "today", "transaction_timestamp",
    "txid_current", "current_date", "current_time", "current_timestamp", "current_localtime",
    "current_localtimestamp", "localtime", "localtimestamp", "get_current_time", "get_current_timestamp",
    "current_query", "current_query_id", "current_connection_id", "current_transaction_id",
})  # fmt: skip


def references(connection: "duckdb.DuckDBPyConnection", expressions: Sequence[str]) -> list[set[str]]:
    """Names that each expression uses in lower case, as DuckDB compares them; those of the request as `request.NAME`.

    >>> from recsys_data.sql import open_session
    >>> [sorted(one) for one in references(open_session(), ["clicks / views + request.price", "1"])]
    [['clicks', 'request.price', 'views'], []]

    Raises:
        duckdb.Error: one cannot be parsed.
        ForbiddenSql: one is several values, or none.
    """
    tree = syntax_tree(connection, f"SELECT {', '.join(expressions)}") if expressions else None
    selected = tree[0]["node"].get("select_list", []) if tree else []
    if len(selected) != len(expressions):
        raise ForbiddenSql(f"it is {len(selected)} values")
    return [_references(one) for one in selected]


def _references(node: Any) -> set[str]:
    found: set[str] = set()

    def name(node: dict[str, Any]) -> None:
        path = [part.lower() for part in node["column_names"]]
        found.add(".".join(path[:2]) if path[0] == REQUEST else path[0])

    _visit(node, name)
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


def types_of(
    connection: "duckdb.DuckDBPyConnection", expressions: Sequence[str], columns: Mapping[str, str]
) -> list[str]:
    """DuckDB types of expressions over one row.

    Args:
        connection: a confined session.
        expressions: SQL, at least one.
        columns: name -> DuckDB type.

    Raises:
        ForbiddenSql: one reads tables, calls a function that is not allowed or whose value is another one each time, or
            is an aggregate.
        duckdb.Error: one cannot be evaluated.
    """
    row = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in columns.items())
    # As conditions they cannot be aggregates, windows or lists of rows.
    conditions = " AND ".join(f"({one}) IS NULL" for one in expressions)
    values = ", ".join(f"({one})" for one in expressions)
    statement = f"SELECT {values} FROM (SELECT {row}) WHERE false AND {conditions}"
    check_query(connection, statement, tables=False)
    _check_steady(syntax_tree(connection, statement), {name.lower() for name in columns})
    kinds = connection.sql(statement).types
    if len(kinds) != len(expressions):
        raise ForbiddenSql(f"it is {len(kinds)} values")
    return list(map(str, kinds))


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


def _check_steady(node: Any, columns: Set[str]) -> None:
    """Refuse what has another value each time: it can be computed neither as of then nor again."""
    if isinstance(node, dict):
        name = ""
        if node.get("class") == "FUNCTION":
            name = node["function_name"].lower()
            # The age of one moment is that until today.
            if name == "age" and len(node["arguments"]) == 1:
                raise ForbiddenSql("age of one moment depends on when it is computed")
        elif node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
            name = node["column_names"][0].lower()
            name = "" if name in columns else name
        if name in VARYING:
            raise ForbiddenSql(f"{name} has another value each time it is computed")
    if isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            _check_steady(child, columns)


def _visit(node: Any, visitor: Any) -> None:
    """Call `visitor` with every reference to a column in a syntax tree."""
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF":
        visitor(node)
    elif isinstance(node, (dict, list)):
        for child in node.values() if isinstance(node, dict) else node:
            _visit(child, visitor)
