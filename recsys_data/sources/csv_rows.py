"""CSV files -> batches of text, with the rows that do not fit set aside as problem rows.

Nothing is guessed: every column is text, an empty cell is NULL. Quotes, delimiters and line ends within quotes, CRLF
and a byte order mark are understood.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recsys_data.errors import UserError
from recsys_data.sources.typed import ROW

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from recsys_data.sources.extract import Wanted

# A row must fit in a block.
BLOCK_BYTES = 8 * 1024 * 1024
SHOWN = 200
# No text file holds it. A row of it is put after the last one: if it is not found there, a quote was left open.
END = "\x00end"


class CsvReader:
    """CSV with a header."""

    raw_json = False

    def __init__(self, files: "FileSystem", delimiter: str) -> None:
        self.files = files
        self.delimiter = delimiter

    def columns(self, path: str, wanted: "Sequence[Wanted] | None" = None) -> list[str]:
        """The names in the header.

        Raises:
            UserError: the file is empty or no CSV, or a name is there twice.
        """
        from recsys_data.sources.files import open_stream

        with open_stream(self.files, path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
            try:
                header = next(csv.reader(text, delimiter=self.delimiter), None)
            except csv.Error as error:
                raise UserError(f"{path} cannot be read as CSV: {error}. Expected UTF-8 with a header.") from None
        if not header:
            raise UserError(f"{path} is empty. Expected CSV with a header.")
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise UserError(f"{path} has the column {', '.join(twice)} twice. Names in a header must differ.")
        return header

    def read(self, path: str, wanted: "Sequence[Wanted]") -> "Iterator[pa.RecordBatch]":
        """The rows in file order, with `_row` for those that have too many or too few cells."""
        import pyarrow as pa

        from recsys_data.sources.files import open_stream

        header = self.columns(path)
        broken: list[str] = []
        ended = []

        def set_aside(row: Any) -> str:
            if row.text.startswith(END):
                ended.append(row)
            else:
                cells = f"{row.actual_columns} cells; expected {row.expected_columns}"
                # With names given the parser counts the header as row 1, as people do.
                broken.append(f"row {row.number} of {path.rsplit('/', 1)[-1]}: found {cells}: {row.text[:SHOWN]}")
            return "skip"

        with open_stream(self.files, path) as stream:
            source = _Ended(stream, END + self.delimiter * len(header))
            try:
                for batch in self._open(source, header, wanted, set_aside):
                    # A column may be wanted twice under two names.
                    arrays = [batch.column(column.source) for column in wanted]
                    yield _with_rows(arrays, wanted, broken)
                    broken.clear()
            except pa.ArrowInvalid as error:
                raise UserError(_explained(path, str(error))) from None
        if not ended:
            raise UserError(f"{path} cannot be read as CSV: a quote is not closed. Close it.")
        if broken:
            yield _with_rows([pa.nulls(0, pa.string()) for _ in wanted], wanted, broken)

    def _open(self, source: Any, header: list[str], wanted: "Sequence[Wanted]", set_aside: Any) -> Any:
        import pyarrow as pa
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

        return open_csv(
            source,
            # One thread, for only then do broken rows know their number.
            ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=header, skip_rows_after_names=1),
            ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=set_aside),
            ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=list(dict.fromkeys(column.source for column in wanted)),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )


def _with_rows(arrays: "list[pa.Array]", wanted: "Sequence[Wanted]", broken: list[str]) -> "pa.RecordBatch":
    """The batch, and after it a row without values for each that could not be read."""
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
    return f"{path} cannot be read as CSV: {first}. Look for a quote that is not closed, or a very long row."


class _Ended(io.RawIOBase):
    """A stream with one more row after its end; blocks are filled, for the parser takes a short one for whole rows."""

    def __init__(self, stream: Any, row: str) -> None:
        self._stream = stream
        self._row = f"\n{row}\n".encode()
        self._more = True
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, length = [self._rest], len(self._rest)
        while self._more and length < size:
            data = self._stream.read(size - length)
            self._more = bool(data)
            parts.append(data or self._row)
            length += len(parts[-1])
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]
