r"""Finding the lines of one event in the event log, in bounded memory.

Data flow: event log, slice by slice -> lines that may hold the id, by a search for bytes -> decoded -> `Line`.
An id can be spelled in many ways in JSON (`\u0061` is `a`), so lines with escapes are decoded before they are passed.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from recsys_data.errors import Permanent
from recsys_data.ingestion.streaming.log import EventLog, LogSlice

SLICE_BYTES = 8 * 1024 * 1024


class Identified(msgspec.Struct):
    """The member of a line that is searched for."""

    event_id: Any = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log; `position` is its place in the partition."""

    partition: int
    position: int
    raw: bytes


def lines_of(log: EventLog, event_id: str) -> Iterator[Line]:
    """Every line with this event id that the log still keeps, also those that are not JSON but say so.

    Takes as long as reading the log.

    Raises:
        Permanent: the log lacks what lies between its beginning and its end.
    """
    spelled = sorted({msgspec.json.encode(event_id)[1:-1], json.dumps(event_id)[1:-1].encode()})
    # Any character may be written with \u, the slash also as \/.
    escapes = [rb"\u", *([rb"\/"] if "/" in event_id else [])]
    spelling = re.compile(rb'"event_id"\s*:\s*"(?:' + b"|".join(map(re.escape, spelled)) + rb')"')
    for lines in slices(log):
        for row in rows_with(lines, [*spelled, *escapes]):
            raw = lines.line(row)
            if _is_of(raw, event_id, spelling):
                yield Line(lines.partition, int(lines.positions[row]), raw)


def id_of(raw: bytes) -> str | None:
    r"""The event id of a line; None where it cannot be read or is not text.

    >>> id_of(rb'{"event_id":"\u0061"}'), id_of(b'{"event_id":7}'), id_of(b"{")
    ('a', None, None)
    """
    found = _decoded(raw)
    return found.event_id if found and isinstance(found.event_id, str) else None


def line_at(log: EventLog, partition: int, position: int) -> Line | None:
    """The line that begins at a position; None where the log keeps none."""
    if partition not in log.partitions():
        return None
    if not log.begin_offsets()[partition] <= position < log.end_offsets()[partition]:
        return None
    try:
        found = log.read(partition, position, 1)
    except Permanent:
        # Within a line, or pruned a moment ago.
        return None
    return Line(partition, position, found.line(0)) if len(found) and found.positions[0] == position else None


def slices(log: EventLog, until: Mapping[int, int] | None = None) -> Iterator[LogSlice]:
    """Everything that the log keeps, oldest first within each partition; with `until` not much beyond that position."""
    begins: Mapping[int, int] = log.begin_offsets()
    for partition in log.partitions():
        at = begins.get(partition, 0)
        while until is None or at < until.get(partition, 0):
            try:
                lines = log.read(partition, at, SLICE_BYTES)
            except Permanent:
                begin = log.begin_offsets()[partition]
                if begin <= at:
                    raise
                # What was about to be read has been pruned meanwhile.
                at = begin
                continue
            if not len(lines):
                break
            yield lines
            at = lines.end


def rows_with(lines: LogSlice, needles: Sequence[bytes]) -> list[int]:
    r"""The rows of a slice that hold any of these bytes.

    >>> import numpy as np
    >>> lines = LogSlice(0, 0, 9, b"aa,b\nbb,c\n", np.array([0, 5, 10]), np.array([0, 5]))
    >>> rows_with(lines, [b"c"]), rows_with(lines, [b"b", b"aa"])
    ([1], [0, 1])
    """
    rows: set[int] = set()
    bounds = lines.bounds.tolist()
    for needle in needles:
        at = lines.data.find(needle)
        while at >= 0:
            row = bisect_right(bounds, at) - 1
            rows.add(row)
            at = lines.data.find(needle, bounds[row + 1])
    return sorted(rows)


def _decoded(raw: bytes) -> Identified | None:
    try:
        return msgspec.json.decode(raw, type=Identified)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_of(raw: bytes, event_id: str, spelling: re.Pattern[bytes]) -> bool:
    found = _decoded(raw)
    return spelling.search(raw) is not None if found is None else found.event_id == event_id
