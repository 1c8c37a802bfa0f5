"""Lines for `benchmarks.bounded`: events and rejected lines of chosen sizes, and the reason of each rejection."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LONG_BYTES = 36 * 1024 - 300
SHORT_BYTES = 300
# What a line of each reason begins with; a long property follows.
UNREADABLE = {
    "malformed_json": '{"event_id":"b%(n)d","type":"view",oops',
    "not_an_object": '["b%(n)d",{"type":"view"',
    "wrong_type": '{"event_id":"b%(n)d","type":"view","user_id":7,"item_id":"i1","event_ts":"%(now)s"',
}
BROKEN = {
    "missing_event_id": '{"type":"view","user_id":"u1","item_id":"i%(n)d","event_ts":"%(now)s"',
    "unknown_type": '{"event_id":"b%(n)d","type":"stare","user_id":"u1","item_id":"i1","event_ts":"%(now)s"',
    "missing_actor": '{"event_id":"b%(n)d","type":"view","item_id":"i1","event_ts":"%(now)s"',
    "unparseable_event_ts": '{"event_id":"b%(n)d","type":"view","user_id":"u1","event_ts":"yesterday"',
}
ENDS = {"not_an_object": "}]"}


def now_text() -> str:
    """This moment as events spell it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event(number: int, moment: str, more: str = "") -> bytes:
    """A view, with `more` members (JSON, with a comma before them)."""
    return (
        f'{{"event_id":"e{number}","type":"view","user_id":"u{number % 1000}","item_id":"i{number % 500}",'
        f'"event_ts":"{moment}","received_at":"{now_text()}"{more}}}'
    ).encode()


def plain_events(numbers: Iterable[int]) -> Iterator[bytes]:
    """Short events of now."""
    for number in numbers:
        yield event(number, now_text())


def long_events(numbers: Iterable[int]) -> Iterator[bytes]:
    """Events of 36 KiB with one long property."""
    for number in numbers:
        yield event(number, now_text(), f',"properties":{{"text":"{filler(number, LONG_BYTES)}"}}')


def wide_events(numbers: Iterable[int]) -> Iterator[bytes]:
    """Events of 36 KiB with thousands of small fields that no contract knows, inside and outside of `properties`."""
    inner = json.dumps({f"f{n}": n for n in range(LONG_BYTES // 24)}, separators=(",", ":"))
    outer = json.dumps({f"g{n}": n for n in range(LONG_BYTES // 24)}, separators=(",", ":"))[1:-1]
    for number in numbers:
        yield event(number, now_text(), f',"properties":{inner},{outer}')


def days_of_events(numbers: Iterable[int], days: int, more: str = "") -> Iterator[bytes]:
    """Short events with a context, spread evenly over so many days up to today."""
    today = datetime.now(UTC)
    for number in numbers:
        moment = (today - timedelta(days=number % days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        yield event(number, moment, f',"context":{{"page":"/home"}}{more}')


def bad_lines(numbers: Iterable[int], size: int, kinds: dict[str, str]) -> Iterator[bytes]:
    """Lines of about `size` bytes, one kind after the other."""
    names = list(kinds)
    for number in numbers:
        name = names[number % len(names)]
        text = kinds[name] % {"n": number, "now": now_text()}
        end = ENDS.get(name, "}")
        yield f'{text},"properties":{{"text":"{filler(number, size - len(text) - 30)}"}}{end}'.encode()


def landing_files(folder: Path, kind: str, files: int, rows: int) -> None:
    """A folder of small files of items, as `csv`, `jsonl` or `parquet`."""
    folder.mkdir(parents=True)
    for number in range(files):
        items = [
            {"item_id": f"i{number}-{row}", "item_type": "product", "title": f"title {row}"} for row in range(rows)
        ]
        path = folder / f"part-{number:05d}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(items), path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(item) + "\n" for item in items))
        else:
            texts = [",".join(row) for row in ([*items[0]], *(item.values() for item in items))]
            path.write_text("\n".join(texts) + "\n")


def filler(number: int, size: int) -> str:
    """Text of this size that differs from line to line."""
    word = f"{number * 2654435761 % 2**32:08x} "
    return (word * (max(0, size) // len(word) + 1))[: max(0, size)]
