"""One line -> the leaves of its event, or the exact reason why it is none.

The slow and final word on lines that the vectorised ways of `decode.py` do not settle: rejects, and rare
spellings of good events.
"""

import json
import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from recsys_data.contracts.contract import Column
from recsys_data.contracts.types import json_type
from recsys_data.errors import BadRecord
from recsys_data.ingestion.plan import UNMODELLED, EventPlan

NAMES = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", dict: "an object", list: "an array"}
EXPECTED = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "timestamp": "a time as a string, e.g. 2026-01-02T03:04:05.678Z",
    "object": "an object",
    "array": "an array",
}
SHOWN = 60
# Where a field outside `properties` and one inside it have the same name, the outer one is kept under this.
OUTER = "$event"
INT64 = 2**63


class _Pairs(list):
    """A JSON object as its members in order, so that a key that stands twice is seen."""


def read_exactly(line: bytes, plan: EventPlan) -> dict[str, Any]:
    """The leaves of one event, by column name, as `EventPlan.judged` takes them; absent leaves are left out.

    Raises:
        BadRecord: invalid_utf8, malformed_json, not_an_object, duplicate_key or wrong_type.
    """
    event = _parse(line.rstrip(b"\r\n"))
    leaves: dict[str, Any] = {}
    rest = _take(event, (), {column.source: column for column in plan.leaves}, set(plan.containers), leaves)
    sent = leaves.get(UNMODELLED)
    if rest:
        properties = dict(sent) if sent else {}
        clashing = {key: rest.pop(key) for key in list(rest) if key in properties}
        properties |= rest
        if clashing:
            properties[OUTER] = clashing
        leaves[UNMODELLED] = properties
    for column in plan.raw:
        if column.name in leaves:
            leaves[column.name] = json.dumps(leaves[column.name], ensure_ascii=False, separators=(",", ":"))
    return leaves


def _parse(line: bytes) -> _Pairs:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        found = line[error.start : error.end].hex(" ")
        raise BadRecord("invalid_utf8", f"byte {error.start} is {found}: {error.reason}") from None
    if not text.strip():
        raise BadRecord("malformed_json", "the line is empty")
    try:
        msgspec.json.decode(line)
        event = json.loads(text, object_pairs_hook=_Pairs)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRecord("malformed_json", str(error)) from None
    except RecursionError:
        raise BadRecord("malformed_json", "nested too deeply") from None
    if not isinstance(event, _Pairs):
        raise BadRecord("not_an_object", f"the line holds {_name(event)}; expected one JSON object")
    return event


def _take(pairs: _Pairs, at: tuple[str, ...], columns: dict, containers: set, leaves: dict[str, Any]) -> dict[str, Any]:
    """Move what has a column into `leaves`; return what has none."""
    rest: dict[str, Any] = {}
    seen: set[str] = set()
    for key, value in pairs:
        path = (*at, key)
        if value is None:
            continue
        if key in seen:
            raise BadRecord("duplicate_key", f"{_path(path)} stands more than once")
        seen.add(key)
        if path in columns:
            column = columns[path]
            leaves[column.name] = _leaf(column, value, path)
        elif path in containers:
            if not isinstance(value, _Pairs):
                raise BadRecord("wrong_type", f"expected an object, found {_show(value)} at {_path(path)}")
            inner = _take(value, path, columns, containers, leaves)
            if inner:
                rest[key] = inner
        else:
            rest[key] = _plain(value)
    return rest


def _leaf(column: Column, value: Any, path: tuple[str, ...]) -> Any:
    kind = json_type(column.type)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "VARCHAR": isinstance(value, str),
        "BOOLEAN": isinstance(value, bool),
        "DOUBLE": number and math.isfinite(value),
        "JSON": type(value) is (_Pairs if column.type == "object" else list),
    }[kind]
    if fits and column.type == "integer":
        fits = value == int(value) and -INT64 <= value < INT64
        value = int(value) if fits else value
    if fits and kind == "VARCHAR":
        fits = not any("\ud800" <= char <= "\udfff" for char in value)
    if not fits:
        raise BadRecord("wrong_type", f"expected {EXPECTED[column.type]}, found {_show(value)} at {_path(path)}")
    if column.type == "timestamp":
        return _canonical(value)
    if column.type == "number":
        return float(value)
    return _plain(value)


def _canonical(text: str) -> str:
    """RFC 3339 in any spelling -> the one that the judging statement reads; other text as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    # A time of day without an offset could be anybody's.
    if moment.tzinfo is None or len(text) < len("2026-01-02T03:04Z"):
        return text
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    except OverflowError:
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(inner) for key, inner in value}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def _name(value: Any) -> str:
    return "an object" if isinstance(value, _Pairs) else NAMES.get(type(value), "null")


def _show(value: Any) -> str:
    if isinstance(value, _Pairs | list):
        return _name(value)
    text = json.dumps(value, ensure_ascii=True)
    return f"{_name(value)} {text if len(text) <= SHOWN else text[:SHOWN] + '...'}"


def _path(path: tuple[str, ...]) -> str:
    return "$." + ".".join(path)
