"""`recsys-data sql`: queries of the lake, without a way to change it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from recsys_data.cli.support.commands import Exampled
from recsys_data.cli.support.rows import FORMATS
from recsys_data.errors import UserError
from recsys_data.operations.platform import opened


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
    help="Show the lake as of a time or a snapshot id. Times are UTC unless they carry an offset; a date means "
    "midnight. A dataset that did not exist yet is empty.",
)
def sql(query: str, form: str, as_of: str | None) -> None:
    """Query the lake with DuckDB SQL.

    QUERY is the text, or `-` to read it from stdin. Each dataset is a view of that name. Queries only: SELECT, WITH,
    FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE and EXPLAIN.
    """
    from recsys_data.storage.guard.read_only import answered

    text = sys.stdin.read() if query == "-" else query
    with opened() as platform, explained(platform.lake.contracts), answered(platform.lake, text, as_of) as result:
        FORMATS[form](result)


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
