"""CSV text -> Arrow columns of text, and the lines that are not part of a row that fits the header.

Nothing is guessed: every column is text. Quotes, delimiters and line ends within quotes, CRLF and a byte order mark
are understood; in TSV quotes mean nothing. Data flow: bytes -> `csv_records.py` -> Arrow -> batches of a source, or the
rows of a public data set (`datasets/csv_files.py`).
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from recsys_data.errors import UserError
from recsys_data.sources.casting.arrow import OF_ROW
from recsys_data.sources.files.csv_records import Piece, Rejected, Splitter
from recsys_data.sources.source import ROW

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from recsys_data.sources.source import ColumnRequest

BOM = b"\xef\xbb\xbf"
# A header must fit in it, and rejected lines go on in batches of it.
HEADER_BYTES = 1024 * 1024
REJECTED_ROWS = 50_000
SHOWN = 200


class CsvText:
    """One CSV text as it is read: `header` holds the names of its columns.

    Args:
        path: named in errors.
        stream: the bytes, unpacked.
        delimiter: between the cells of a row.
        quoted: whether quotes enclose cells, as in CSV; in TSV they are characters like any other.

    Raises:
        UserError: the text is empty or not CSV.
    """

    def __init__(self, path: str, stream: Any, delimiter: str = ",", quoted: bool = True) -> None:
        self.path = path
        self.delimiter = delimiter
        self.quoted = quoted
        start = _filled(stream, HEADER_BYTES)
        self.header, header_bytes, lines = self._header(start)
        self._rest = _Rest(start[header_bytes:], stream)
        self._splitter = Splitter(path, delimiter, len(self.header), quoted, lines + 1)

    def _header(self, start: bytes) -> tuple[list[str], int, int]:
        """The names in the header, how many bytes it has, and how many lines."""
        text = io.StringIO(start.removeprefix(BOM).decode("utf-8", "surrogateescape"), newline="")
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        reader = csv.reader(text, delimiter=self.delimiter, quoting=quoting, strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{self.path} cannot be read as CSV: {error}. Expected UTF-8 with a header.") from None
        if not header:
            found = "is empty" if header is None else "begins with an empty line"
            raise UserError(f"{self.path} {found}. Expected CSV with a header.")
        names = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in header]
        text.seek(0)
        header_text = "".join(text.readline() for _ in range(reader.line_num))
        size = len(header_text.encode("utf-8", "surrogateescape")) + len(BOM) * start.startswith(BOM)
        return names, size, reader.line_num

    def rows(
        self, names: Sequence[str], null: str | None = None
    ) -> "Iterator[tuple[list[pa.Array], Iterator[Rejected]]]":
        """The cells of these columns, in file order, and the lines that are not part of a row that fits the header.

        Args:
            names: of the header; a name may occur more than once.
            null: a cell of this text is NULL.

        Raises:
            UserError: a quote is never closed, a row is too long, or these cells are not UTF-8.
        """
        import pyarrow as pa

        try:
            for piece in self._splitter.pieces(self._rest.read):
                yield self._parsed(piece, names, null), piece.rejected()
        except pa.ArrowInvalid as error:
            first = str(error).splitlines()[0].removesuffix(".")
            if "UTF8" in first:
                advice = "Convert it, e.g. with `iconv -f ISO-8859-1 -t UTF-8`"
                raise UserError(f"{self.path} is not UTF-8: {first}. {advice}.") from None
            raise UserError(f"{self.path} cannot be read as CSV: {first}.") from None

    def _parsed(self, piece: Piece, names: Sequence[str], null: str | None) -> "list[pa.Array]":
        import pyarrow as pa
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

        if not piece.rows:
            return [pa.nulls(0, pa.string()) for _ in names]
        table = read_csv(
            pa.BufferReader(piece.good),
            ReadOptions(use_threads=False, block_size=len(piece.good) + 1, column_names=self.header),
            ParseOptions(
                delimiter=self.delimiter, quote_char='"' if self.quoted else False, newlines_in_values=self.quoted
            ),
            ConvertOptions(
                column_types=dict.fromkeys(self.header, pa.string()),
                include_columns=list(dict.fromkeys(names)),
                null_values=[] if null is None else [null],
                strings_can_be_null=null is not None,
            ),
        )
        if table.num_rows != piece.rows:
            raise pa.ArrowInvalid(f"{table.num_rows} rows were parsed where {piece.rows} were found")
        return [table[name].combine_chunks() for name in names]


class CsvReader:
    """CSV files with a header, of which no name occurs twice; an empty cell is NULL.

    Args:
        files: where the paths are.
        delimiter: between the cells of a row.
        quoted: whether quotes enclose cells.
    """

    raw_json = False

    def __init__(self, files: "FileSystem", delimiter: str, quoted: bool = True) -> None:
        self.files = files
        self.delimiter = delimiter
        self.quoted = quoted

    def columns(self, path: str, wanted: "Sequence[ColumnRequest] | None" = None) -> list[str]:
        """The names in the header.

        Raises:
            UserError: the file is empty or not CSV, or a name occurs twice.
        """
        with self._open(path) as text:
            return text.header

    def read(self, path: str, wanted: "Sequence[ColumnRequest]") -> "Iterator[pa.RecordBatch]":
        """The rows in file order, with `_row` for the lines that are not part of a row that fits the header."""
        name = path.rsplit("/", 1)[-1]
        with self._open(path) as text:
            for arrays, rejected in text.rows([column.source for column in wanted], null=""):
                yield _with_rows(arrays, wanted, _said(name, islice(rejected, REJECTED_ROWS)))
                while more := _said(name, islice(rejected, REJECTED_ROWS)):
                    yield _with_rows([array.slice(0, 0) for array in arrays], wanted, more)

    @contextmanager
    def _open(self, path: str) -> Iterator[CsvText]:
        from recsys_data.sources.locations import open_stream

        with open_stream(self.files, path) as stream:
            text = CsvText(path, stream, self.delimiter, self.quoted)
            if twice := sorted({name for name in text.header if text.header.count(name) > 1}):
                raise UserError(f"{path} has the column {', '.join(twice)} twice. Names in a header must differ.")
            yield text


def _said(name: str, rejected: Iterable[Rejected]) -> list[str]:
    return [f"{OF_ROW}{one.line} of {name}: found {one.why}: {one.text[:SHOWN]}" for one in rejected]


def _with_rows(arrays: "list[pa.Array]", wanted: "Sequence[ColumnRequest]", broken: list[str]) -> "pa.RecordBatch":
    """The batch, and after it a row without values for each line that could not be read."""
    import pyarrow as pa

    names = [*(column.name for column in wanted), ROW]
    rows = len(arrays[0]) if arrays else 0
    said = pa.concat_arrays([pa.nulls(rows, pa.string()), pa.array(broken, pa.string())])
    more = pa.nulls(len(broken), pa.string())
    return pa.RecordBatch.from_arrays([*(pa.concat_arrays([array, more]) for array in arrays), said], names)


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
