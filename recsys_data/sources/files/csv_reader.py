"""CSV files -> batches of text, with the rows that do not fit set aside as problem rows.

Nothing is guessed: every column is text, an empty cell is NULL. Quotes, delimiters and line ends within quotes, CRLF
and a byte order mark are understood; in TSV quotes mean nothing. Data flow: bytes -> `csv_records.py` -> Arrow.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from recsys_data.errors import UserError
from recsys_data.sources.casting.arrow import OF_ROW
from recsys_data.sources.files.csv_records import Piece, Rejected, Splitter
from recsys_data.sources.source import ROW

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from recsys_data.sources.source import Wanted

BOM = b"\xef\xbb\xbf"
# A header must fit in it, and rejected lines go on in batches of it.
HEADER_BYTES = 1024 * 1024
REJECTED_ROWS = 50_000
SHOWN = 200


class CsvReader:
    """CSV with a header.

    Args:
        files: where the paths are.
        delimiter: between the cells of a row.
        quoted: whether quotes enclose cells, as in CSV; in TSV they are characters like any other.
    """

    raw_json = False

    def __init__(self, files: "FileSystem", delimiter: str, quoted: bool = True) -> None:
        self.files = files
        self.delimiter = delimiter
        self.quoted = quoted

    def columns(self, path: str, wanted: "Sequence[Wanted] | None" = None) -> list[str]:
        """The names in the header.

        Raises:
            UserError: the file is empty or no CSV, or a name is there twice.
        """
        from recsys_data.sources.locations import open_stream

        with open_stream(self.files, path) as stream:
            return self._header(path, _filled(stream, HEADER_BYTES))[0]

    def _header(self, path: str, start: bytes) -> tuple[list[str], int, int]:
        """The names in the header, how many bytes it takes, and how many lines."""
        text = io.StringIO(start.removeprefix(BOM).decode("utf-8", "surrogateescape"), newline="")
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        reader = csv.reader(text, delimiter=self.delimiter, quoting=quoting, strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path} cannot be read as CSV: {error}. Expected UTF-8 with a header.") from None
        if not header:
            raise UserError(f"{path} is empty. Expected CSV with a header.")
        names = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in header]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{path} has the column {', '.join(twice)} twice. Names in a header must differ.")
        text.seek(0)
        line_ends = "".join(text.readline() for _ in range(reader.line_num))
        taken = len(line_ends.encode("utf-8", "surrogateescape")) + len(BOM) * start.startswith(BOM)
        return names, taken, reader.line_num

    def read(self, path: str, wanted: "Sequence[Wanted]") -> "Iterator[pa.RecordBatch]":
        """The rows in file order, with `_row` for the lines that are no part of a row that fits the header."""
        import pyarrow as pa

        from recsys_data.sources.locations import open_stream

        name = path.rsplit("/", 1)[-1]
        with open_stream(self.files, path) as stream:
            start = _filled(stream, HEADER_BYTES)
            header, taken, lines = self._header(path, start)
            splitter = Splitter(path, self.delimiter, len(header), self.quoted, lines + 1)
            try:
                for piece in splitter.pieces(_Rest(start[taken:], stream).read):
                    arrays, rejected = self._parsed(piece, header, wanted), piece.rejected()
                    yield _with_rows(arrays, wanted, _said(name, islice(rejected, REJECTED_ROWS)))
                    while more := _said(name, islice(rejected, REJECTED_ROWS)):
                        yield _with_rows([array.slice(0, 0) for array in arrays], wanted, more)
            except pa.ArrowInvalid as error:
                raise UserError(_explained(path, str(error))) from None

    def _parsed(self, piece: Piece, header: list[str], wanted: "Sequence[Wanted]") -> "list[pa.Array]":
        import pyarrow as pa
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

        if not piece.rows:
            return [pa.nulls(0, pa.string()) for _ in wanted]
        table = read_csv(
            pa.BufferReader(piece.good),
            ReadOptions(use_threads=False, block_size=len(piece.good) + 1, column_names=header),
            ParseOptions(
                delimiter=self.delimiter, quote_char='"' if self.quoted else False, newlines_in_values=self.quoted
            ),
            ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=list(dict.fromkeys(column.source for column in wanted)),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        if table.num_rows != piece.rows:
            raise pa.ArrowInvalid(f"{table.num_rows} rows were parsed where {piece.rows} were found")
        # A column may be wanted twice under two names.
        return [table[column.source].combine_chunks() for column in wanted]


def _said(name: str, rejected: Iterable[Rejected]) -> list[str]:
    return [f"{OF_ROW}{one.line} of {name}: found {one.why}: {one.text[:SHOWN]}" for one in rejected]


def _with_rows(arrays: "list[pa.Array]", wanted: "Sequence[Wanted]", broken: list[str]) -> "pa.RecordBatch":
    """The batch, and after it a row without values for each line that could not be read."""
    import pyarrow as pa

    names = [*(column.name for column in wanted), ROW]
    rows = len(arrays[0]) if arrays else 0
    said = pa.concat_arrays([pa.nulls(rows, pa.string()), pa.array(broken, pa.string())])
    more = pa.nulls(len(broken), pa.string())
    return pa.RecordBatch.from_arrays([*(pa.concat_arrays([array, more]) for array in arrays), said], names)


def _explained(path: str, error: str) -> str:
    first = error.splitlines()[0].removesuffix(".")
    if "UTF8" in first:
        return f"{path} is not UTF-8: {first}. Convert it, e.g. with `iconv -f ISO-8859-1 -t UTF-8`."
    return f"{path} cannot be read as CSV: {first}."


def _filled(stream: Any, size: int) -> bytes:
    """The first bytes of a stream, which may give them a few at a time."""
    parts, length = [], 0
    while length < size and (part := stream.read(size - length)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


class _Rest:
    """What was read ahead, then the stream."""

    def __init__(self, ahead: bytes, stream: Any) -> None:
        self._ahead = ahead
        self._stream = stream

    def read(self, size: int) -> bytes:
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken or self._stream.read(size)
