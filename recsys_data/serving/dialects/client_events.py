"""Events of other systems' clients -> lines of the event log.

What a native event has a column for is placed there; the rest stays in `properties`.
"""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from recsys_data.ingestion.streaming.collector.segment.clock import to_text
from recsys_data.ingestion.streaming.collector.segment.commerce import AMOUNT, EVENT_COLUMNS
from recsys_data.ingestion.streaming.collector.segment.fields import between, number, take
from recsys_data.serving.dialects.declared import Dialects

MAX_RATING = 10


def event_line(
    name: str,
    columns: dict[str, Any],
    properties: dict[str, Any],
    dialects: Dialects,
    received_at: datetime,
    value: object = None,
) -> bytes:
    """The line of an event.

    Args:
        name: what the client calls its type.
        columns: those that are known; None: not given. `event_id` and `event_ts` are among them.
        properties: what else the client says; is used up.
        dialects: say what the name means.
        received_at: by the server.
        value: what it is worth, or the score of a rating.
    """
    native = take(properties, EVENT_COLUMNS) | {key: given for key, given in columns.items() if given is not None}
    score = between(number, 0, MAX_RATING)(value)
    if score is not None and dialects.type_of(name, native | {"rating": score}) == "rating":
        native["rating"] = score
    elif (amount := AMOUNT(value)) is not None:
        native["value"] = amount
    event = {"type": dialects.type_of(name, native), "event_name": name, **native, "received_at": to_text(received_at)}
    if properties:
        event["properties"] = properties
    return msgspec.json.encode(event)


def impression_lines(
    list_id: str, items: Iterable[str], columns: dict[str, Any], received_at: datetime, first: int = 1
) -> list[bytes]:
    """The lines of a list that was shown: one impression for each item, whose event id ends with its position.

    Args:
        list_id: identifies the list; begins the ids of the events.
        items: in the order in which they were shown.
        columns: those that all have; None: not given.
        received_at: by the server.
        first: position of the first item.
    """
    given = {key: value for key, value in columns.items() if value is not None}
    received = to_text(received_at)
    return [
        msgspec.json.encode(
            {
                "event_id": f"{list_id}-{position}",
                "type": "impression",
                **given,
                "item_id": item,
                "position": position,
                "received_at": received,
            }
        )
        for position, item in enumerate(items, first)
    ]


def content_id(*content: object) -> str:
    """An id that is the same for the same content, for events that have none of their own.

    >>> content_id("like", "u1", "i1") == content_id("like", "u1", "i1") != content_id("like", "u1", "i2")
    True
    """
    encoded = msgspec.json.encode(content, order="deterministic")
    return str(uuid.UUID(bytes=blake2b(encoded, digest_size=16).digest()))


def moment_of(value: object) -> datetime | None:
    """A time as clients write it: ISO 8601, in UTC where it has no offset; None for anything else.

    >>> moment_of("2026-01-02 03:04:05"), moment_of("2026-01-02T03:04:05+01:00"), moment_of("yesterday")
    (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), \
datetime.datetime(2026, 1, 2, 2, 4, 5, tzinfo=datetime.timezone.utc), None)
    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment and (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def moment_of_epoch(value: object, unit: float) -> datetime | None:
    """A time as a number of `unit` seconds since 1970; None for anything else.

    >>> moment_of_epoch(1767323045000, 0.001)
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value * unit, UTC)
    except (ValueError, OverflowError, OSError):
        return None
