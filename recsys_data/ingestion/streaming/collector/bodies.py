"""Request bodies -> the messages in them, one by one, and what they have in common.

A message is a strict JSON object where it is one, and the bytes as they came where it is not. A request that is not
JSON is cut at the commas between its messages: what is wrong with one is wrong with it only.
"""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from recsys_data.ingestion.streaming.collector.requests import RequestError
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
    """The members of a JSON object, each as it was sent; what is wrong within one is left to the reader.

    Args:
        raw: the object.
        unique: refuse a key that stands twice; otherwise the last one holds.

    Raises:
        RequestError: 400, it is not a JSON object, or a key stands twice.
    """
    try:
        found = _members.decode(raw)
        colons = raw.count(b":") == msgspec.json.encode(found).count(b":")
        if colons and not any(":" in key for key in found):
            return {name: bytes(value) for name, value in found.items()}
    except NOT_JSON as error:
        if not raw.lstrip(BLANKS).startswith(b"{"):
            form = "not a JSON object." if is_json(raw) else f"not JSON: {error}."
            raise RequestError(400, f"The body is {form}") from None
    values: dict[str, bytes] = {}
    for part in _split(raw):
        key = KEY.match(part)
        if key is None:
            raise RequestError(400, "The body is not JSON: a member has no key.")
        name = value("A key of the body", key[1])
        if unique and name in values:
            raise RequestError(400, f"The body has the key {name!r} twice, so that one of its values would be lost.")
        values[name] = part[key.end() :].strip(BLANKS)
    return values


def elements(raw: bytes) -> list[bytes]:
    """The elements of a JSON array, each as it was sent; what is wrong within one is left to the reader.

    Raises:
        RequestError: 400, it is not a JSON array.
    """
    try:
        return [bytes(value) for value in _elements.decode(raw)]
    except NOT_JSON:
        if not raw.lstrip(BLANKS).startswith(b"["):
            raise RequestError(400, "Expected a JSON array of messages.") from None
    return [part.strip(BLANKS) for part in _split(raw)]


def value(name: str, raw: bytes) -> Any:
    """Read any JSON value, named `name` in errors.

    Raises:
        RequestError: 400, it is none, or a key of it stands twice.
    """
    try:
        found = msgspec.json.decode(raw)
        key = repeated_key(raw) if may_repeat(raw, found) else None
    except NOT_JSON as error:
        raise RequestError(400, f"{name} is not JSON: {error}.") from None
    if key is not None:
        raise RequestError(400, f"{name} has the key {key!r} twice, so that one of its values would be lost.")
    return found


def _split(raw: bytes) -> list[bytes]:
    """What stands between the brackets of an array or object and its commas; nothing between two commas is left out.

    Raises:
        RequestError: 400, brackets or quotes do not match, so that nobody can say where something ends.
    """
    text = raw.strip(BLANKS)
    parts, begins, open_ = [], 1, [CLOSING[text[0]]]
    for mark in MARK.finditer(text, 1):
        start, byte = mark.start(), text[mark.start()]
        if byte == ord('"'):
            if mark.end() == start + 1:
                raise RequestError(400, f"The body is not JSON: the string at byte {start} does not end.")
        elif byte in CLOSING:
            open_.append(CLOSING[byte])
        elif byte != ord(","):
            if byte != open_.pop():
                raise RequestError(400, f"The body is not JSON: the bracket at byte {start} does not match.")
            if not open_:
                if mark.end() != len(text):
                    raise RequestError(400, f"The body is not JSON: something follows its end at byte {start}.")
                parts.append(text[begins:start])
                return [part for part in parts if part.strip(BLANKS)]
        elif len(open_) == 1:
            parts.append(text[begins:start])
            begins = mark.end()
    raise RequestError(400, "The body is not JSON: it ends too early.")


# No event that the contract accepts is shorter; the largest body holds no more than it has room for.
LEAST_ITEM_BYTES = 64

MAX_ITEMS = 1024 * 1024 // LEAST_ITEM_BYTES


@dataclass(frozen=True, slots=True)
class Upload:
    """The content of a request.

    Attributes:
        items: the messages or events, in order.
        write_key: as sent in the body; None if it was not.
        sent_at: as sent beside a batch; None if it was not.
        shared: the batch's other members, which hold for each of its messages.
    """

    items: list[Item]
    write_key: Any = None
    sent_at: Any = None
    shared: dict[str, Any] = field(default_factory=dict)


def read_batch(body: bytes, most: int = MAX_ITEMS) -> Upload:
    """A Segment batch: `{"batch": [message, ...], "sentAt": ..., "context": {...}}`.

    Raises:
        RequestError: 400, it is not of that form; the messages themselves may be anything. 413, there are more than
        `most`.
    """
    parts = members(body.removeprefix(BOM))
    if "batch" not in parts:
        raise RequestError(400, "The body has no `batch`. Expected an object with an array of messages under `batch`.")
    items = _items(elements(parts.pop("batch")), most)
    around = {name: value(f"`{name}`", raw) for name, raw in parts.items()}
    return Upload(items, around.pop("writeKey", None), around.pop("sentAt", None), around)


def read_message(body: bytes, most: int = MAX_ITEMS) -> Upload:
    """A single Segment message.

    Raises:
        RequestError: 400, it is not a JSON object.
    """
    found = item(body.removeprefix(BOM))
    if found.message is None:
        write_key = members(found.raw, unique=False).get("writeKey", b"null")
        return Upload([found], value("`writeKey`", write_key))
    return Upload([found], found.message.get("writeKey"))


def read_events(body: bytes, most: int = MAX_ITEMS) -> Upload:
    """Native events: one object, an array of them, or one per line.

    Raises:
        RequestError: 400, nothing in it is JSON. 413, there are more than `most`.
    """
    body = body.removeprefix(BOM).strip()
    if not body:
        raise RequestError(400, "The body is empty. Expected a JSON object, an array of them, or one per line.")
    items = _items(_values(body), most)
    if items and all(found.message is None for found in items):
        reasons = [why_not_json(found.raw) for found in items]
        if None not in reasons:
            raise RequestError(400, f"Nothing in the body is JSON: {reasons[0]}.")
    return Upload(items, items[0].message.get("writeKey") if len(items) == 1 and items[0].message else None)


def _items(values: list[bytes], most: int) -> list[Item]:
    # Before any is parsed: empty ones take a thousand times as long as their bytes to receive.
    if len(values) > most:
        raise RequestError(
            413, f"The body holds {len(values)} messages; expected at most {most}. Send smaller batches."
        )
    return [item(raw) for raw in values]


def _values(body: bytes) -> list[bytes]:
    if body.startswith(b"["):
        try:
            return elements(body)
        except RequestError:
            return _lines(body)
    return [body] if is_json(body) else _lines(body)


def _lines(body: bytes) -> list[bytes]:
    return [line for line in map(bytes.strip, body.split(b"\n")) if line]
