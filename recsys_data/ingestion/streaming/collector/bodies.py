"""JSON as clients send it: strict objects where it is strict, and the bytes as they came where it is not.

A request that is not JSON is cut at the commas between its messages: what is wrong with one is wrong with it only.
"""

import json
import math
import re
from typing import Any, NamedTuple

import msgspec

from recsys_data.ingestion.streaming.collector.requests import Refused
from recsys_data.repeated_keys import may_repeat, repeated_key

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
BOM = b"\xef\xbb\xbf"
BLANKS = b" \t\r\n"
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# A quote by itself is one of a string that does not end.
MARK = re.compile(STRING + rb'|["\[\]{},]', re.DOTALL)
KEY = re.compile(rb"[ \t\r\n]*(" + STRING + rb")[ \t\r\n]*:", re.DOTALL)
CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


class Item(NamedTuple):
    """One JSON value of a request: its bytes, and the object they stand for if they do so without doubt."""

    raw: bytes
    message: dict[str, Any] | None


def item(raw: bytes) -> Item:
    """Read one value; `message` is None unless it is a strict JSON object in which no key stands twice.

    >>> [item(raw).message for raw in (b'{"a": 1}', b'{"a": 1, "a": 2}', b"[1]", b"{a")]
    [{'a': 1}, None, None, None]
    """
    try:
        found = _decoded(raw)
        if isinstance(found, dict) and not (may_repeat(raw, found) and repeated_key(raw) is not None):
            return Item(raw, found)
    except (*NOT_JSON, ValueError):
        pass
    return Item(raw, None)


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.ValidationError:
        # A number beyond a double: it is JSON, and kept as it is spelled.
        return json.loads(raw, parse_float=_number, parse_constant=_refuse)


def _number(text: str) -> float | msgspec.Raw:
    number = float(text)
    return number if math.isfinite(number) else msgspec.Raw(text.encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def is_json(raw: bytes) -> bool:
    """Whether `raw` is one strict JSON value."""
    return why_not_json(raw) is None


def why_not_json(raw: bytes) -> str | None:
    """What is wrong with `raw` as a JSON value; None if it is one."""
    try:
        msgspec.json.decode(raw)
    except NOT_JSON as error:
        return str(error)
    return None


def members(raw: bytes, unique: bool = True) -> dict[str, bytes]:
    """The members of a JSON object, each as it was sent; what is wrong within one is left to whoever reads it.

    Args:
        raw: the object.
        unique: refuse a key that stands twice; otherwise the last one holds.

    Raises:
        Refused: 400, it is no JSON object, or a key stands twice.
    """
    try:
        found = _members.decode(raw)
        colons = raw.count(b":") == msgspec.json.encode(found).count(b":")
        if colons and not any(":" in key for key in found):
            return {name: bytes(value) for name, value in found.items()}
    except NOT_JSON as error:
        if not raw.lstrip(BLANKS).startswith(b"{"):
            form = "not a JSON object." if is_json(raw) else f"not JSON: {error}."
            raise Refused(400, f"The body is {form}") from None
    values: dict[str, bytes] = {}
    for part in _split(raw):
        key = KEY.match(part)
        if key is None:
            raise Refused(400, "The body is not JSON: a member has no key.")
        name = value("A key of the body", key[1])
        if unique and name in values:
            raise Refused(400, f"The body has the key {name!r} twice, so that one of its values would be lost.")
        values[name] = part[key.end() :].strip(BLANKS)
    return values


def elements(raw: bytes) -> list[bytes]:
    """The elements of a JSON array, each as it was sent; what is wrong within one is left to whoever reads it.

    Raises:
        Refused: 400, it is no JSON array.
    """
    try:
        return [bytes(value) for value in _elements.decode(raw)]
    except NOT_JSON:
        if not raw.lstrip(BLANKS).startswith(b"["):
            raise Refused(400, "Expected a JSON array of messages.") from None
    return [part.strip(BLANKS) for part in _split(raw)]


def value(name: str, raw: bytes) -> Any:
    """Read any JSON value, named `name` in errors.

    Raises:
        Refused: 400, it is none, or a key of it stands twice.
    """
    try:
        found = msgspec.json.decode(raw)
        key = repeated_key(raw) if may_repeat(raw, found) else None
    except NOT_JSON as error:
        raise Refused(400, f"{name} is not JSON: {error}.") from None
    if key is not None:
        raise Refused(400, f"{name} has the key {key!r} twice, so that one of its values would be lost.")
    return found


def _split(raw: bytes) -> list[bytes]:
    """What stands between the brackets of an array or object and its commas; nothing between two commas is left out.

    Raises:
        Refused: 400, brackets or quotes do not match, so that nobody can say where something ends.
    """
    text = raw.strip(BLANKS)
    parts, begins, open_ = [], 1, [CLOSING[text[0]]]
    for mark in MARK.finditer(text, 1):
        start, byte = mark.start(), text[mark.start()]
        if byte == ord('"'):
            if mark.end() == start + 1:
                raise Refused(400, f"The body is not JSON: the string at byte {start} does not end.")
        elif byte in CLOSING:
            open_.append(CLOSING[byte])
        elif byte != ord(","):
            if byte != open_.pop():
                raise Refused(400, f"The body is not JSON: the bracket at byte {start} does not match.")
            if not open_:
                if mark.end() != len(text):
                    raise Refused(400, f"The body is not JSON: something follows its end at byte {start}.")
                parts.append(text[begins:start])
                return [part for part in parts if part.strip(BLANKS)]
        elif len(open_) == 1:
            parts.append(text[begins:start])
            begins = mark.end()
    raise Refused(400, "The body is not JSON: it ends too early.")
