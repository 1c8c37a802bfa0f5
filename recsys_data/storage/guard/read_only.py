"""SQL that others write, answered from the lake without a way to change it or to read anything else.

Data flow: text -> `only_query` (one statement that reads datasets and computes) -> a session that sees the data files
of the views alone, in a thread that the kernel confines to them -> Arrow batches.
"""

import re
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.sql_guard import ForbiddenSql, check_query
from recsys_data.contracts.types import duckdb_type
from recsys_data.errors import UserError
from recsys_data.sql import literal, open_session, quote
from recsys_data.storage.guard.landlock import confine_thread
from recsys_data.storage.query import (
    Expired,
    Views,
    as_of_macro,
    moment_of,
    open_views,
    plan_views,
    snapshot_at,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from recsys_data.storage.tables import Lake

BATCH_ROWS = 2_000
# Above what DuckDB takes by default (80 %), so that it spills before.
MEMORY_SHARE = 0.9
# What a confined session may read beside data files: installed modules, which Python imports when they are first
# needed, and the limits of memory and processors that DuckDB keeps to.
PYTHON = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
LIMITS = ("/proc/self/cgroup", "/sys/fs/cgroup")
# To reach an object store: names of machines, and the certificates of authorities.
NETWORK = (
    *(f"/etc/{name}" for name in ("hosts", "host.conf", "nsswitch.conf", "resolv.conf", "gai.conf", "ssl", "pki")),
    *("/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/run/systemd/resolve"),
)
COMMENT = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*+"
# Its groups: ANALYZE, and the options.
EXPLAIN = re.compile(
    rf"\A{COMMENT}EXPLAIN\b{COMMENT}(ANALYZE\b)?{COMMENT}(\((?:\s*(?:ANALYZE|FORMAT\s+\w+)\s*,?)+\))?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gives, a batch at a time."""

    schema: "pa.Schema"
    batches: "Iterator[pa.RecordBatch]"


@contextmanager
def answered(
    lake: "Lake", text: str, as_of: str | None = None, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> Iterator[Result]:
    """The result of a query of the lake's datasets.

    Args:
        lake: each dataset is a view of that name.
        text: one statement: SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN.
        as_of: a time, a date or the id of a snapshot, of which all datasets are shown; None is now.
        parameters: values of `?` or `$name` in the text.

    Raises:
        UserError: the text may do more than that, or there is no such moment.
        duckdb.Error: the text cannot be parsed or computed.
    """
    statement = only_query(text)
    with executed(planned(lake, as_of), statement, parameters) as result:
        yield result


def only_query(text: str) -> str:
    """The one statement of `text`, which must be a query that reads datasets and computes.

    Raises:
        UserError: none, several, or one that may do more; says what.
        duckdb.Error: it cannot be parsed.
    """
    import duckdb

    statements = duckdb.extract_statements(text)
    if len(statements) != 1:
        raise UserError(f"Found {len(statements)} SQL statements; expected one. Give each in a command of its own.")
    statement = statements[0]
    prefix, query = "", statement.query
    if statement.type == duckdb.StatementType.EXPLAIN and (found := EXPLAIN.match(query)):
        # Written anew: where the pattern sees the end of a comment and DuckDB does not, other text would be run
        # than was checked.
        prefix, query = " ".join(["EXPLAIN", *filter(None, found.groups()), ""]), query[found.end() :]
    try:
        with open_session() as parser:
            check_query(parser, query)
    except ForbiddenSql as refused:
        raise UserError(
            f"This statement ({statement.type.name}) is refused: {refused}. Expected one that reads datasets and "
            "computes: SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, or EXPLAIN of these; PIVOT with its "
            "values: PIVOT ... ON column IN (...)."
        ) from None
    return prefix + query


def planned(lake: "Lake", as_of: str | None = None, names: Collection[str] | None = None) -> Views:
    """A view for each dataset (or those named), as of now or of a time or snapshot; those never fed are empty.

    A dataset whose moment has expired says so when it is read, because a query may not read it at all: the stream's
    commits are kept for minutes, those of snapshots for longer.

    Raises:
        UserError: no such time or snapshot.
    """
    stored = {name for name in lake.contracts if lake.exists(name)}
    moment = None if as_of is None else moment_named(lake, stored, as_of)
    wanted = lake.contracts.keys() if names is None else set(names)
    expired = expired_at(lake, stored & wanted, moment) if moment else {}
    readable = stored & wanted - expired.keys()
    views = plan_views(lake, readable, moment)
    for name in wanted - readable:
        columns = ", ".join(f"NULL::{duckdb_type(c.type)} AS {quote(c.name)}" for c in lake.contracts[name].columns)
        condition = f"error({literal(expired[name])}) IS NOT NULL" if name in expired else "false"
        views.statements.append(f"CREATE VIEW {quote(name)} AS SELECT {columns} WHERE {condition}")
        views.statements.extend(as_of_macro(lake.contracts[name]))
    return views


def expired_at(lake: "Lake", names: Iterable[str], moment: datetime) -> dict[str, str]:
    """Those of the datasets that can no longer be read as of a moment, and what to say of each."""
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
    # No form of a time that people write is a bare number as long as the ids of snapshots.
    if text.isascii() and text.isdecimal() and len(text) != len("20261125"):
        return moment_of([lake.table(name) for name in names], int(text))
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UserError(
            f"as of {text!r}: expected a time such as 2026-11-25T10:00:00Z or 2026-11-25, or the id of a snapshot."
        ) from None


@contextmanager
def bounded_memory(share: float = MEMORY_SHARE) -> Iterator[None]:
    """Meanwhile this process cannot take more than a share of the machine's memory: an error instead of a dead machine.

    DuckDB's own limit counts what it can spill, not the lists and texts that one row holds. Linux only.
    """
    if sys.platform != "linux":
        yield
        return
    import os
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * share), before, hard]
    bound = min(one for one in bounds if one != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


@contextmanager
def executed(
    views: Views, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> Iterator[Result]:
    """The result of a query, computed in another thread, because DuckDB ignores Ctrl-C while it computes.

    That thread, and those of its session, can read the data files of the views and nothing else, where the kernel
    can confine threads. This one stays as it is.
    """
    opened: list[duckdb.DuckDBPyConnection] = []
    with bounded_memory(), TemporaryDirectory(prefix="recsys-data-sql-") as folder, ThreadPoolExecutor(1) as pool:

        def wait(work: Callable[..., Any], *arguments: object) -> Any:
            try:
                return pool.submit(work, *arguments).result()
            except (KeyboardInterrupt, SystemExit):
                for connection in opened:
                    connection.interrupt()
                raise

        try:
            wait(lambda: opened.append(confined_session(views, folder)))
            reader = wait(lambda: opened[0].sql(statement, params=parameters).to_arrow_reader(BATCH_ROWS))
            yield Result(reader.schema, iter(partial(wait, next, reader, None), None))
        finally:
            for connection in opened:
                pool.submit(connection.close).result()


def confined_session(views: Views, folder: str) -> "duckdb.DuckDBPyConnection":
    """A session with these views for the SQL of others; confines the thread that calls, for good.

    Args:
        views: what it may read.
        folder: empty; where it may write what does not fit into memory.
    """
    # Modules are imported before, because they cannot be read afterwards.
    import duckdb  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    # Files in the object store are read through the network.
    remote = [file for file in views.files if "://" in file]
    if remote:
        # Keys are found, and what reads is loaded, as long as files can be read.
        with open_session() as first:
            first.execute(f"SELECT 1 FROM read_parquet({literal(remote[0])}) LIMIT 1")
    with ExitStack() as kept:
        # What is below /proc is another file once it was closed and forgotten.
        for path in filter(Path.is_file, map(Path, LIMITS)):
            kept.enter_context(path.open())
        reached = NETWORK if remote else ()
        confine_thread([*views.files, *PYTHON, *LIMITS, *reached], [folder], network=bool(remote))
        return open_views(views, temp_directory=f"{folder}/spill", python_enable_replacements=False)
