"""Tables and queries of any database with a SQLAlchemy dialect -> typed batches of one consistent read.

Data flow: SQLAlchemy URL -> transaction of one snapshot, read only -> rows by a server-side cursor -> Arrow columns
-> `arrow.py`. Values come as the driver gives them, past SQLAlchemy's own types, so that no number becomes a float.
PostgreSQL takes another road, `postgresql.py`, unless its URL names a driver of SQLAlchemy (`postgresql+psycopg://`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.servers import Server
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.redaction import OPTION, redacted
from recsys_data.sources.casting.arrow import Caster
from recsys_data.sources.databases.connect import explain, patiently, secrets_of, source_of
from recsys_data.sources.databases.python_values import arrow_of
from recsys_data.sources.locations import named, resolved
from recsys_data.sources.source import Extract, present_of

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

    from recsys_data.sources.source import ColumnRequest

FETCH_ROWS = 20_000
ENCODE = "Percent-encode what a password holds of @ : / # ? & (an @ is %40), or put it into a ${VARIABLE}."
ADBC_NAMES = ("postgresql", "postgres", "postgresql+adbc")
# Drivers that stream; the ones SQLAlchemy takes by itself do not, or fail when they do.
DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
EXTRAS = {"pymysql": "mysql", "psycopg": "postgres"}
# Times come in UTC; the last statement makes the snapshot.
BEGIN_MYSQL = (
    "SET time_zone = '+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)
# Python's driver of SQLite begins no transaction for a SELECT.
BEGIN_SQLITE = ("PRAGMA query_only = ON", "BEGIN")
ISOLATIONS = ("SNAPSHOT", "REPEATABLE READ", "SERIALIZABLE")


def extract_database(
    server: Server, wanted: "Sequence[ColumnRequest]", data_dir: Path
) -> AbstractContextManager[Extract]:
    """Open a consistent read of a table or query.

    Raises (here, and while batches are read):
        UserError: the URL, the login, the table, a column or a value is not as the contract says.
        Transient: the database cannot be reached, or the read broke off.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if bool(server.table) == bool(server.query):
        raise UserError(f"{named(server)} must have either a `table` or a `query`.")
    try:
        url = make_url(resolved(server, data_dir, ""))
    except (ArgumentError, ValueError):
        raise UserError(
            f"{named(server)} is not a URL of a database. Expected dialect://user:password@host:port/database. {ENCODE}"
        ) from None
    # With an @ in the password SQLAlchemy takes the rest of it for the host, which drivers show.
    if "@" in f"{url.host or ''}{url.database or ''}" * bool(url.password) or OPTION.search(url.password or ""):
        raise UserError(f"{named(server)} cannot be read as a URL without doubt. {ENCODE}")
    if url.drivername in ADBC_NAMES:
        from recsys_data.sources.databases.postgresql import extract_postgresql

        return extract_postgresql(server, wanted, url.set(drivername="postgresql"))
    return _extract(server, wanted, url)


@contextmanager
def _extract(server: Server, wanted: "Sequence[ColumnRequest]", url: "URL") -> Iterator[Extract]:
    def explained(error: Exception) -> RecsysDataError:
        from sqlalchemy import exc

        cause = error.orig if isinstance(error, exc.DBAPIError) and isinstance(error.orig, Exception) else error
        away = isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError | exc.TimeoutError)
        return explain(server, secrets_of(url), cause, lasting=not away)

    engine = _engine(server, url)
    connection = patiently(engine.connect, explained)
    read = _Read(connection, explained)
    try:
        as_of = read.begin(engine.dialect.name)
        source = source_of(server, engine.dialect.identifier_preparer.quote_identifier)
        present = present_of(server, wanted, read.columns(source))
        chosen = ", ".join(engine.dialect.identifier_preparer.quote_identifier(column.source) for column in present)
        batches = read.batches(f"SELECT {chosen} FROM {source}", present, named(server)) if present else iter(())
        yield Extract(as_of, tuple(column.name for column in present), batches)
    finally:
        read.close()
        engine.dispose()


def _engine(server: Server, url: "URL") -> "Engine":
    import sqlalchemy

    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    path = url.database or ""
    if url.drivername.startswith("sqlite") and not path.startswith((":memory:", "file:")) and not Path(path).is_file():
        # SQLite would make it.
        raise UserError(f"{named(server)}: there is no such file. Put it there, or fix the location.")
    try:
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except (sqlalchemy.exc.ArgumentError, ModuleNotFoundError) as error:
        driver = url.get_driver_name() if isinstance(error, ModuleNotFoundError) else ""
        extra = f"recsys-data[{EXTRAS[driver]}]" if driver in EXTRAS else "the driver and dialect of that database"
        found = redacted(str(error), secrets_of(url))
        raise UserError(f"{named(server)}: {found}. Install {extra}, or fix the location.") from None


class _Read:
    """One transaction, and the one stream of rows read in it."""

    def __init__(self, connection: "Connection", explained: Callable[[Exception], RecsysDataError]) -> None:
        # Without parameters drivers leave % alone.
        self.connection = connection.execution_options(stream_results=True, no_parameters=True)
        # SQLAlchemy lets go of it when it breaks.
        self.raw = connection.connection.dbapi_connection
        self.explained = explained
        self.streaming = False

    def begin(self, dialect: str) -> datetime:
        """Begin the snapshot; a moment, UTC, that is not after it."""
        as_of = datetime.now(UTC)
        try:
            if dialect in DRIVERS:
                as_of = self.connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one().replace(tzinfo=UTC)
            for statement in {**dict.fromkeys(DRIVERS, BEGIN_MYSQL), "sqlite": BEGIN_SQLITE}.get(dialect, ()):
                self.connection.exec_driver_sql(statement)
            if dialect not in (*DRIVERS, "sqlite"):
                self._isolate()
        except Exception as error:
            raise self.explained(error) from None
        return as_of

    def _isolate(self) -> None:
        with suppress(NotImplementedError):
            levels = self.connection.dialect.get_isolation_level_values(self.raw)  # type: ignore[arg-type]
            level = next(name for name in ISOLATIONS if name in levels)
            self.connection.execution_options(isolation_level=level)

    def columns(self, source: str) -> list[str]:
        try:
            with self.connection.exec_driver_sql(f"SELECT * FROM {source} WHERE 1 = 0") as found:
                return list(found.keys())
        except Exception as error:
            raise self.explained(error) from None

    def batches(self, sql: str, present: "Sequence[ColumnRequest]", where: str) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        caster = Caster(present, where)
        names = [column.name for column in present]
        try:
            for rows in self._rows(sql):
                columns = zip(zip(*rows, strict=True), present, strict=True)
                arrays = [arrow_of(values, column.type) for values, column in columns]
                yield from caster.cast(pa.RecordBatch.from_arrays(arrays, names))
        finally:
            caster.close()

    def _rows(self, sql: str) -> Iterator[Sequence[tuple[object, ...]]]:
        try:
            self.streaming = True
            result = self.connection.exec_driver_sql(sql)
            while rows := result.fetchmany(FETCH_ROWS):
                yield rows  # type: ignore[misc]
            self.streaming = False
        except Exception as error:
            raise self.explained(error) from None

    def close(self) -> None:
        """End the read. An unfinished one is aborted, because a regular end would fetch all that is left."""
        if self.streaming:
            # pymysql would read on, even on a connection that is gone.
            if (unread := getattr(self.raw, "_result", None)) is not None:
                unread.unbuffered_active = False
            with suppress(Exception):
                self.connection.invalidate()
        with suppress(Exception):
            self.connection.close()
