"""CSV files of a public data set, whose header is known -> Arrow batches of text, and the lines that do not fit.

An empty cell is empty text. Data flow: file, plain or gzipped -> `files/csv_reader.py` -> batches of an importer.
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa

from recsys_data.errors import UserError
from recsys_data.sources.datasets.files import BinaryFile, explained, open_file
from recsys_data.sources.files.csv_reader import REJECTED_ROWS, CsvText

SHOWN = 200
SHOWN_BYTES = 20


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A line of a row that cannot be read: its file, its number there (the header is 1), and its text."""

    file: str
    number: int
    text: str

    def line(self, source: str) -> bytes:
        """The row as a line that keeps its text and that ingestion rejects as `missing_type`."""
        event = {"event_id": f"{source}:{self.file}:{self.number}", "source": source}
        return msgspec.json.encode(event | {"properties": {"file": self.file, "row": self.number, "text": self.text}})


def find_csv(folder: Path, name: str) -> Path:
    """The file `<name>.csv` of a folder, plain or gzipped.

    Raises:
        UserError: there is none, or both.
    """
    found = [path for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz") if path.is_file()]
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise UserError(
            f"{folder} has no {name}.csv or {name}.csv.gz; it holds {there[:SHOWN]}. Name the right folder."
        )
    if len(found) > 1:
        raise UserError(f"{folder} has both {found[0].name} and {found[1].name}. Remove one of them.")
    return found[0]


def find_optional_csv(folder: Path, name: str) -> Path | None:
    """As `find_csv`, but None where there is no such file."""
    there = any((folder / f"{name}.csv{ending}").is_file() for ending in ("", ".gz"))
    return find_csv(folder, name) if there else None


def read_header(path: Path, tabs: bool = False) -> list[str]:
    """The names of the columns, in the order of the file.

    Args:
        path: of the file.
        tabs: cells are separated by tabs, and quotes mean nothing.

    Raises:
        UserError: the file cannot be read, or has no header.
    """
    with explained(path), open_file(path) as file:
        return CsvText(str(path), file, "\t" if tabs else ",", not tabs).header


def read_csv(
    path: Path, columns: Sequence[str], tabs: bool = False
) -> Iterator[tuple[pa.RecordBatch, list[BrokenRow]]]:
    """The rows in file order, as text in the order of `columns`; the file may have them in another order.

    Args:
        path: of the file.
        columns: all of the file.
        tabs: cells are separated by tabs, and quotes mean nothing.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or its header does not name exactly `columns`.
    """
    name = path.name.removesuffix(".gz")
    with explained(path), open_file(path) as file:
        text = CsvText(str(path), _Utf8(path, file), "\t" if tabs else ",", not tabs)
        if sorted(text.header) != sorted(columns):
            missing = ", ".join(name for name in columns if name not in text.header)
            raise UserError(
                f"{path} has the columns {', '.join(text.header)[:SHOWN]}. Expected exactly {', '.join(columns)}"
                f"{'; missing: ' + missing if missing else ''}."
            )
        for arrays, rejected in text.rows(columns):
            rows = pa.RecordBatch.from_arrays(arrays, list(columns))
            while broken := [BrokenRow(name, one.line, one.text) for one in islice(rejected, REJECTED_ROWS)]:
                yield rows, broken
                rows = rows.slice(0, 0)
            if rows.num_rows:
                yield rows, []


class _Utf8:
    """Hands a file through and stops at the first byte that is not UTF-8."""

    def __init__(self, path: Path, file: BinaryFile) -> None:
        self._path = path
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            around = error.object[max(0, error.start - SHOWN_BYTES) : error.end + SHOWN_BYTES]
            raise UserError(
                f"{self._path} is not UTF-8: {error.reason} {error.object[error.start]:#x} in {around!r}. "
                f"Convert it, e.g. with `iconv -f ISO-8859-1 -t UTF-8`."
            ) from None
        return data
