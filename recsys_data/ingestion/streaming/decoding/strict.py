"""One line -> the fields of its event, or the exact reason why it is none.

The slow and final word on lines that the vectorised ways of `decoder.py` do not settle: rejects, and rare
spellings of good events.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

import msgspec

from recsys_data.contracts.model import Column
from recsys_data.errors import BadRecord
from recsys_data.ingestion.streaming.decoding.event_sql import OUTER, UNMODELLED, EventSchema
from recsys_data.ingestion.streaming.decoding.value_counts import MAX_DEPTH

NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    msgspec.Raw: "a number",
    list: "an array",
}
EXPECTED = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "timestamp": "a time as a string, e.g. 2026-01-02T03:04:05.678Z",
    "date": "a date as a string, e.g. 2026-01-02",
    "object": "an object",
    "array": "an array",
}
SHOWN = 60
INT64 = 2**63
RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(\.\d+)?(?:[Zz]|([+-](?:[01]\d|2[0-3]):[0-5]\d))", re.ASCII
)
# A string, also one that does not end: a match that fails would be tried again from every quote within it.
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)


class _Pairs(list):
    """A JSON object as its members in order, so that a key that stands twice is seen."""


def decode_strictly(line: bytes, schema: EventSchema) -> dict[str, Any]:
    """The fields of one event, by column name, as `EventSchema.validated` takes them; absent fields are left out.

    Raises:
        BadRecord: invalid_utf8, malformed_json, not_an_object, duplicate_key or wrong_type.
    """
    event = _parse(line.rstrip(b"\r\n"))
    fields: dict[str, Any] = {}
    rest = _take(event, (), schema.by_source, schema.containers, fields)
    sent = fields.get(UNMODELLED)
    if rest:
        properties = dict(sent) if sent else {}
        clashing = {key: rest.pop(key) for key in list(rest) if key in properties}
        properties |= rest
        if clashing:
            properties[_unused(OUTER, properties)] = clashing
        fields[UNMODELLED] = properties
    for column in schema.raw:
        if column.name in fields:
            fields[column.name] = msgspec.json.encode(fields[column.name]).decode()
    return fields


def _parse(line: bytes) -> _Pairs:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        found = line[error.start : error.end].hex(" ")
        raise BadRecord("invalid_utf8", f"byte {error.start} is {found}: {error.reason}") from None
    if not text.strip():
        raise BadRecord("malformed_json", "the line is empty")
    if _depth(text) > MAX_DEPTH:
        raise BadRecord("malformed_json", f"nested more than {MAX_DEPTH} levels deep")
    halves = "\\ud" in text.lower()
    try:
        # Several times faster than what follows, for the many lines of a client that sends no JSON at all.
        if not halves:
            OUTLINE.decode(line)
            if line.lstrip().startswith(b"["):
                raise BadRecord("not_an_object", "the line holds an array; expected one JSON object")
        event = DECODER.decode(text)
        if halves:
            json.dumps(event, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise BadRecord("malformed_json", "half of a surrogate pair is not a character") from None
    except ValueError as error:
        raise BadRecord("malformed_json", str(error)) from None
    if not isinstance(event, _Pairs):
        raise BadRecord("not_an_object", f"the line holds {_name(event)}; expected one JSON object")
    return event


def _depth(text: str) -> int:
    """How deep values are nested; an upper bound where that is within the limit."""
    marks = text.count("{") + text.count("[")
    if marks <= MAX_DEPTH:
        return marks
    steps = (1 if mark in "{[" else -1 for mark in re.findall(r"[][{}]", JSON_STRING.sub("", text)))
    return max(accumulate(steps), default=0)


def _integer(text: str) -> int | msgspec.Raw:
    number = _number(text)
    return number if isinstance(number, msgspec.Raw) else int(text)


def _number(text: str) -> float | msgspec.Raw:
    """A number, or its text where it is too large for a double."""
    number = float(text)
    return number if math.isfinite(number) else msgspec.Raw(text.encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


TEXT = (str,)
KINDS: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
    "object": (_Pairs,),
    "array": (list,),
}
# What is JSON at all; repeated keys and numbers of any size are.
OUTLINE = msgspec.json.Decoder(msgspec.Raw)
# Made once, since `json.loads` would make one for each line.
DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_integer, parse_float=_number, parse_constant=_refuse)


def _unused(name: str, keys: dict[str, Any]) -> str:
    while name in keys:
        name = "$" + name
    return name


def _take(
    pairs: _Pairs,
    at: tuple[str, ...],
    columns: Mapping[tuple[str, ...], Column],
    containers: Collection[tuple[str, ...]],
    fields: dict[str, Any],
) -> dict[str, Any]:
    """Move what has a column into `fields`; return what has none."""
    rest: dict[str, Any] = {}
    seen: set[str] = set()
    for key, value in pairs:
        path = (*at, key)
        if value is None:
            continue
        if key in seen:
            raise _repeated(path)
        seen.add(key)
        if path in columns:
            column = columns[path]
            fields[column.name] = _field_value(column, value, path)
        elif path in containers:
            if not isinstance(value, _Pairs):
                raise BadRecord("wrong_type", f"expected an object, found {_show(value)} at {_path(path)}")
            inner = _take(value, path, columns, containers, fields)
            if inner:
                rest[key] = inner
        else:
            rest[key] = _plain(value, path)
    return rest


def _field_value(column: Column, value: Any, path: tuple[str, ...]) -> Any:
    fits = type(value) in KINDS.get(column.type, TEXT)
    if fits and column.type == "integer":
        fits = value == int(value) and -INT64 <= value < INT64
        value = int(value) if fits else value
    if not fits:
        raise BadRecord("wrong_type", f"expected {EXPECTED[column.type]}, found {_show(value)} at {_path(path)}")
    if column.type == "timestamp":
        return _canonical(str(value))
    if column.type == "number":
        return float(value)
    return _plain(value, path) if isinstance(value, list) else value


def _canonical(text: str) -> str:
    """RFC 3339 in any spelling -> the one that the validating statement reads; other text as it is."""
    match = RFC3339.fullmatch(text)
    if not match:
        return text
    day, minute, second, fraction, offset = match.groups()
    leap = second == "60"
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}{'59' if leap else second}{offset or '+00:00'}")
        moment = moment.astimezone(UTC) + timedelta(seconds=leap)
    except (ValueError, OverflowError):
        return text
    if leap and (moment.day, moment.hour, moment.minute) != (1, 0, 0):
        # The last second of a month may be followed by one more, which the clocks of computers do not have.
        return text
    return f"{moment.replace(tzinfo=None).isoformat()}{(fraction or '.0')[:7]}Z"


def _plain(value: Any, at: tuple[str, ...]) -> Any:
    if isinstance(value, _Pairs):
        found: dict[str, Any] = {}
        for key, inner in value:
            if key in found:
                raise _repeated((*at, key))
            found[key] = _plain(inner, (*at, key))
        return found
    if isinstance(value, list):
        return [_plain(inner, at) for inner in value]
    return value


def _repeated(path: tuple[str, ...]) -> BadRecord:
    return BadRecord("duplicate_key", f"{_path(path)} stands more than once")


def _name(value: Any) -> str:
    return "an object" if isinstance(value, _Pairs) else NAMES.get(type(value), "null")


def _show(value: Any) -> str:
    if isinstance(value, list):
        return _name(value)
    if type(value) is int:
        text = str(value)
    else:
        text = bytes(value).decode() if isinstance(value, msgspec.Raw) else json.dumps(value)
    return f"{_name(value)} {text if len(text) <= SHOWN else text[:SHOWN] + '...'}"


def _path(path: tuple[str, ...]) -> str:
    return "$." + ".".join(path)
