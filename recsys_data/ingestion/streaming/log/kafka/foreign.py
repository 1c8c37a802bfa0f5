"""Records that other producers wrote -> native log lines: pretty-printed JSON, CloudEvents, lines without receipt time.

What our own producer wrote stays byte for byte.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from recsys_data.ingestion.streaming.log.received_at import with_received_at

if TYPE_CHECKING:
    from confluent_kafka import Message

PREFIX = "ce_"
RECEIVED = b'"received_at"'
ENVELOPE = b'"specversion"'
# The header of a line that looks like a foreign one, though our own producer wrote it.
NATIVE = "recsys-data"


def headers_of(line: bytes) -> dict[str, str | bytes | None] | None:
    """The headers that keep a line from being taken for a foreign one; nearly none needs any."""
    return {NATIVE: b""} if RECEIVED not in line or ENVELOPE in line else None


def native_lines(messages: "list[Message]") -> tuple[bytes, list[int]]:
    """The lines of records back to back, one of each, in order, with a newline each; and how long each is with it.

    A record without a value (a tombstone) is an empty line, which becomes a dead letter: every record has one outcome.
    """
    lines = [message.value() or b"" for message in messages]
    data = b"\n".join(lines) + b"\n"
    # Searched as a whole, which takes a fraction of the time. A line without receipt time hides where another has two:
    # then the time of reading stands in.
    if data.count(RECEIVED) != len(lines) or ENVELOPE in data or data.count(b"\n") != len(lines):
        lines = [_native_line(message, line) for message, line in zip(messages, lines, strict=True)]
        data = b"\n".join(lines) + b"\n"
    return data, [len(line) + 1 for line in lines]


def _native_line(message: "Message", line: bytes) -> bytes:
    if RECEIVED not in line or ENVELOPE in line:
        headers = dict(message.headers() or [])
        if NATIVE in headers:
            return line
        (line,) = with_received_at([_from_cloud_event(line, headers)], _time_of(message))
    # A carriage return is blank in JSON as a newline is, and as forbidden within a string: a line stays as valid.
    return line.rstrip(b"\n").replace(b"\n", b"\r")


def _time_of(message: "Message") -> datetime:
    """When the record was made or, if the topic says so, appended."""
    kind, milliseconds = message.timestamp()
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if kind else datetime.now(UTC)


def _from_cloud_event(line: bytes, headers: Mapping[str, str | bytes | None]) -> bytes:
    """The event within a CloudEvent, in structured or in binary mode; a line that is none stays as it is."""
    try:
        event = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return line
    if f"{PREFIX}specversion" in headers:
        attributes = {
            name.removeprefix(PREFIX): value.decode(errors="replace") if isinstance(value, bytes) else value
            for name, value in headers.items()
            if name.startswith(PREFIX)
        }
        return _native(event, attributes, line)
    if isinstance(event, dict) and {"specversion", "id", "source", "type"} <= event.keys():
        return _native(event.pop("data", None), event, line)
    return line


def _native(data: Any, attributes: dict[str, Any], line: bytes) -> bytes:
    """The data with what only the envelope says: id, time and type."""
    if not isinstance(data, dict):
        return line
    # Only with its source an id is unique.
    known = {"event_id": f"{attributes.get('source', '')}#{attributes.get('id', '')}"}
    known["type"] = str(attributes.get("type", "")).rpartition(".")[2]
    if "time" in attributes:
        known["event_ts"] = attributes["time"]
    return msgspec.json.encode(known | data)
