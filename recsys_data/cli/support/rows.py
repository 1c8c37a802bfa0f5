"""Query results for people and programs: Arrow batches -> a table, CSV or JSON, in bounded memory."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from recsys_data.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_data.storage.guard.read_only import Result

TABLE_ROWS = 100
CELL_CHARACTERS = 200
# Numbers keep every digit that the database had; what JSON has no form for (intervals) is text.
ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=str)


def write_json(result: "Result") -> None:
    """A list of objects, one a line; what JSON cannot say (NaN, infinity) is null."""
    names = distinct(result.schema.names)
    out = sys.stdout.buffer
    before = b"[\n"
    for row in _rows(result):
        out.write(before + ENCODER.encode(dict(zip(names, row, strict=True))))
        before = b",\n"
    out.write(b"[]\n" if before == b"[\n" else b"\n]\n")
    out.flush()


def write_csv(result: "Result") -> None:
    """RFC 4180 with a header; NULL is an empty field, nested values are JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.schema.names)
    for row in _rows(result):
        writer.writerow([_text(value) for value in row])


def write_table(result: "Result") -> None:
    """The first rows, and how many there are."""
    from recsys_data.cli.support.terminal import print_rows

    shown: list[list[str]] = []
    total = 0
    for batch in result.batches:
        wanted = max(0, TABLE_ROWS - total)
        shown += [[_text(value)[:CELL_CHARACTERS] for value in row] for row in _tuples(batch.slice(0, wanted))]
        total += batch.num_rows
    numbers = [field.name for field in result.schema if _is_number(field.type)]
    print_rows(result.schema.names, shown, numbers)
    more = f"; the first {len(shown)} are shown, --format csv gives all" if total > len(shown) else ""
    click.echo(f"{total:,} {'row' if total == 1 else 'rows'}{more}")


FORMATS = {"table": write_table, "csv": write_csv, "json": write_json}


def distinct(names: list[str]) -> list[str]:
    """Names that an object can have side by side.

    >>> distinct(["a", "b", "a"])
    ['a', 'b', 'a_1']
    """
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        unique = name
        while unique in found or (seen[name] and unique == name):
            unique = f"{name}_{seen[name]}"
            seen[name] += 1
        seen[name] += 1
        found.append(unique)
    return found


def readable(value: Any) -> Any:
    r"""Bytes as text, with bytes that are not UTF-8 escaped; also within lists and structs.

    >>> readable([b"caf\xc3\xa9", {"raw": b"\xff!"}])
    ['café', {'raw': '\\xff!'}]
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [readable(one) for one in value]
    if isinstance(value, dict):
        return {name: readable(one) for name, one in value.items()}
    return value


def interval(months: int, days: int, nanoseconds: int) -> str:
    """A length of time as DuckDB writes it.

    >>> interval(14, 3, -5_250_000_000), interval(0, 0, 90_000_000_000), interval(0, 0, 0)
    ('14 months 3 days -00:00:05.25', '00:01:30', '00:00:00')
    """
    parts = [f"{months} months"] if months else []
    if days:
        parts.append(f"{days} days")
    if nanoseconds or not parts:
        seconds, rest = divmod(abs(nanoseconds), 10**9)
        sign = "-" if nanoseconds < 0 else ""
        fraction = f".{rest:09}".rstrip("0").rstrip(".")
        parts.append(f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}")
    return " ".join(parts)


def _rows(result: "Result") -> Iterator[tuple[Any, ...]]:
    for batch in result.batches:
        yield from _tuples(batch)


def _tuples(batch: "pa.RecordBatch") -> Iterator[tuple[Any, ...]]:
    return zip(*map(_values, batch.schema.names, batch.columns), strict=True)


def _values(name: str, column: "pa.Array") -> list[Any]:
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError) as error:
        raise UserError(f"Column {name} has a value that cannot be shown: {error}. Cast it to VARCHAR.") from None
    if "binary" in str(column.type):
        return [readable(value) for value in values]
    return [value and interval(*value) for value in values] if "interval" in str(column.type) else values


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | float):
        return str(value)
    # Times as in JSON, and JSON for what is nested.
    text = ENCODER.encode(value).decode()
    return text[1:-1] if text.startswith('"') else text


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
