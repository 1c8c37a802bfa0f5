"""Request bodies -> the messages in them, one by one, and what they have in common."""

from dataclasses import dataclass, field
from typing import Any

from recsys_data.ingestion.streaming.collector import bodies as parse
from recsys_data.ingestion.streaming.collector.bodies import Item
from recsys_data.ingestion.streaming.collector.requests import Refused

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
        Refused: 400, it is not of that form; the messages themselves may be anything. 413, there are more than `most`.
    """
    members = parse.members(body.removeprefix(parse.BOM))
    if "batch" not in members:
        raise Refused(400, "The body has no `batch`. Expected an object with an array of messages under `batch`.")
    items = _items(parse.elements(members.pop("batch")), most)
    around = {name: parse.value(f"`{name}`", raw) for name, raw in members.items()}
    return Upload(items, around.pop("writeKey", None), around.pop("sentAt", None), around)


def read_message(body: bytes, most: int = MAX_ITEMS) -> Upload:
    """A single Segment message.

    Raises:
        Refused: 400, it is no JSON object.
    """
    found = parse.item(body.removeprefix(parse.BOM))
    if found.message is None:
        write_key = parse.members(found.raw, unique=False).get("writeKey", b"null")
        return Upload([found], parse.value("`writeKey`", write_key))
    return Upload([found], found.message.get("writeKey"))


def read_events(body: bytes, most: int = MAX_ITEMS) -> Upload:
    """Native events: one object, an array of them, or one per line.

    Raises:
        Refused: 400, nothing in it is JSON. 413, there are more than `most`.
    """
    body = body.removeprefix(parse.BOM).strip()
    if not body:
        raise Refused(400, "The body is empty. Expected a JSON object, an array of them, or one per line.")
    items = _items(_values(body), most)
    if items and all(found.message is None for found in items):
        reasons = [parse.why_not_json(found.raw) for found in items]
        if None not in reasons:
            raise Refused(400, f"Nothing in the body is JSON: {reasons[0]}.")
    return Upload(items, items[0].message.get("writeKey") if len(items) == 1 and items[0].message else None)


def _items(values: list[bytes], most: int) -> list[Item]:
    # Before any is parsed: empty ones take a thousand times as long as their bytes to receive.
    if len(values) > most:
        raise Refused(413, f"The body holds {len(values)} messages; expected at most {most}. Send smaller batches.")
    return [parse.item(raw) for raw in values]


def _values(body: bytes) -> list[bytes]:
    if body.startswith(b"["):
        try:
            return parse.elements(body)
        except Refused:
            return _lines(body)
    return [body] if parse.is_json(body) else _lines(body)


def _lines(body: bytes) -> list[bytes]:
    return [line for line in map(bytes.strip, body.split(b"\n")) if line]
