"""JSON as clients send it: strict objects where it is strict, and the bytes as they came where it is not."""

import json
from typing import Any, NamedTuple

import msgspec

from recsys_data.ingestion.collector.requests import Refused

# A colon may also be written as an escape, within a string.
ESCAPED_COLON = b"\\u003"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


class Item(NamedTuple):
    """One JSON value of a request: its bytes, and the object they stand for if they do so without doubt."""

    raw: bytes
    message: dict[str, Any] | None


class _RepeatedKeyError(ValueError):
    pass


def item(raw: bytes) -> Item:
    """Read one value; `message` is None unless it is a strict JSON object in which no key stands twice.

    >>> [item(raw).message for raw in (b'{"a": 1}', b'{"a": 1, "a": 2}', b"[1]", b"{a")]
    [{'a': 1}, None, None, None]
    """
    try:
        found = msgspec.json.decode(raw)
        if isinstance(found, dict) and not _repeats_key(raw, found):
            return Item(raw, found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return Item(raw, None)


def _repeats_key(raw: bytes, found: dict[str, Any]) -> bool:
    """Whether a key stands twice in `raw`, which a decoder does not tell: one of the values would be lost.

    Written again, `found` lacks the second key and its colon; so equally many colons prove that there is
    none. A slower parser decides the rest.
    """
    if raw.count(b":") == msgspec.json.encode(found).count(b":") and ESCAPED_COLON not in raw:
        return False
    try:
        json.loads(raw, object_pairs_hook=_unique)
    except _RepeatedKeyError:
        return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _RepeatedKeyError


def is_json(raw: bytes) -> bool:
    """Whether `raw` is one strict JSON value."""
    return why_not_json(raw) is None


def why_not_json(raw: bytes) -> str | None:
    """What is wrong with `raw` as a JSON value; None if it is one."""
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return None


def members(raw: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each as it was sent.

    Raises:
        Refused: 400, it is no JSON object.
    """
    try:
        return {name: bytes(value) for name, value in _members.decode(raw).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        values = _lenient(raw, str(error))
        if not isinstance(values, dict):
            raise Refused(400, "The body is not a JSON object.") from None
    return {name: json.dumps(value).encode() for name, value in values.items()}


def elements(raw: bytes) -> list[bytes]:
    """The elements of a JSON array, each as it was sent.

    Raises:
        Refused: 400, it is no JSON array.
    """
    try:
        return [bytes(value) for value in _elements.decode(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        values = _lenient(raw, str(error))
        if not isinstance(values, list):
            raise Refused(400, "Expected a JSON array of messages.") from None
    return [json.dumps(value).encode() for value in values]


def value(raw: bytes) -> Any:
    """Read any JSON value.

    Raises:
        Refused: 400, it is none.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _lenient(raw, str(error))


def _lenient(raw: bytes, why: str) -> Any:
    """Read JSON with NaN and Infinity, as Python's clients write it: one such number spoils one message only.

    Raises:
        Refused: 400, with `why`.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, f"The body is not JSON: {why}.") from None
