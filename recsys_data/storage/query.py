"""SQL over the lake: every table is a DuckDB view over the data files of its current snapshot.

Data flow: Iceberg scan plan -> list of Parquet files -> `read_parquet`, columns matched by Iceberg field id, so
that a view of an evolved table reads old files too. Each history has a table macro beside it that gives the rows of
a moment: `FROM item_catalog_as_of('2026-11-24')`. Run alone: `recsys-data sql "select ..."`. What readers see is whole
commits: now, or those of an earlier moment. A snapshot is one whole commit, so that readers of any moment see whole
micro-batches.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from glob import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from recsys_data.contracts.model import Contract, Kind
from recsys_data.days import from_microseconds, to_microseconds
from recsys_data.durable import local_path
from recsys_data.errors import UserError
from recsys_data.sql import literal, open_session, quote
from recsys_data.storage.integrity import names_corrupt_file
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    import duckdb
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import SnapshotLogEntry
    from pyiceberg.types import IcebergType

DUCKDB_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "int": "INTEGER",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamptz": "TIMESTAMPTZ",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
    "binary": "BLOB",
}


def duckdb_type(kind: "IcebergType") -> str:
    """The DuckDB type of what Iceberg stores."""
    from pyiceberg.types import DecimalType, ListType, MapType

    if isinstance(kind, DecimalType):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if isinstance(kind, ListType):
        return f"{duckdb_type(kind.element_type)}[]"
    if isinstance(kind, MapType):
        return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.value_type)})"
    return DUCKDB_TYPES[str(kind)]


@names_corrupt_file
def data_files(
    table: "Table", row_filter: "BooleanExpression | None" = None, as_of: datetime | None = None
) -> list[str]:
    """The data files that may hold rows matching the filter, of the table's loaded snapshot or of an earlier one.

    Raises:
        UserError: what was current at the moment `as_of` has expired.
        Permanent: a manifest is damaged.
    """
    from pyiceberg.expressions import AlwaysTrue

    snapshot = None
    if as_of is not None and (snapshot := snapshot_at(table, as_of)) is None:
        return []
    scan = table.scan(AlwaysTrue() if row_filter is None else row_filter, snapshot_id=snapshot)
    return [file_path(task.file) for task in scan.plan_files()]


def file_path(file: "DataFile") -> str:
    """The path by which DuckDB reads a file."""
    return str(local_path(file.file_path) or file.file_path)


def relation(table: "Table", files: Sequence[str], file_column: str | None = None) -> str:
    """SQL that reads these files of the table: every column of its schema and, in `file_column`, the row's file.

    DuckDB reads names as patterns, so that they are written as patterns of themselves.
    """
    fields = [(f.field_id, f.name, duckdb_type(f.field_type)) for f in table.schema().fields]
    if not files:
        shown = [(name, kind) for _, name, kind in fields] + ([(file_column, "VARCHAR")] if file_column else [])
        return "SELECT " + ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in shown) + " WHERE false"
    entries = ", ".join(
        f"{number}: {{name: {literal(name)}, type: {literal(kind)}, default_value: NULL}}"
        for number, name, kind in fields
    )
    listed = ", ".join(literal(escape(path)) for path in files)
    named = f", filename = {literal(file_column)}" if file_column else ""
    return f"SELECT * FROM read_parquet([{listed}], schema = MAP {{{entries}}}{named})"


def connect(lake: Lake, names: Iterable[str], as_of: datetime | None = None) -> "duckdb.DuckDBPyConnection":
    """A DuckDB session with a view for each named dataset; it can read their files and nothing else.

    What is asked of it by others must be known to be a query: no setting of DuckDB separates reading from writing, so
    that a statement could write over a data file.

    Args:
        lake: where the datasets are.
        names: of datasets.
        as_of: all views show what was stored at that moment, in the columns of today; None: what is stored now.
            A dataset that had nothing then is empty. The moment must know its time zone.

    Raises:
        UserError: that moment is yet to come, or what a dataset held then has expired.
    """
    return open_views(plan_views(lake, names, as_of))


class Views(NamedTuple):
    """What a session needs to show datasets.

    Attributes:
        statements: SQL that makes the views and macros.
        files: the data files that they read.
    """

    statements: list[str]
    files: list[str]


def plan_views(lake: Lake, names: Iterable[str], as_of: datetime | None = None) -> Views:
    """The views of `connect`, read from the catalog: opening them needs the data files only.

    Raises:
        UserError: as `connect`.
    """
    planned = Views([], [])
    for name in names:
        table = lake.table(name)
        files = data_files(table, as_of=as_of)
        planned.files.extend(files)
        planned.statements.append(f"CREATE VIEW {quote(name)} AS {relation(table, files)}")
        planned.statements.extend(as_of_macro(lake.contracts[name]))
    return planned


def open_views(views: Views, **config: Any) -> "duckdb.DuckDBPyConnection":
    """A session with these views, as `connect` gives; `config` holds settings of DuckDB."""
    connection = open_session(parallel=True, **config)
    _confine(connection, views.files)
    for statement in views.statements:
        connection.execute(statement)
    connection.execute("SET lock_configuration = true")
    return connection


def as_of_macro(contract: Contract) -> list[str]:
    """SQL of the macro `NAME_as_of(moment)` of a history, whose view must be there; for any other dataset none.

    `moment` is a TIMESTAMPTZ, or what casts to one: a date is its beginning in UTC. The rows have the columns of
    NAME but for those of the day's snapshot, and valid_from and valid_to.
    """
    if contract.kind is not Kind.HISTORY:
        return []
    kept = [c.name for c in contract.columns if not c.system or c.system in ("valid_from", "valid_to")]
    return [
        f"CREATE MACRO {quote(f'{contract.base}_as_of')}(moment) AS TABLE "
        f"SELECT {', '.join(map(quote, kept))} FROM {quote(contract.name)} "
        "WHERE valid_from <= moment::TIMESTAMPTZ AND (valid_to > moment::TIMESTAMPTZ OR valid_to IS NULL)"
    ]


def _confine(connection: "duckdb.DuckDBPyConnection", files: Sequence[str]) -> None:
    """Keep SQL from anything but these files, above all from the catalog."""
    allowed = dict.fromkeys(spelled for file in files for spelled in (file, escape(file)))
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")


class Expired(UserError):
    """What a table held at a moment has expired."""


def snapshot_at(table: "Table", moment: datetime) -> int | None:
    """The snapshot that was current at a moment (one that was committed at it included); None before the first.

    Raises:
        Expired: its snapshot has expired; says from when on the table can be read.
        UserError: the moment is yet to come.
    """
    if moment > datetime.now(UTC):
        raise UserError(f"{shown(moment)} is yet to come; expected a moment of the past. Times without a zone are UTC.")
    kept, complete = _kept(table)
    limit = to_microseconds(moment) // 1000
    for entry in reversed(kept):
        if entry.timestamp_ms <= limit:
            return entry.snapshot_id
    if complete:
        return None
    raise Expired(
        f"What {table.name()[-1]} held at {shown(moment)} has expired. The oldest moment of it that can be read is "
        f"{shown(_moment(kept[0].timestamp_ms))}."
    )


def moment_of(tables: "Iterable[Table]", snapshot_id: int) -> datetime:
    """When this snapshot of one of the tables was committed.

    Raises:
        UserError: none of them has it.
    """
    names = []
    for table in tables:
        names.append(table.name()[-1])
        if (snapshot := table.metadata.snapshot_by_id(snapshot_id)) is not None:
            return _moment(snapshot.timestamp_ms)
    raise UserError(
        f"No snapshot {snapshot_id} is kept of {', '.join(sorted(names)) or 'any dataset'}: it has expired, or never "
        "was. Take a moment instead, such as 2026-11-25T10:00:00Z."
    )


def shown(moment: datetime) -> str:
    """A moment that can be given back as it is printed.

    >>> shown(datetime(2026, 1, 2, 3, 4, 5, 678000, UTC))
    '2026-01-02T03:04:05.678Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _kept(table: "Table") -> "tuple[list[SnapshotLogEntry], bool]":
    """The newest entries of the log between which no snapshot is missing, and whether these are all there ever were.

    PyIceberg takes the parent out of a snapshot whose parent expires, so the sequence numbers decide.
    """
    numbers = {one.snapshot_id: one.sequence_number or 0 for one in table.metadata.snapshots}
    # A transaction of several snapshots has only its last one in the log.
    there = set(numbers.values())
    kept: list[SnapshotLogEntry] = []
    following: int | None = None
    for entry in reversed(table.metadata.snapshot_log):
        if (number := numbers.get(entry.snapshot_id)) is None:
            return kept[::-1], False
        if following is not None and not there.issuperset(range(number + 1, following)):
            return kept[::-1], False
        kept.append(entry)
        following = number
    return kept[::-1], following is None or there.issuperset(range(1, following))


def _moment(milliseconds: int) -> datetime:
    return from_microseconds(milliseconds * 1000)
