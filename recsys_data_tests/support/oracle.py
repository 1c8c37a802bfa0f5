"""What should become of a line, by the description of the native event alone, with the standard library.

Written apart from the code under test: plain Python over `json`, one rule after the other.
"""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

ACCEPTED = "accepted"
STATEMENTS = ("identify", "alias", "group")
TYPES = (
    *("impression", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "refund", "rating", "like"),
    *("dislike", "search", "dwell", "scroll", "tag", "share", "bookmark", "page_view", "custom"),
)
TEXT, TIME, WHOLE, NUMBER, TRUTH, OBJECT = "text", "time", "whole", "number", "truth", "object"
CONTEXT = {
    **dict.fromkeys(("timezone", "user_agent", "page", "url", "referrer", "locale", "network", "ip"), TEXT),
    "device": dict.fromkeys(("type", "manufacturer", "model", "os", "os_version", "browser"), TEXT),
    "app": dict.fromkeys(("name", "version"), TEXT),
    "campaign": dict.fromkeys(("source", "medium", "name"), TEXT),
    "session": dict.fromkeys(("goal", "mode"), TEXT),
    "consent": {"location": TRUTH},
    "location": {**dict.fromkeys(("country", "region", "city"), TEXT), "lat": NUMBER, "lon": NUMBER},
}
EVENT: dict[str, Any] = {
    **dict.fromkeys(("event_id", "type", "event_name", "user_id", "anonymous_id", "item_id", "session_id"), TEXT),
    **dict.fromkeys(("currency", "query", "tag", "list_id", "order_id", "recommendation_id", "source"), TEXT),
    **dict.fromkeys(("model", "variant"), TEXT),
    **dict.fromkeys(("previous_id", "group_id"), TEXT),
    **dict.fromkeys(("event_ts", "client_event_ts", "sent_at", "received_at"), TIME),
    **dict.fromkeys(("quantity", "dwell_ms", "position"), WHOLE),
    **dict.fromkeys(("value", "price", "rating", "scroll_depth", "score", "propensity"), NUMBER),
    **dict.fromkeys(("properties", "traits"), OBJECT),
    "context": CONTEXT,
}
STAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class Members(list):
    """The members of an object, with those that stand twice."""


def validate(line: bytes, first_day: datetime, now: datetime, max_bytes: int) -> set[str]:
    """The reasons that are right for a line; several where the order of its faults in the text decides."""
    if len(line) > max_bytes:
        return {"event_too_large"}
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return {"invalid_utf8"}
    event = strict(text)
    if event is None:
        return {"malformed_json"}
    if not isinstance(event[0], Members):
        return {"not_an_object"}
    values: dict[str, Any] = {}
    faults = set(take(event[0], EVENT, (), values))
    return faults or {reason_of(values, first_day, now)}


def strict(text: str) -> tuple[Any] | None:
    """The value of a JSON text by RFC 8259, in a tuple; None where it is none, or nested without measure."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        value = json.loads(text, object_pairs_hook=Members, parse_constant=refuse, parse_int=number)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return None if depth(value) > 100 else (value,)


def number(text: str) -> int | float:
    return int(text) if len(text) < 300 else float(text)


def depth(value: Any) -> int:
    inner = [one for _, one in value] if isinstance(value, Members) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def take(members: Members, shape: dict[str, Any], path: tuple[str, ...], values: dict[str, Any]) -> set[str]:
    """Put modelled values into `values` by their path; returns what is wrong with them."""
    faults: set[str] = set()
    given = [(key, value) for key, value in members if value is not None]
    if len({key for key, _ in given}) < len(given):
        faults.add("duplicate_key")
    for key, value in given:
        kind = shape.get(key)
        if isinstance(kind, dict):
            if isinstance(value, Members):
                faults |= take(value, kind, (*path, key), values)
            else:
                faults.add("wrong_type")
        elif kind is not None:
            if not fits(kind, value):
                faults.add("wrong_type")
            values[".".join((*path, key))] = value
        if not isinstance(kind, dict) and repeats(value):
            faults.add("duplicate_key")
    return faults


def repeats(value: Any) -> bool:
    """Whether an object within a value that is kept as it stands has a key twice."""
    if isinstance(value, Members):
        return len({key for key, _ in value}) < len(value) or any(repeats(one) for _, one in value)
    return isinstance(value, list) and any(map(repeats, value))


def fits(kind: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (TEXT, TIME):
        return isinstance(value, str)
    if kind == TRUTH:
        return isinstance(value, bool)
    if kind == OBJECT:
        return isinstance(value, Members)
    if not is_number or not math.isfinite(value):
        return False
    return kind == NUMBER or (value == math.floor(value) and -(2**63) <= value < 2**63)


def moment(text: str) -> datetime | None:
    """RFC 3339 as a UTC time, to the microsecond."""
    match = STAMP.fullmatch(text)
    if not match:
        return None
    *date_and_time, fraction, offset = match.groups()
    year, month, day, hour, minute, second = map(int, date_and_time)
    shift = timedelta(0)
    if offset not in "Zz":
        hours, minutes = int(offset[1:3]), int(offset[4:])
        if hours > 23 or minutes > 59:
            return None
        shift = timedelta(hours=hours, minutes=minutes) * (-1 if offset[0] == "+" else 1)
    leap = second == 60
    try:
        whole = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC) + shift
        whole += timedelta(seconds=leap, microseconds=int((fraction or "0")[:6].ljust(6, "0")))
    except (ValueError, OverflowError):
        return None
    return None if leap and (whole.day, whole.hour, whole.minute) != (1, 0, 0) else whole


def reason_of(values: dict[str, Any], first_day: datetime, now: datetime) -> str:
    times = {name: values.get(name) or None for name in ("event_ts", "client_event_ts", "sent_at", "received_at")}
    moments = {name: moment(text) if text else None for name, text in times.items()}
    for name, text in times.items():
        if text and moments[name] is None:
            return f"unparseable_{name}"
    for name in ("event_id", "type", "event_ts"):
        if not values.get(name):
            return f"missing_{name}"
    kind, happened = values["type"], moments["event_ts"]
    assert happened is not None
    if kind not in TYPES and kind not in STATEMENTS:
        return "unknown_type"
    broken = {
        "event_id_too_long": len(values["event_id"]) > 256,
        "missing_actor": not values.get("user_id") and not values.get("anonymous_id"),
    }
    if kind in STATEMENTS:
        broken["missing_previous_id"] = kind == "alias" and not values.get("previous_id")
        broken["missing_group_id"] = kind == "group" and not values.get("group_id")
    else:
        item = kind in ("search", "page_view", "custom") or bool(values.get("item_id"))
        broken["missing_item"] = not item
        broken["missing_event_name"] = kind == "custom" and not values.get("event_name")
        broken["rating_out_of_range"] = kind == "rating" and not 0 <= values.get("rating", -1) <= 10
        broken["negative_value"] = values.get("value", 0) < 0
        broken["scroll_depth_out_of_range"] = not 0 <= values.get("scroll_depth", 0) <= 1
        broken["propensity_out_of_range"] = not 0 < values.get("propensity", 1) <= 1
        broken["negative_dwell"] = values.get("dwell_ms", 0) < 0
    broken["event_before_first_day"] = happened < first_day
    received = moments["received_at"] or moments["sent_at"] or now
    broken["event_in_future"] = happened - received > timedelta(hours=24)
    location = "context.location."
    exact = values.get("context.consent.location") is True
    latitude, longitude = values.get(location + "lat", 0), values.get(location + "lon", 0)
    broken["coordinates_out_of_range"] = exact and not (-90 <= latitude <= 90 and -180 <= longitude <= 180)
    return next((reason for reason, is_broken in broken.items() if is_broken), ACCEPTED)
