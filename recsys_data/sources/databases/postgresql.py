"""Tables and queries of PostgreSQL -> typed batches of one consistent read, by ADBC: four times as fast as row by row.

Data flow: URL -> repeatable-read transaction -> `COPY … TO STDOUT` in Arrow batches -> `arrow.py`. What Arrow has no
type for is cast on the server: numbers of any size, JSON, enumerations and ids come as text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recsys_data.contracts.servers import Server
from recsys_data.errors import RecsysDataError, UserError
from recsys_data.sources.casting.arrow import ADVICE, Caster
from recsys_data.sources.databases.connect import explain, patiently, secrets_of, source_of
from recsys_data.sources.locations import named
from recsys_data.sources.source import Extract, present_of
from recsys_data.sql import quote

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy.engine import URL

    from recsys_data.sources.source import ColumnRequest

CONNECT_SECONDS = "10"
TYPE_KEY = b"POSTGRESQL:type"
# Types that come as they are; all else is cast on the server.
PLAIN = {"int2", "int4", "int8", "float8", "bool", "text", "varchar", "name", "bytea"}
PLAIN |= {"date", "timestamp", "timestamptz"}
# Types whose text says nothing that a column other than a string could take.
ONLY_TEXT = {"interval", "time", "timetz", "money", "point", "box", "line", "lseg", "path", "polygon", "circle"}
# Array types that hold only what the elements of a list can be.
ELEMENTS = {
    "list<string>": ("text[]", None),
    "list<integer>": ("int8[]", {"_int2", "_int4", "_int8"}),
    "list<number>": ("float8[]", {"_int2", "_int4", "_int8", "_float4", "_float8", "_numeric"}),
}


@contextmanager
def extract_postgresql(server: Server, wanted: "Sequence[ColumnRequest]", url: "URL") -> Iterator[Extract]:
    """As `databases.extract_database`, of a `postgresql://` URL."""
    try:
        import adbc_driver_manager
        from adbc_driver_postgresql import dbapi
    except ModuleNotFoundError:
        raise UserError(f"{named(server)}: PostgreSQL needs a driver. Install recsys-data[postgres].") from None
    # An error while rows come in is an OSError, whatever broke off.
    away = (adbc_driver_manager.OperationalError, adbc_driver_manager.InternalError, OSError)

    def explained(error: Exception) -> RecsysDataError:
        return explain(server, secrets_of(url), error, lasting=not isinstance(error, away))

    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": CONNECT_SECONDS})
    uri = url.render_as_string(hide_password=False)
    read = _Read(server, patiently(lambda: dbapi.connect(uri), explained), explained)
    try:
        as_of = read.begin()
        types = read.types()
        present = present_of(server, wanted, list(types))
        batches = read.batches(present, types) if present else iter(())
        yield Extract(as_of, tuple(column.name for column in present), batches)
    finally:
        read.close()


class _Read:
    """One transaction, and the one stream of rows read in it."""

    def __init__(self, server: Server, connection: Any, explained: Callable[[Exception], RecsysDataError]) -> None:
        self.server = server
        self.connection = connection
        self.cursor = connection.cursor()
        self.explained = explained
        self.source = source_of(server, quote)
        self.streaming = False

    def begin(self) -> datetime:
        """Begin the snapshot; the database's clock just before it, UTC."""
        try:
            self.cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self.cursor.execute("SELECT transaction_timestamp()")
            return self.cursor.fetchone()[0].astimezone(UTC)
        except Exception as error:
            raise self.explained(error) from None

    def types(self) -> dict[str, str]:
        """The columns of the source with PostgreSQL's names of their types, `_` before that of an array's elements."""
        try:
            self.cursor.execute(f"SELECT * FROM {self.source} LIMIT 0")
            schema = self.cursor.fetch_record_batch().schema
        except Exception as error:
            raise self.explained(error) from None
        return {field.name: (field.metadata or {}).get(TYPE_KEY, b"unknown").decode() for field in schema}

    def batches(self, present: "Sequence[ColumnRequest]", types: Mapping[str, str]) -> "Iterator[pa.RecordBatch]":
        casts = [f"{cast_of(self.server, column, types[column.source])} AS {quote(column.name)}" for column in present]
        # An array becomes text only where its elements have another type than the list's.
        exact = {c.name: kind for c in present if (kind := types[c.source]) == "numeric" or kind.startswith("_")}
        caster = Caster(present, named(self.server), exact=exact)
        return self._batches(f"SELECT {', '.join(casts)} FROM {self.source}", caster)

    def _batches(self, sql: str, caster: Caster) -> "Iterator[pa.RecordBatch]":
        try:
            for batch in self._rows(sql):
                yield from caster.cast(batch)
        finally:
            caster.close()

    def _rows(self, sql: str) -> "Iterator[pa.RecordBatch]":
        try:
            self.streaming = True
            self.cursor.execute(sql)
            yield from self.cursor.fetch_record_batch()
            self.streaming = False
        except Exception as error:
            raise self.explained(error) from None

    def close(self) -> None:
        """End the read; one that is not at its end is cancelled on the server."""
        for end in (*([self.cursor.adbc_cancel] if self.streaming else []), self.cursor.close, self.connection.close):
            with suppress(Exception):
                end()


def cast_of(server: Server, column: "ColumnRequest", found: str) -> str:
    """SQL: the column in a form that is cast to its logical type without loss.

    Raises:
        UserError: PostgreSQL's type has nothing to do with the column's.
    """
    name, logical = quote(column.source), column.type
    if found in ONLY_TEXT and logical != "string":
        raise UserError(
            f"{named(server)}: column {column.source} holds {found}; {column.name} takes {logical}. {ADVICE}."
        )
    if logical.startswith("list<") and found.startswith(("_", "unnamed")):
        array, of = ELEMENTS[logical]
        return f"{name}::{array}" if of is None or found in of else f"to_json({name})::text"
    if found.startswith("_") or (found.startswith(("unnamed", "hstore")) and logical in ("object", "array", "map")):
        return f"to_json({name})::text"
    if found == "numeric" and logical == "number":
        return f"{name}::float8"
    if found == "float4":
        # The shortest spelling is what was meant: 0.1, not 0.10000000149011612.
        return f"{name}::text::float8"
    return name if found in PLAIN else f"{name}::text"
