"""`personalize-events`: PutEvents -> event log; PutItems and PutUsers -> the state that snapshots are made of.

An event without a user is known by its session. `impression` becomes impressions, unless the event names a
recommendation, whose answer was logged when it was given. `sentAt` is when the event happened.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from recsys_data.contracts.model import Contract
from recsys_data.ingestion.streaming.collector.bodies import NOT_JSON
from recsys_data.ingestion.streaming.collector.segment.clock import to_text
from recsys_data.serving.dialects.client_events import content_id, event_line, impression_lines, moment_of_epoch
from recsys_data.serving.dialects.client_rows import to_row
from recsys_data.serving.dialects.declared import Dialects
from recsys_data.serving.dialects.personalize.errors import invalid
from recsys_data.serving.dialects.personalize.shapes import Event, PutEvents, PutItems, PutUsers

SOURCE = "personalize"


def event_lines(asked: PutEvents, dialects: Dialects) -> list[bytes]:
    """The lines of a request's events.

    Raises:
        AwsError: an event makes no sense.
    """
    received_at = datetime.now(UTC)
    lines: list[bytes] = []
    for place, event in enumerate(asked.event_list):
        lines += _lines(event, asked, f"eventList[{place}]", dialects, received_at)
    return lines


def _lines(event: Event, asked: PutEvents, where: str, dialects: Dialects, received_at: datetime) -> list[bytes]:
    moment = moment_of_epoch(event.sent_at, 1.0)
    if moment is None:
        raise invalid(f"{where}.sentAt is {event.sent_at}; expected seconds since 1970.")
    properties = _properties(event.properties, f"{where}.properties")
    kept = {"trackingId": asked.tracking_id, "metricAttribution": event.metric_attribution}
    event_id = event.event_id or content_id(asked.user_id, asked.session_id, event)
    who = {
        "user_id": asked.user_id,
        "anonymous_id": None if asked.user_id else asked.session_id,
        "session_id": asked.session_id,
        "event_ts": to_text(moment),
        "source": SOURCE,
    }
    columns = {
        "event_id": event_id,
        "item_id": event.item_id,
        "recommendation_id": event.recommendation_id,
        "envelope": {name: value for name, value in kept.items() if value is not None},
    }
    # The members of an event are also allowed among its properties.
    value = event.event_value if event.event_value is not None else properties.pop("eventValue", None)
    if event.item_id is not None:
        properties.pop("itemId", None)
    lines = [event_line(event.event_type, columns | who, properties, dialects, received_at, value)]
    if event.impression and not event.recommendation_id:
        lines += impression_lines(event_id, event.impression, who, received_at)
    return lines


def item_rows(asked: PutItems, contract: Contract) -> dict[str, dict[str, Any]]:
    """Rows of items, by their ids.

    Raises:
        AwsError: the properties of one are not a JSON object.
    """
    return {
        one.item_id: to_row(contract, _properties(one.properties, f"items[{place}].properties"))
        for place, one in enumerate(asked.items)
    }


def user_rows(asked: PutUsers, contract: Contract) -> dict[str, dict[str, Any]]:
    """Rows of users, by their ids.

    Raises:
        AwsError: as `item_rows`.
    """
    return {
        one.user_id: to_row(contract, _properties(one.properties, f"users[{place}].properties"))
        for place, one in enumerate(asked.users)
    }


def _properties(given: str | None, where: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(given) if given is not None else {}
    except NOT_JSON as error:
        raise invalid(f"{where} is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise invalid(f"{where} is not a JSON object.")
    return found
