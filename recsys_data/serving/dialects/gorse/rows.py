"""Gorse's items and users: rows of `item_catalog` and `user_profiles`, and back.

`Comment` is the title of an item, `Categories` its path, `IsHidden` that it is not available, `Timestamp` when it was
created. `Labels` are kept as JSON in `attributes`.
"""

from typing import Any

import msgspec

from recsys_data.ingestion.streaming.collector.requests import RequestError
from recsys_data.ingestion.streaming.collector.segment.clock import to_text
from recsys_data.serving.dialects.client_events import moment_of
from recsys_data.serving.dialects.gorse.wire import Item, ItemPatch, User, UserPatch, check_labels

NO_TIME = "0001-01-01T00:00:00Z"
LABELS, SUBSCRIBE, COMMENT = "labels", "subscribe", "comment"


def item_row(item: Item | ItemPatch) -> dict[str, Any]:
    """The columns that an item or a change of one names.

    Raises:
        RequestError: 400, labels or time make no sense.
    """
    check_labels(item.labels)
    row = {
        "title": item.comment or None,
        "category_path": item.categories,
        "available": None if item.is_hidden is None else not item.is_hidden,
        "created_at": timestamp_text(item.timestamp) if item.timestamp else None,
        "attributes": {LABELS: _json(item.labels)} if item.labels is not None else None,
    }
    return {name: value for name, value in row.items() if value is not None}


def item_of(item_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """The item of a row."""
    attributes = row.get("attributes", {})
    return {
        "ItemId": item_id,
        "IsHidden": row.get("available") is False,
        "Categories": row.get("category_path"),
        "Timestamp": go_time(row.get("created_at")),
        "Labels": _value(attributes.get(LABELS)),
        "Comment": row.get("title", ""),
    }


def user_row(user: User | UserPatch) -> dict[str, Any]:
    """The columns of a user.

    Raises:
        RequestError: 400, the labels make no sense.
    """
    check_labels(user.labels)
    attributes = {LABELS: user.labels, SUBSCRIBE: user.subscribe}
    kept = {name: _json(value) for name, value in attributes.items() if value is not None}
    if user.comment:
        kept[COMMENT] = user.comment
    return {"attributes": kept} if kept else {}


def user_of(user_id: str, row: dict[str, Any]) -> dict[str, Any]:
    """The user of a row."""
    attributes = row.get("attributes", {})
    return {
        "UserId": user_id,
        "Labels": _value(attributes.get(LABELS)),
        "Subscribe": _value(attributes.get(SUBSCRIBE)),
        "Comment": attributes.get(COMMENT, ""),
    }


def timestamp_text(given: str) -> str:
    """A time of a client, as events and rows have it.

    Raises:
        RequestError: 400, it cannot be read.
    """
    moment = moment_of(given)
    if moment is None:
        raise RequestError(400, f'Could not find format for "{given}"')
    return to_text(moment)


def go_time(text: str | None) -> str:
    """A time as Go writes it.

    >>> go_time("2022-08-07T00:26:46.000Z"), go_time("2022-08-07T00:26:46.250Z"), go_time(None)
    ('2022-08-07T00:26:46Z', '2022-08-07T00:26:46.25Z', '0001-01-01T00:00:00Z')
    """
    return text.removesuffix("Z").rstrip("0").rstrip(".") + "Z" if text and "." in text else text or NO_TIME


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _value(text: str | None) -> Any:
    try:
        return msgspec.json.decode(text) if text is not None else None
    except msgspec.DecodeError:
        # Another client wrote it.
        return text
