"""`recsys-data sql`: questions to the lake, without a way to change it."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from recsys_data.cli.commands import Exampled, opened
from recsys_data.cli.rows import FORMATS, Result
from recsys_data.errors import UserError

if TYPE_CHECKING:
    import duckdb

    from recsys_data.lake.tables import Lake

BATCH_ROWS = 2_000
COMMENT = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
EXPLAIN = re.compile(rf"\A{COMMENT}EXPLAIN\b{COMMENT}(?:ANALYZE\b{COMMENT})?(?:\([^()]*\))?", re.IGNORECASE | re.DOTALL)
# What DuckDB makes of SELECT, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, UNION ... and WITH of these. It also
# takes WITH ... AS (COPY ... TO ...) for a query, which writes a file.
READING = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})


@click.command(
    cls=Exampled,
    # A query may begin with a comment.
    context_settings={"ignore_unknown_options": True},
    examples=[
        'recsys-data sql "SHOW TABLES"',
        'recsys-data sql "SELECT type, count(*) FROM interactions GROUP BY ALL ORDER BY 2 DESC"',
        'recsys-data sql "FROM dead_letters LIMIT 10" --format json',
        'recsys-data sql --as-of 2026-11-25T10:00:00Z "SELECT count(*) FROM interactions"',
    ],
)
@click.argument("query")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="table",
    show_default=True,
    help="csv and json give every row, however many; table shows the first ones.",
)
@click.option(
    "--as-of",
    metavar="TIME|SNAPSHOT",
    help="See every dataset as it was stored then: at a time (UTC unless it says its zone; a date is its beginning), "
    "or when the snapshot of that id was committed. A dataset that had nothing then is empty.",
)
def sql(query: str, form: str, as_of: str | None) -> None:
    """Ask the lake in DuckDB's SQL.

    QUERY is the text, or `-` to read it from stdin. Each dataset is a view of that name. Queries only: SELECT, WITH,
    FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN.
    """
    text = sys.stdin.read() if query == "-" else query
    with opened() as platform, explained(platform.lake.contracts):
        statement = only_query(text)
        with connected(platform.lake, as_of) as connection, executed(connection, statement) as result:
            FORMATS[form](result)


def only_query(text: str) -> str:
    """The one statement of `text`, which must be a query.

    Raises:
        UserError: none, several, or one that may change something.
        duckdb.Error: it cannot be parsed.
    """
    import duckdb

    statements = duckdb.extract_statements(text)
    if len(statements) != 1:
        raise UserError(f"Found {len(statements)} SQL statements; expected one. Give each in a command of its own.")
    statement = statements[0]
    query = statement.query
    body = EXPLAIN.sub("", query, count=1) if statement.type == duckdb.StatementType.EXPLAIN else query
    with duckdb.connect() as parser:
        tree = json.loads(parser.execute("SELECT json_serialize_sql(?)", [body]).fetchall()[0][0])
    if tree["error"] or not reads_only(tree["statements"]):
        raise UserError(
            f"Found a statement ({statement.type.name}) that may do more than read; the lake is changed by ingestion "
            "only. Use SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, or EXPLAIN of these; PIVOT with its "
            "values: PIVOT ... ON column IN (...)."
        )
    return query


def reads_only(tree: Any) -> bool:
    """Whether every query in DuckDB's syntax tree reads."""
    if isinstance(tree, list):
        return all(map(reads_only, tree))
    if not isinstance(tree, dict):
        return True
    if "cte_map" in tree and tree.get("type") not in READING:
        return False
    return all(map(reads_only, tree.values()))


@contextmanager
def connected(lake: "Lake", as_of: str | None = None) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A session with a view for each dataset, as of now or of a time or snapshot; those never fed are empty.

    A dataset of which the moment has expired says so when it is asked, for it may not be asked at all: the stream's
    commits are kept for minutes, those of snapshots for longer.

    Raises:
        UserError: no such time or snapshot.
    """
    from recsys_data.contracts.rules import literal, quote
    from recsys_data.contracts.types import duckdb_type
    from recsys_data.lake.query import connect, create_as_of

    stored = {name for name in lake.contracts if lake.exists(name)}
    moment = None if as_of is None else moment_named(lake, stored, as_of)
    expired = expired_at(lake, stored, moment) if moment else {}
    readable = stored - expired.keys()
    with connect(lake, readable, as_of=moment) as connection:
        for name in lake.contracts.keys() - readable:
            columns = ", ".join(f"NULL::{duckdb_type(c.type)} AS {quote(c.name)}" for c in lake.contracts[name].columns)
            condition = f"error({literal(expired[name])}) IS NOT NULL" if name in expired else "false"
            connection.execute(f"CREATE VIEW {quote(name)} AS SELECT {columns} WHERE {condition}")
            create_as_of(connection, lake.contracts[name])
        yield connection


def expired_at(lake: "Lake", names: Iterable[str], moment: datetime) -> dict[str, str]:
    """Those of the datasets that can no longer be read as of a moment, and what to say of each."""
    from recsys_data.lake.past import Expired, snapshot_at

    expired = {}
    for name in names:
        try:
            snapshot_at(lake.table(name), moment)
        except Expired as error:
            expired[name] = str(error)
    return expired


def moment_named(lake: "Lake", names: Iterable[str], text: str) -> datetime:
    """The moment that a time, a date or the id of a snapshot of one of these datasets stands for.

    Raises:
        UserError: it is none of these.
    """
    from recsys_data.lake.past import moment_of

    # No form of a time that people write is a bare number as long as the ids of snapshots.
    if text.isascii() and text.isdecimal() and len(text) != len("20261125"):
        return moment_of([lake.table(name) for name in names], int(text))
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UserError(
            f"--as-of is {text!r}; expected a time such as 2026-11-25T10:00:00Z or 2026-11-25, or the id of a snapshot."
        ) from None


@contextmanager
def executed(connection: "duckdb.DuckDBPyConnection", statement: str) -> Iterator[Result]:
    """The result of a query, computed in another thread, for DuckDB hears no Ctrl-C while it computes."""
    with ThreadPoolExecutor(1) as pool:

        def wait(work: Callable[..., Any], *arguments: object) -> Any:
            try:
                return pool.submit(work, *arguments).result()
            except (KeyboardInterrupt, SystemExit):
                connection.interrupt()
                raise

        reader = wait(lambda: connection.sql(statement).to_arrow_reader(BATCH_ROWS))
        yield Result(reader.schema, iter(partial(wait, next, reader, None), None))


@contextmanager
def explained(tables: Mapping[str, object]) -> Iterator[None]:
    """Turn what DuckDB says into an error for the user.

    Raises:
        UserError: with the datasets there are, if a table was not found.
    """
    import duckdb

    try:
        yield
    except duckdb.CatalogException as error:
        raise UserError(f"{error}\nDatasets: {', '.join(sorted(tables))}.") from None
    except duckdb.Error as error:
        raise UserError(str(error)) from None
