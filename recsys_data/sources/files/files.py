"""CSV, TSV, JSON lines and Parquet files, plain or packed, on this machine or in S3 -> typed batches.

Data flow: files of a pattern, in name order -> batches of text (CSV), raw JSON values or Arrow columns -> `arrow.py`.
A row that cannot be read at all becomes a problem row; a file that cannot is an error; nothing is left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from recsys_data.contracts.servers import Server
from recsys_data.errors import UserError
from recsys_data.sources.casting.arrow import MAX_ROWS, Caster
from recsys_data.sources.locations import PACKED, explained, named
from recsys_data.sources.source import present_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from recsys_data.sources.source import ColumnRequest

SUFFIXES = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet"}
GATHERED_ROWS = 20_000
GATHERED_BYTES = 8 * 1024 * 1024


class Reader(Protocol):
    """One format: `columns` says which names a file has (None: only reading it whole shows them), `read` reads it."""

    raw_json: bool

    def columns(self, path: str, wanted: "Sequence[ColumnRequest]") -> list[str]: ...

    def read(self, path: str, wanted: "Sequence[ColumnRequest]") -> "Iterator[pa.RecordBatch]": ...


class Files:
    """The files of one state, as one source.

    Raises (also its methods):
        UserError: a file cannot be read, or lacks a column that the contract names for this server.
        Transient: S3 does not answer.
    """

    def __init__(self, server: Server, files: "FileSystem", paths: Sequence[str]) -> None:
        self.server = server
        self.paths = paths
        self.reader = _reader(server, files, paths)

    def present(self, wanted: "Sequence[ColumnRequest]") -> "list[ColumnRequest]":
        """Those of the wanted columns that the files have: CSV and Parquet every one of them, JSON any row."""
        found = [(path, self._columns(path, wanted)) for path in self.paths]
        if self.reader.raw_json:
            names = list(dict.fromkeys(name for _, columns in found for name in columns))
            # Without a single object nothing shows which columns there are.
            return present_of(self.server, wanted, names) if names else list(wanted)
        present = present_of(self.server, wanted, found[0][1])
        for path, columns in found[1:]:
            if odd := {column.source for column in present_of(self.server, wanted, columns)} ^ {
                c.source for c in present
            }:
                raise UserError(
                    f"{named(self.server)}: {path} and {self.paths[0]} do not have the same columns; "
                    f"{', '.join(sorted(odd))} is in one of them only. Files of one state must be alike."
                )
        return present

    def batches(self, wanted: "Sequence[ColumnRequest]") -> "Iterator[pa.RecordBatch]":
        """The rows of all files, typed."""
        caster = Caster(wanted, named(self.server), raw_json=self.reader.raw_json)
        try:
            for batch in gathered(self._read(wanted)):
                yield from caster.cast(batch)
        finally:
            caster.close()

    def _read(self, wanted: "Sequence[ColumnRequest]") -> "Iterator[pa.RecordBatch]":
        for path in self.paths:
            with explained(self.server, path):
                yield from self.reader.read(path, wanted)

    def _columns(self, path: str, wanted: "Sequence[ColumnRequest]") -> list[str]:
        with explained(self.server, path):
            return self.reader.columns(path, wanted)


def gathered(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """The same rows in the same order, small batches as one: each costs a statement, and small files have few rows."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        many = rows + batch.num_rows > GATHERED_ROWS or size + batch.nbytes > GATHERED_BYTES
        if waiting and (many or batch.schema != waiting[0].schema):
            yield pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
    if waiting:
        yield pa.concat_batches(waiting)


def _reader(server: Server, files: "FileSystem", paths: Sequence[str]) -> Reader:
    from recsys_data.sources.files.csv_reader import CsvReader
    from recsys_data.sources.files.jsonl_reader import JsonReader

    kinds = {server.format or _format(server, path) for path in paths}
    if len(kinds) > 1:
        raise UserError(
            f"{named(server)}: files of {' and '.join(sorted(kinds))} at once. Files of one state must be alike."
        )
    match kinds.pop():
        case "csv":
            tabs = server.delimiter == "," and all(".tsv" in path.rsplit("/", 1)[-1] for path in paths)
            return CsvReader(files, "\t" if tabs else server.delimiter)
        case "tsv":
            return CsvReader(files, "\t" if server.delimiter == "," else server.delimiter, quoted=False)
        case "jsonl":
            return JsonReader(files)
    return ParquetReader(files)


def _format(server: Server, path: str) -> str:
    parts = path.rsplit("/", 1)[-1].split(".")
    suffix = parts[-2] if len(parts) > 2 and parts[-1] in PACKED else parts[-1]
    if suffix not in SUFFIXES:
        raise UserError(
            f"{named(server)}: the suffix of {path} does not tell its format; expected one of "
            f"{', '.join(f'.{known}' for known in SUFFIXES)}. Rename it, or set `format` of the server."
        )
    return SUFFIXES[suffix]


class ParquetReader:
    """Parquet, a few row groups' pages at a time."""

    raw_json = False

    def __init__(self, files: "FileSystem") -> None:
        self.files = files

    def columns(self, path: str, wanted: "Sequence[ColumnRequest]") -> list[str]:
        with self._open(path) as file:
            return file.schema_arrow.names

    def read(self, path: str, wanted: "Sequence[ColumnRequest]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        with self._open(path) as file:
            try:
                for batch in file.iter_batches(MAX_ROWS, columns=list({column.source for column in wanted})):
                    names = [column.name for column in wanted]
                    yield pa.RecordBatch.from_arrays([batch.column(column.source) for column in wanted], names)
            except pa.ArrowException as error:
                raise UserError(f"{path} cannot be read as Parquet: {error}. Fetch it again.") from None

    def _open(self, path: str) -> Any:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        try:
            # The columns that are read are fetched ahead, a row group at a time; from S3 that saves many requests.
            return ParquetFile(path, filesystem=self.files, pre_buffer=not _is_local(self.files))
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} cannot be read as Parquet: {error}. Fetch it again.") from None


def _is_local(files: "FileSystem") -> bool:
    return files.type_name == "local"
