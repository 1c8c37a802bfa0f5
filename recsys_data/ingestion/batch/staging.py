"""The day's state of a snapshot dataset, gathered from its servers and validated, in a DuckDB database on disk.

Data flow: `extract` (one consistent read a server) -> a table a server -> `merged` (by key, precedence a column)
-> `validated` (redacted, computed, first broken rule) -> accepted and rejected rows, streamed as Arrow.
Nothing here is visible to anybody; the folder is removed when it is closed.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.model import Column, Contract
from recsys_data.contracts.rules import prepare, reason_case, reasons, redacted_value, set_variables, with_computed
from recsys_data.contracts.servers import Server
from recsys_data.contracts.types import duckdb_type
from recsys_data.errors import UserError
from recsys_data.sources.casting.arrow import OF_ROW
from recsys_data.sources.extract import days_available, extract
from recsys_data.sources.source import ColumnRequest, Extract, is_live
from recsys_data.sql import literal, open_session, quote

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_BYTES = 400_000_000
PART_ROWS = 50_000
PROBLEMS = "_problems"
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one server gave: the columns that it has, and how many rows."""

    server: str
    columns: tuple[str, ...]
    rows: int
    as_of: datetime


class Staged:
    """One day's state while it is gathered and validated. Use it as a context manager."""

    def __init__(self, contract: Contract, folder: Path, first_day: date) -> None:
        self.contract = contract
        self.folder = folder
        # What a process that died here has left; one process at a time reads snapshots of a dataset.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.connection = open_session(True, MEMORY_BYTES, folder / "spill")
        # Nobody recovers it, and DuckDB puts the log of a path with a question mark elsewhere.
        staged = f"{literal(str(folder / 'staged.duckdb'))} AS staged (RECOVERY_MODE no_wal_writes)"
        self.connection.execute(f"ATTACH {staged}")
        self.connection.execute("USE staged")
        prepare(self.connection)
        set_variables(self.connection, first_day, datetime.now(UTC))
        self.gathered: list[Gathered] = []

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def as_of(self) -> datetime:
        """When the state was known: at the latest of its servers' reads."""
        return max(one.as_of for one in self.gathered)

    def gather(self, day: date, data_dir: Path, on_progress: Progress, rest_seconds: float) -> None:
        """Read every server once; files that changed within `rest_seconds` are waited for.

        Raises:
            UserError: a server has no state of that day, lacks a column, or holds what the contract cannot.
            Transient: a server cannot be read now, or its files are still written.
        """
        servers = self.contract.servers
        live = any(is_live(server) for server in servers)
        for number, server in enumerate(servers):
            theirs = _newest_before(server, day, data_dir) if live and not is_live(server) else day
            with extract(server, _wanted(self.contract, server), theirs, data_dir, rest_seconds) as found:
                rows = self._load(f"source_{number}", found, on_progress)
            self.gathered.append(Gathered(server.name, found.columns, rows, found.as_of))
        given = {name for one in self.gathered for name in one.columns}
        missing = [name for name in self.contract.primary_key if name not in self.gathered[0].columns]
        missing += [c.name for c in _data_columns(self.contract) if c.required and c.name not in given]
        if missing:
            raise UserError(
                f"{self.contract.name}: no source of {day} has {', '.join(dict.fromkeys(missing))}, which the contract "
                f"requires; found {', '.join(sorted(given)) or 'no column'}. Name the source's column in the server's "
                f"customProperties (columns) of {self.contract.path.name}."
            )

    def _load(self, table: str, found: Extract, on_progress: Progress) -> int:
        import pyarrow as pa

        columns = [(name, duckdb_type(self.contract.column(name).type)) for name in found.columns]
        declared = ", ".join(f"{quote(name)} {kind}" for name, kind in [*columns, (PROBLEMS, "VARCHAR[]")])
        self.connection.execute(f"CREATE TABLE {table} ({declared})")
        read = 0
        for batch in found.batches:
            self.connection.register("batch", pa.Table.from_batches([batch]))
            self.connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")
            self.connection.unregister("batch")
            read += len(batch)
            on_progress(f"read {self.contract.name}", read)
        return read

    def validate(self) -> dict[str, int]:
        """Merge the servers' rows and validate them; how many rows were rejected, by reason."""
        statement = _validated(self.contract, self.gathered)
        # The first of several rows of a key has the lowest row id; from here on the order means nothing.
        self.connection.execute("SET preserve_insertion_order = false")
        self.connection.execute(f"CREATE TABLE validated AS {statement}")
        counted = "SELECT reason, count(*) FROM validated WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        return dict(self.connection.sql(counted).fetchall())

    @property
    def accepted(self) -> int:
        """How many rows keep to the contract."""
        return self.connection.sql("SELECT count(*) FROM validated WHERE reason IS NULL").fetchall()[0][0]

    def rows(self, day: date) -> "pa.RecordBatchReader":
        """Rows that keep to the contract, with every column of the snapshot table."""
        system = {"snapshot_date": f"DATE {literal(day.isoformat())}", "as_of": _moment(self.as_of)}
        columns = ", ".join(
            f"{system.get(c.system or '', 'now()') if c.system else quote(c.name)} AS {quote(c.name)}"
            for c in self.contract.columns
        )
        return self._stream(f"SELECT {columns} FROM validated WHERE reason IS NULL")

    def rejected(self, contract: Contract, day: date) -> "pa.RecordBatchReader":
        """Rows that do not, as rows of `contract` (`NAME_rejected`)."""
        keys = ", ".join(f"{literal(name)}, {quote(name)}" for name in self.contract.primary_key)
        data = ", ".join(f"{literal(c.name)}, {quote(c.name)}" for c in _data_columns(self.contract))
        system = {"snapshot_date": f"DATE {literal(day.isoformat())}", "as_of": _moment(self.as_of)}
        own = {
            "row_key": f"json_object({keys})::VARCHAR",
            "reason": "reason",
            "detail": _detail(self.contract),
            "row": f"json_object({data})::VARCHAR",
        }
        columns = ", ".join(
            f"{system.get(c.system, 'now()') if c.system else own[c.name]} AS {quote(c.name)}" for c in contract.columns
        )
        return self._stream(f"SELECT {columns} FROM validated WHERE reason IS NOT NULL")

    def _stream(self, statement: str) -> "pa.RecordBatchReader":
        return self.connection.sql(statement).to_arrow_reader(batch_size=PART_ROWS)


def _data_columns(contract: Contract) -> list[Column]:
    return [column for column in contract.columns if not column.system]


def _wanted(contract: Contract, server: Server) -> list[ColumnRequest]:
    """The columns asked of a server: those that may come from it."""
    return [
        ColumnRequest(c.name, c.type, server.columns.get(c.name, ".".join(c.source)))
        for c in _data_columns(contract)
        if not c.logic and (c.key or not c.servers or server.name in c.servers)
    ]


def _newest_before(server: Server, day: date, data_dir: Path) -> date:
    """The newest day of a day folder that is over, because it is joined with what is known now."""
    days = [one for one in days_available(server, data_dir) or [] if one < day]
    if not days:
        raise UserError(
            f"Server {server.name} has no folder of a day before {day} at {server.location}. It is joined with a "
            "source that knows only today, so the newest day that is over is taken."
        )
    return max(days)


def _moment(moment: datetime) -> str:
    return f"TIMESTAMPTZ {literal(moment.astimezone(UTC).isoformat())}"


def _detail(contract: Contract) -> str:
    """SQL: what a rejected row broke, in words."""
    words = {rule.name: rule.description for rule in contract.rules}
    whens = " ".join(
        f"WHEN {literal(reason)} THEN {literal(words.get(reason) or reason.replace('_', ' '))}"
        for reason, _ in reasons(contract)
    )
    return f"coalesce(array_to_string({PROBLEMS}, '; '), CASE reason {whens} ELSE reason END)"


def _validated(contract: Contract, gathered: Sequence[Gathered]) -> str:
    """SQL: every row with its columns, redacted and computed, and the first reason to reject it."""
    merged = _merged(contract, gathered)
    redactions = ", ".join(f"{redacted_value(c)} AS {quote(c.name)}" for c in contract.columns if c.consent)
    return f"""
        WITH merged AS ({merged}),
        redacted AS (SELECT * {f"REPLACE ({redactions})" if redactions else ""} FROM merged),
        computed AS ({with_computed(contract.columns, "SELECT * FROM redacted")})
        SELECT *, CASE WHEN starts_with({PROBLEMS}[1], {literal(OF_ROW)}) THEN 'malformed_row'
                       WHEN {PROBLEMS} IS NOT NULL THEN 'wrong_type'
                       WHEN repeated THEN 'duplicate_key'
                       ELSE {reason_case(contract)} END AS reason FROM computed"""


def _merged(contract: Contract, gathered: Sequence[Gathered]) -> str:
    """SQL: the servers' rows joined on the key, each column from the first server that has a value."""
    keys = list(map(quote, contract.primary_key))
    on = ", ".join(keys)
    adding = {server.name for server in contract.servers[1:] if server.adds_rows}
    sources = [
        f"s{n} AS (SELECT *, row_number() OVER (PARTITION BY {on} ORDER BY rowid) AS occurrence FROM source_{n})"
        for n in range(len(gathered))
    ]
    roots = [f"SELECT {on}, occurrence, 0 AS origin FROM s0"]
    known = f"SELECT {on} FROM s0"
    for n, one in enumerate(gathered[1:], start=1):
        # A row whose key is unclear is not lost either: it is rejected.
        unclear = " OR ".join(["occurrence > 1", *(f"{k} IS NULL" for k in keys)])
        roots.append(f"SELECT {on}, occurrence, {n} FROM s{n} WHERE {unclear}")
        if one.server in adding:
            roots.append(f"SELECT {on}, 1, {n} FROM s{n} ANTI JOIN ({known}) known USING ({on}) WHERE NOT ({unclear})")
            known += f" UNION ALL SELECT {on} FROM s{n}"
    joins = " ".join(
        f"LEFT JOIN s{n} ON {' AND '.join(f's{n}.{k} IS NOT DISTINCT FROM roots.{k}' for k in keys)} "
        f"AND s{n}.occurrence = CASE WHEN roots.origin = {n} THEN roots.occurrence ELSE 1 END"
        for n in range(len(gathered))
    )
    problems = " || ".join(f"coalesce(s{n}.{PROBLEMS}, [])" for n in range(len(gathered)))
    values = ", ".join(_value(contract, c, gathered) for c in _data_columns(contract) if not c.logic)
    return f"""
        WITH {", ".join(sources)}, roots AS ({" UNION ALL ".join(roots)})
        SELECT {values}, roots.occurrence > 1 AND {" AND ".join(f"roots.{k} IS NOT NULL" for k in keys)} AS repeated,
               nullif({problems}, []) AS {PROBLEMS} FROM roots {joins}"""


def _value(contract: Contract, column: Column, gathered: Sequence[Gathered]) -> str:
    name = quote(column.name)
    if column.key:
        return f"roots.{name} AS {name}"
    having = {one.server: n for n, one in enumerate(gathered) if column.name in one.columns}
    order = [server for server in (column.servers or having) if server in having]
    given = ", ".join(f"s{having[server]}.{name}" for server in order)
    return f"{f'coalesce({given})' if given else f'NULL::{duckdb_type(column.type)}'} AS {name}"
