"""Where an event is: its rows and their files, its dead letters, and its lines in the event log.

Data flow: positions of the tables, then the event log, then the stream tables -> `Trace`. In that order, so that an
event on its way from the log to the tables is met at least once. Run alone: `recsys-data trace EVENT_ID`.
"""

import re
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from recsys_data.contracts.model import Kind
from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.log import EventLog
from recsys_data.ingestion.streaming.positions import positions_of
from recsys_data.ingestion.streaming.replay import outbox_lines
from recsys_data.monitoring.trace.log_search import Line, id_of, line_at, lines_of
from recsys_data.monitoring.trace.rows import (
    MOST,
    DeadLetter,
    LogPosition,
    StoredRow,
    dead_letter,
    rows_of,
    shortened,
    stored_rows,
)
from recsys_data.storage.tables import Lake

State = Literal["stored", "rejected", "waiting", "replaying", "unaccounted", "nowhere"]
POSITION = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")
MEANINGS: dict[State, str] = {
    "stored": "It is stored.",
    "rejected": "It broke a contract and is a dead letter. Fix the client and send it again; or fix the contract, "
    "and bring it back with `recsys-data dead-letters replay`.",
    "waiting": "It waits in the event log. A consumer stores it: `recsys-data ingest --until-empty`, or the sensor.",
    "replaying": "It was a dead letter and is on its way back to the event log: a replay was interrupted. The next "
    "consumer continues it: `recsys-data ingest --until-empty`, or the sensor.",
    "unaccounted": "Read, but not found in any table: it was discarded, expired by retention, or lost. Run "
    "`recsys-data doctor`.",
    "nowhere": "It is in no table and not in the log. It never arrived (look at the client's answer from the "
    "collector), it arrived in another state folder (RECSYS_DATA_DIR), or its id is another: an order or a list of "
    "products is one event per product, whose ids begin with the message's. A line whose id could not be read is "
    "among the dead letters without one.",
}


class LogLine(msgspec.Struct, frozen=True):
    """A line that the log keeps, other than those of the rows and dead letters.

    Attributes:
        state: `waiting` to be read, `duplicate` (read and dropped), or `unaccounted`.
        bytes_before: of a waiting line, what is read before it.
    """

    log_partition: int
    log_offset: int
    state: Literal["waiting", "duplicate", "unaccounted"]
    bytes_before: int | None
    bytes: int
    raw: str | None = None


class Trace(msgspec.Struct, frozen=True):
    """Everything about one event; where `more` is not 0, at least so much was found beyond what is listed."""

    asked: str
    state: State
    meaning: str
    stored: list[StoredRow]
    dead_letters: list[DeadLetter]
    log: list[LogLine]
    more: int = 0


def trace(log: EventLog, lake: Lake, asked: str, rows: bool = False) -> Trace:
    """Look for an event by its id or by its position in the log, `PARTITION:OFFSET`.

    Args:
        log: searched from its beginning to its end.
        lake: whose stream tables are searched.
        asked: the event id; as data, whatever it holds.
        rows: also give the columns of the rows and the beginning of the lines, which may be personal.

    Raises:
        UserError: the id is empty or no text.
        Transient: data files were replaced while they were read.
    """
    _check(asked)
    position = _position(asked)
    read = positions_of(lake, log.begin_offsets())
    at = line_at(log, *position) if position else None
    # A position asks for the event of that line.
    ids = [asked, *([found] if at and (found := id_of(at.raw)) else [])]
    lines, more = _lines(log, ids, at)
    stored, dead, left_out = _rows(lake, ids, {*lines, *([position] if position else [])}, rows)
    shown = {(one.log_partition, one.log_offset) for one in (*stored, *dead)}
    others = [
        _log_line(line, read.get(line.partition, 0), bool(stored), rows)
        for key, line in sorted(lines.items())
        if key not in shown
    ]
    state = _state(position, stored, dead, others)
    if state in ("unaccounted", "nowhere") and any(id_of(line) in ids for line in outbox_lines(lake)):
        state = "replaying"
    return Trace(asked, state, MEANINGS[state], stored, dead, others, more + left_out)


def _check(asked: str) -> None:
    if not asked or "\x00" in asked:
        raise UserError("The event id is empty or holds a NUL; no event has such an id. Give the id, or P:OFFSET.")
    try:
        asked.encode()
    except UnicodeEncodeError:
        raise UserError(f"The event id {ascii(asked)} is not UTF-8 text; no event has such an id.") from None


def _position(asked: str) -> LogPosition | None:
    """A partition and a position, if that is what the text says; it may be an event id all the same."""
    found = POSITION.fullmatch(asked)
    return (int(found[1]), int(found[2])) if found else None


def _rows(
    lake: Lake, ids: Sequence[str], positions: Collection[LogPosition], columns: bool
) -> tuple[list[StoredRow], list[DeadLetter], int]:
    """Rows and dead letters with these ids or positions; and how many more, at least, there are."""
    stored: list[StoredRow] = []
    dead: list[DeadLetter] = []
    more = 0
    for name, contract in lake.contracts.items():
        if not contract.is_stream or not lake.exists(name):
            continue
        table = lake.table(name)
        found = rows_of(table, contract, ids, positions, columns)
        more += max(0, len(found) - MOST)
        if contract.kind is Kind.DEAD_LETTERS:
            dead += [dead_letter(contract, one, columns) for one in found[:MOST]]
        else:
            stored += stored_rows(table, contract, found[:MOST], columns)
    return stored, dead, more


def _lines(log: EventLog, ids: Sequence[str], at: Line | None) -> tuple[dict[LogPosition, Line], int]:
    """The lines of these ids that the log keeps, and the one asked for, by position; and how many more there are."""
    found = {(at.partition, at.position): at} if at else {}
    more = 0
    for line in (line for event_id in dict.fromkeys(ids) for line in lines_of(log, event_id)):
        if len(found) < MOST:
            found[line.partition, line.position] = line
        elif (line.partition, line.position) not in found:
            more += 1
    return found, more


def _log_line(line: Line, read: int, stored: bool, rows: bool) -> LogLine:
    waits = line.position >= read
    return LogLine(
        log_partition=line.partition,
        log_offset=line.position,
        state="waiting" if waits else "duplicate" if stored else "unaccounted",
        bytes_before=line.position - read if waits else None,
        bytes=len(line.raw),
        raw=shortened(line.raw) if rows else None,
    )


def _state(
    position: LogPosition | None, stored: list[StoredRow], dead: list[DeadLetter], lines: list[LogLine]
) -> State:
    if any((one.log_partition, one.log_offset) == position for one in dead):
        return "rejected"
    if stored:
        return "stored"
    if any(line.state == "unaccounted" for line in lines):
        return "unaccounted"
    if dead:
        return "rejected"
    return "waiting" if lines else "nowhere"
