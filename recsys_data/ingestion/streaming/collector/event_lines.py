"""Messages -> lines of the event log.

Whatever is not a JSON object that says what it is becomes a line as it was sent: ingestion names the reason,
and its good neighbours are not lost with it.
"""

import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from recsys_data.ingestion.streaming.collector.bodies import Item, Upload
from recsys_data.ingestion.streaming.collector.segment import messages as segment
from recsys_data.ingestion.streaming.collector.segment.clock import Arrival, set_times
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.collector.segment.fields import keep, text

logger = logging.getLogger(__name__)

WRITE_KEY = re.compile(rb'"writeKey"\s*:\s*"[^"]*"')
# Batch members that are merged into the messages, as the specification says; the others are kept apart.
MERGED = ("context", "integrations")


def segment_lines(upload: Upload, arrival: Arrival, call: str | None, types: EventTypes) -> list[bytes]:
    """The lines of a Segment request.

    Args:
        upload: the request's content; its messages are used up.
        arrival: when and from whom it came.
        call: what the path says that the message is; None for a batch, whose messages say it themselves.
        types: the native types.
    """
    merged = {name: upload.shared[name] for name in MERGED if isinstance(upload.shared.get(name), dict)}
    apart = {name: value for name, value in upload.shared.items() if name not in merged}
    seen: Counter[str] = Counter()

    def events(item: Item, message: dict[str, Any]) -> list[dict[str, Any]] | None:
        kind = call or message.get("type")
        if not isinstance(kind, str) or kind not in segment.CALLS:
            return None
        if message.get("type") == kind:
            del message["type"]
        for name, shared in merged.items():
            if isinstance(message.setdefault(name, {}), dict):
                message[name] = shared | message[name]
        message["messageId"] = _message_id(message, kind, seen, arrival)
        if apart:
            keep(message, "batch", apart)
        return segment.to_events(message, kind, arrival, len(item.raw), types)

    return [line for item in upload.items for line in _lines(item, events)]


def native_lines(upload: Upload, arrival: Arrival) -> list[bytes]:
    """The lines of a native request: the events with the time of receipt, and event times corrected.

    An event that has a `client_event_ts` was corrected before, e.g. by a collector that passed it on.
    """

    def events(_: Item, event: dict[str, Any]) -> list[dict[str, Any]]:
        event["received_at"] = arrival.received
        if event.get("event_ts") is not None and event.get("client_event_ts") is None:
            sent_at = event.get("sent_at")
            set_times(event, event["event_ts"], arrival.skew_of(sent_at))
        return [event]

    return [line for item in upload.items for line in _lines(item, events)]


def _lines(item: Item, events: Callable[[Item, dict[str, Any]], list[dict[str, Any]] | None]) -> list[bytes]:
    if item.message is None:
        return [_as_sent(item.raw)]
    item.message.pop("writeKey", None)
    try:
        found = events(item, item.message)
        return [_as_sent(item.raw)] if found is None else [msgspec.json.encode(event) for event in found]
    except Exception:
        # A defect of ours, or nesting beyond what can be written: refusing would lose the neighbours too.
        logger.exception("A message could not be mapped; it is logged as it was sent.")
        return [_as_sent(item.raw)]


def _as_sent(raw: bytes) -> bytes:
    """One line, without the write key.

    Between JSON values a tab says no more than a newline, and within a string neither is JSON; a blank would make JSON
    of a string in which a newline stood.
    """
    return WRITE_KEY.sub(b'"writeKey":"removed"', raw).replace(b"\n", b"\t")


def _message_id(message: dict[str, Any], kind: str, seen: Counter[str], arrival: Arrival) -> Any:
    """The message's id, or for want of one an id that is the same when the message is sent again.

    It is made from the content. Without a time of its own, the same content is taken for the same message
    on the same day only: tomorrow's equal view is not a retry of today's.
    """
    given = message.get("messageId")
    if given not in (None, ""):
        return text(given) or given
    content = {name: value for name, value in message.items() if name not in ("messageId", "sentAt")}
    timeless = content.get("timestamp") is None and content.get("originalTimestamp") is None
    day = arrival.received[:10] if timeless else ""
    digest = blake2b(msgspec.json.encode([kind, day, content], order="deterministic"), digest_size=16)
    message_id = str(uuid.UUID(bytes=digest.digest()))
    seen[message_id] += 1
    return message_id if seen[message_id] == 1 else f"{message_id}-{seen[message_id]}"
