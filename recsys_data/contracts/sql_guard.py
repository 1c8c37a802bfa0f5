"""What the SQL of others may do: read the tables it is shown and compute with functions of an allow-list.

Data flow: text -> DuckDB's syntax tree -> the first statement, function or table in it that is refused, in words.
DuckDB has no read-only mode for SQL: `SELECT` can write files through `json_execute_serialized_sql`, and show settings,
paths and secrets. `functions.toml` holds the lists. Used for `recsys-data sql` and for the SQL of contracts.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

# What DuckDB makes of SELECT, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, UNION ... and WITH of these. It also
# takes WITH ... AS (COPY ... TO ...) for a query, which writes a file.
READING = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# SHOW TABLES, SHOW ALL TABLES, SHOW DATABASES.
SHOWN = frozenset({'"tables"', "__show_tables_expanded", '"databases"'})
# Views of information_schema that hold names and types only; `views` holds paths.
INFORMATION = frozenset({"tables", "columns", "schemata", "key_column_usage", "table_constraints"})
LISTED = "recsys_data/contracts/functions.toml"
TOO_DEEP = "it is nested too deeply, or a chain of operators or joins is too long"
OWN_SCHEMAS = frozenset({"memory", "main"})
# As DuckDB compares names. `str.lower` also takes the sign for Kelvin for a k, and DuckDB does not.
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class ForbiddenSql(Exception):
    """The SQL does something that it may not; the text says what."""


@dataclass(frozen=True)
class Functions:
    """The lists of `functions.toml`.

    Attributes:
        allowed: names of functions in expressions, lower case.
        tables: names of functions after FROM.
        denied: pattern of names -> why.
    """

    allowed: tuple[frozenset[str], tuple[str, ...]]
    tables: tuple[frozenset[str], tuple[str, ...]]
    denied: dict[str, str]

    def refusal(self, name: str, table: bool) -> str | None:
        """Why a function may not be called, or None; `table`: it stands after FROM."""
        exact, families = self.tables if table else self.allowed
        if name.lower() in exact or any(fnmatchcase(name.lower(), family) for family in families):
            return None
        if why := self.why_denied(name):
            return why
        return "is not on the list of functions that may be called" + (" after FROM" if table else "")

    def why_denied(self, name: str) -> str | None:
        """The reason for which a function is on the list of those that are refused; None: it is not on that list."""
        return next((why for pattern, why in self.denied.items() if fnmatchcase(name.lower(), pattern)), None)


@lru_cache(maxsize=1)
def functions() -> Functions:
    """The lists as they are installed."""
    listed = tomllib.loads((files("recsys_data.contracts") / "functions.toml").read_text("utf-8"))

    def allowed(kinds: dict[str, Any]) -> tuple[frozenset[str], tuple[str, ...]]:
        families = tuple(kinds.pop("families").split())
        names = (value if isinstance(value, list) else value.split() for value in kinds.values())
        return frozenset(name for group in names for name in group), families

    denied = {pattern: kind["why"] for kind in listed["denied"].values() for pattern in kind["names"].split()}
    return Functions(allowed(listed["expressions"]), allowed(listed["tables"]), denied)


def syntax_tree(connection: "duckdb.DuckDBPyConnection", query: str) -> Any | None:
    """DuckDB's syntax tree of a query; None if it is anything but queries.

    Raises:
        duckdb.Error: it cannot be parsed.
    """
    import duckdb

    found = json.loads(connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])
    if found["error"] and found["error_type"] == "parser":
        raise duckdb.ParserException(found["error_message"])
    return None if found["error"] else found["statements"]


def check_query(connection: "duckdb.DuckDBPyConnection", query: str, tables: bool = True) -> None:
    """Refuse what does more than read tables and compute.

    Args:
        connection: any session; nothing of the query is run.
        query: one or more statements.
        tables: whether it may name tables; otherwise it may only read what it makes itself (WITH).

    Raises:
        ForbiddenSql: it writes, calls a function that is not on the list, or names a file or a table of DuckDB's own.
        duckdb.Error: it cannot be parsed.
    """
    try:
        tree = syntax_tree(connection, query)
    except RecursionError:
        raise ForbiddenSql(TOO_DEEP) from None
    if not tree:
        raise ForbiddenSql("it is not a query")
    own = "SELECT view_name FROM duckdb_views() WHERE internal AND schema_name <> 'information_schema'"
    names = connection.execute(own).fetchall()
    try:
        _Guard(frozenset(name.translate(LOWER) for (name,) in names), tables).visit(tree, frozenset())
    except RecursionError:
        raise ForbiddenSql(TOO_DEEP) from None


# Names of tables, each with its schema if it has one, lower case.
Paths = frozenset[tuple[str, ...]]


@dataclass(frozen=True)
class _Guard:
    """A walk through a syntax tree.

    Attributes:
        system: names of DuckDB's own views, which may be named without their schema.
        tables: whether tables may be named.
    """

    system: frozenset[str]
    tables: bool

    def visit(self, node: Any, known: Paths) -> None:
        """`known`: what WITH has defined there."""
        if isinstance(node, list):
            for one in node:
                self.visit(one, known)
        if not isinstance(node, dict):
            return
        kind = node.get("type")
        if "cte_map" in node:
            known = self._defined(node, known)
        if kind == "TABLE_FUNCTION":
            self._called(node["function"], table=True)
            self.visit([node[key] for key in node if key != "function"], known)
            self.visit(list(node["function"].values()), known)
            return
        if node.get("class") in ("FUNCTION", "WINDOW"):
            self._called(node, table=False)
        if kind == "BASE_TABLE":
            self._named(node, known)
        if kind == "SHOW_REF":
            self._shown(node)
        self.visit([value for key, value in node.items() if key != "cte_map"], known)

    def _defined(self, node: dict[str, Any], known: Paths) -> Paths:
        """The names known in a query: each of its WITH sees those before it, and itself if it is recursive."""
        if node["type"] not in READING:
            raise ForbiddenSql(f"it holds a statement ({node['type']}) that is not a query")
        for entry in node["cte_map"]["map"]:
            self.visit(entry["value"], known)
            known |= {(entry["key"].translate(LOWER),)}
        if node["type"] != "RECURSIVE_CTE_NODE":
            return known
        name = node["cte_name"].translate(LOWER)
        return known | {(name,), ("recurring", name)}

    def _called(self, node: dict[str, Any], table: bool) -> None:
        name = node.get("function_name") or str(node.get("type"))
        if why := functions().refusal(name, table):
            raise ForbiddenSql(f"the function {name} {why}")

    def _named(self, node: dict[str, Any], known: Paths) -> None:
        *schema, name = path = tuple(part.translate(LOWER) for part in node["qualified_name"]["path"])
        if path in known:
            return
        if schema and schema[-1] == "information_schema" and name in INFORMATION:
            return
        if not re.fullmatch(r"\w+", name):
            raise ForbiddenSql(f"{name!r} is a file or a name that no dataset can have")
        if name in self.system or not OWN_SCHEMAS.issuperset(schema):
            raise ForbiddenSql(f"the table {'.'.join([*schema, name])} is DuckDB's own")
        if not self.tables:
            raise ForbiddenSql(f"it reads the table {name}")

    def _shown(self, node: dict[str, Any]) -> None:
        if not self.tables:
            raise ForbiddenSql("it shows tables")
        # DESCRIBE and SUMMARIZE of a query or table hold a query. SHOW of a name shows a setting of that name.
        if node["query"] is None and node["show_type"] != "SHOW_FROM" and node["table_name"] not in SHOWN:
            raise ForbiddenSql(
                f"SHOW {node['table_name']} may show a setting; the columns of a dataset: DESCRIBE its name"
            )
