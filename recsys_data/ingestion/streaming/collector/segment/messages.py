"""One message of the Segment specification -> native events.

What a native event has a field for is placed there; the rest of the message stays: what the client described
in `properties` or `traits`, what surrounds it (`integrations`, `channel` ...) in `envelope`.
"""

from typing import Any

from recsys_data.ingestion.streaming.collector.segment import commerce, context, fields
from recsys_data.ingestion.streaming.collector.segment.clock import Arrival, set_times
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.collector.segment.fields import table, text

Message = dict[str, Any]
CALLS = frozenset({"track", "page", "screen", "identify", "alias", "group"})

IDS = table(("user_id", text, ("userId",)), ("anonymous_id", text, ("anonymousId",)))
LINKS = table(("previous_id", text, ("previousId",)), ("group_id", text, ("groupId",)))
NAME = table(("event_name", text, ("event",)))
PAGE_NAME = table(("event_name", text, ("name",)))
SESSION = table(("session_id", text, ("sessionId", "session_id")))


def to_events(message: Message, call: str, arrival: Arrival, size: int, types: EventTypes) -> list[dict[str, Any]]:
    """The native events of a message; an order or a product list has one per product. Uses up `message`.

    Args:
        message: carries a `messageId`, which the ids of its events are made of.
        call: one of `CALLS`.
        arrival: when and from whom the request came.
        size: bytes of the message as sent.
        types: the native types.
    """
    message_id = message.pop("messageId")
    common = _common(message, arrival)
    given, properties = _object(message, "context"), _object(message, "properties")
    common |= fields.take(given, SESSION) or fields.take(properties, SESSION)
    source = given.get("library")
    common["source"] = (text(source.get("name")) if isinstance(source, dict) else None) or "segment"
    if call == "track":
        common |= fields.take(message, NAME)
        parts = commerce.to_parts(common.get("event_name"), properties, size, types)
    elif call in ("page", "screen"):
        parts = [("", _page_view(message, properties, given, call, types))]
    else:
        parts = [("", {**_identity(message, given, call), "properties": properties})]
    _add_context(common, given, arrival)
    envelope = {name: value for name, value in message.items() if value or isinstance(value, int | float)}
    if envelope:
        common["envelope"] = envelope
    return [_event(message_id, suffix, common, part) for suffix, part in parts]


def _common(message: Message, arrival: Arrival) -> dict[str, Any]:
    common = fields.take(message, IDS)
    sent_at, skew = arrival.sent_at, arrival.skew
    if sent_at is None:
        sent_at = message.pop("sentAt", None)
        skew = arrival.skew_of(sent_at)
    if sent_at is not None:
        common["sent_at"] = sent_at
    stated = "originalTimestamp" if message.get("timestamp") is None else "timestamp"
    client_time = message.pop(stated, None)
    if client_time is None:
        common["event_ts"] = arrival.received
    else:
        set_times(common, client_time, skew)
    common["received_at"] = arrival.received
    return common


def _page_view(
    message: Message, properties: dict[str, Any], given: dict[str, Any], call: str, types: EventTypes
) -> dict[str, Any]:
    """A page or screen call; where its context does not say which page it was, its properties do."""
    name = fields.take(message, PAGE_NAME)
    if call == "screen":
        fields.keep(message, "type", call)
    known = {} if given.get("page") is None else given["page"]
    if isinstance(known, dict):
        described = {"path": name["event_name"]} if name else {}
        described |= {key: properties[key] for key in ("path", "url", "referrer") if key in properties}
        given["page"] = described | known
    return {**commerce.single("page_view", properties, commerce.EVENT_COLUMNS, types), **name}


def _identity(message: Message, given: dict[str, Any], call: str) -> dict[str, Any]:
    """An identify, alias or group call; some SDKs put the traits of an identify call into its context."""
    part = {"type": call, **fields.take(message, LINKS)}
    traits = _object(message, "traits")
    if call == "identify" and not traits:
        traits = _object(given, "traits")
    if traits:
        part["traits"] = traits
    return part


def _add_context(common: dict[str, Any], given: dict[str, Any], arrival: Arrival) -> None:
    native = context.to_native(given)
    if arrival.user_agent and "user_agent" not in native:
        native["user_agent"] = arrival.user_agent
    if arrival.ip and "ip" not in native:
        native["ip"] = arrival.ip
    if native:
        common["context"] = native


def _event(message_id: Any, suffix: str, common: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if not part["properties"]:
        del part["properties"]
    return {"event_id": f"{message_id}{suffix}" if suffix else message_id, **common, **part}


def _object(message: Message, name: str) -> dict[str, Any]:
    """Take an object out of the message; anything else under that name stays there."""
    return message.pop(name) if isinstance(message.get(name), dict) else {}
