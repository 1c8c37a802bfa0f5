"""JSON lines -> batches of raw JSON values, with the lines that are not JSON objects set aside as problem rows.

The values stay as they are spelled (`1.50`, thirty digits), for DuckDB and Python alike read a number as a float64.
One call parses the lines of a whole block; only when that fails are they taken one by one.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.errors import UserError
from recsys_data.repeated_keys import may_repeat, repeated_key
from recsys_data.sources.casting.arrow import OF_ROW
from recsys_data.sources.source import ROW

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    from recsys_data.sources.source import ColumnRequest

# A line must fit in a block.
BLOCK_BYTES = 8 * 1024 * 1024
SHOWN = 200
Values = list[bytes | None]

ABSENT = msgspec.Raw(b"")
DELIMITER = "\x01"
ANY = msgspec.json.Decoder()
OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class JsonReader:
    """One JSON object a line; blank lines are none."""

    raw_json = True

    def __init__(self, files: "FileSystem") -> None:
        self.files = files

    def columns(self, path: str, wanted: "Sequence[ColumnRequest]") -> list[str]:
        """The keys of the first object, and the wanted paths that any line has; nothing if there are no objects."""
        missing = {column.source for column in wanted}
        found: dict[str, None] = {}
        for lines, _ in self._blocks(path):
            parser = Parser(sorted(missing))
            values, _ = parser.parse(lines)
            if not found:
                found |= dict.fromkeys(_first_keys(lines))
            for source in [*missing]:
                if any(value is not None for value in values[source]):
                    found[source] = None
                    missing.remove(source)
            if not missing:
                break
        return list(found)

    def read(self, path: str, wanted: "Sequence[ColumnRequest]") -> "Iterator[pa.RecordBatch]":
        """The values of each line, raw, with `_row` for lines that are not JSON objects."""
        import pyarrow as pa

        parser = Parser([column.source for column in wanted])
        name = path.rsplit("/", 1)[-1]
        for lines, odd in self._blocks(path):
            values, broken = parser.parse(lines)
            for number, why in _repeats(lines):
                broken.append((number, why))
                for of_source in values.values():
                    of_source[number] = None
            said: list[str | None] = [None] * len(lines)
            for number, why in broken:
                said[number] = f"{OF_ROW}of {name}: {why}; expected a JSON object: {lines[number][:SHOWN]}"
            said += [f"{OF_ROW}of {name}: a control character; expected a JSON object: {line}" for line in odd]
            none: Values = [None] * len(odd)
            arrays = [pa.array(values[column.source] + none, pa.string()) for column in wanted]
            names = [*(column.name for column in wanted), ROW]
            yield pa.RecordBatch.from_arrays([*arrays, pa.array(said, pa.string())], names)

    def _blocks(self, path: str) -> Iterator[tuple[list[str], list[str]]]:
        """The lines of a file, block by block, and those with a character that no JSON holds (cut short)."""
        import pyarrow as pa
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

        from recsys_data.sources.locations import open_stream

        odd: list[str] = []

        def set_aside(row: Any) -> str:
            odd.append(row.text[:SHOWN])
            return "skip"

        with open_stream(self.files, path) as stream:
            try:
                reader = open_csv(
                    stream,
                    ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=["line"]),
                    # A delimiter that JSON cannot hold as it is.
                    ParseOptions(delimiter=DELIMITER, quote_char=False, invalid_row_handler=set_aside),
                    ConvertOptions(column_types={"line": pa.string()}),
                )
                for number, batch in enumerate(reader):
                    lines = [line for line in batch.column(0).to_pylist() if not line.isspace()]
                    if number == 0 and lines and lines[0].startswith("["):
                        raise UserError(
                            f"{path} holds a JSON array. Expected one object a line; `jq -c '.[]'` makes it so."
                        )
                    yield lines, odd.copy()
                    odd.clear()
            except pa.ArrowInvalid as error:
                if "Empty CSV" not in str(error):
                    raise UserError(_explained(path, str(error))) from None
        if odd:
            yield [], odd


class Parser:
    """Takes the values at dotted paths out of JSON objects, each as it is spelled."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = sources
        tops = list(dict.fromkeys(source.split(".")[0] for source in sources))
        self._attribute = {top: f"f{number}" for number, top in enumerate(tops)}
        fields = [(self._attribute[top], msgspec.Raw, msgspec.field(default=ABSENT, name=top)) for top in tops]
        self._row = msgspec.json.Decoder(msgspec.defstruct("Row", fields))

    def parse(self, lines: Sequence[str]) -> tuple[dict[str, Values], list[tuple[int, str]]]:
        """The values by source, None where there is none; and the numbers of broken lines with what is wrong."""
        rows, broken = self._rows(lines)
        return {source: self._values(rows, source) for source in self.sources}, broken

    def _rows(self, lines: Sequence[str]) -> tuple[list[Any], list[tuple[int, str]]]:
        try:
            rows = self._row.decode_lines("\n".join(lines))
        except (msgspec.DecodeError, RecursionError):
            rows = []
        # An object that goes over several lines would be read, but is not what was agreed.
        if len(rows) == len(lines):
            return rows, []
        rows, broken = [], []
        for number, line in enumerate(lines):
            try:
                rows.append(self._row.decode(line))
            except (msgspec.DecodeError, RecursionError) as error:
                rows.append(None)
                broken.append((number, str(error)))
        return rows, broken

    def _values(self, rows: Sequence[Any], source: str) -> Values:
        top, *path = source.split(".")
        get: Callable[[Any], bytes] = attrgetter(self._attribute[top])
        values = [bytes(get(row)) or None if row is not None else None for row in rows]
        return [_dig(value, path) for value in values] if path else values


def _dig(value: bytes | None, path: Sequence[str]) -> bytes | None:
    for step in path:
        if value is None or not value.startswith(b"{"):
            return None
        value = bytes(OBJECT.decode(value).get(step, ABSENT)) or None
    return value


def _repeats(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The numbers of lines that have a key twice in an object, whose values a reader takes one of, and which key."""
    text = "\n".join(lines).encode()
    try:
        if not may_repeat(text, ANY.decode_lines(text)):
            return
    except (msgspec.DecodeError, RecursionError):
        pass
    for number, line in enumerate(lines):
        try:
            if may_repeat(line.encode(), ANY.decode(line)) and (key := repeated_key(line)) is not None:
                yield number, f"the key {key} stands more than once"
        except RecursionError as error:
            yield number, str(error)
        except msgspec.DecodeError:
            # A number beyond a float, or half a character: what can be read all the same.
            if (key := repeated_key(line)) is not None:
                yield number, f"the key {key} stands more than once"


def _first_keys(lines: Sequence[str]) -> list[str]:
    for line in lines:
        try:
            return list(OBJECT.decode(line))
        except (msgspec.DecodeError, RecursionError):
            continue
    return []


def _explained(path: str, error: str) -> str:
    first = error.splitlines()[0].removesuffix(".")
    if "UTF8" in first:
        return f"{path} is not UTF-8: {first}. Convert it, e.g. with `iconv -f ISO-8859-1 -t UTF-8`."
    return f"{path} cannot be read as JSON lines: {first}. Expected lines of at most {BLOCK_BYTES} bytes."
