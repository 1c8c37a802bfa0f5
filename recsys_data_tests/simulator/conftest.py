"""An independent reader of event lines: it knows the published rules and nothing of the simulator."""

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
STATEMENTS = ("identify", "alias", "group")
TYPES = (
    "impression", "view", "click", "add_to_cart", "remove_from_cart", "purchase", "refund", "rating", "like",
    "dislike", "search", "dwell", "scroll", "tag", "share", "bookmark", "page_view", "custom",
)  # fmt: skip
TEXT = [
    "event_id", "type", "event_name", "user_id", "anonymous_id", "item_id", "session_id", "query", "tag",
    "currency", "list_id", "order_id", "recommendation_id", "source", "previous_id", "group_id", "event_ts",
    "sent_at", "client_event_ts", "model", "variant",
]  # fmt: skip
CONTEXT_TEXT = ["timezone", "user_agent", "page", "url", "referrer", "locale", "network", "ip"]
CONTEXT_PARTS = {
    "device": ["type", "manufacturer", "model", "os", "os_version", "browser"],
    "app": ["name", "version"],
    "campaign": ["source", "medium", "name"],
    "session": ["goal", "mode"],
    "location": ["country", "region", "city"],
}


class Rejected(Exception):
    """The reason a line is a dead letter."""


def refuse(reason: str, when: bool) -> None:
    if when:
        raise Rejected(reason)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse("duplicate_key", len({name for name, _ in pairs}) < len(pairs))
    return dict(pairs)


def no_constant(name: str) -> None:
    raise ValueError(name)


def parse(line: bytes) -> dict[str, Any]:
    refuse("event_too_large", len(line) > 36 * 1024)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise Rejected("invalid_utf8") from None
    try:
        event = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except ValueError:
        raise Rejected("malformed_json") from None
    refuse("not_an_object", not isinstance(event, dict))
    return event


def check_types(event: dict[str, Any]) -> None:
    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def each(of: dict[str, Any], names: list[str], good: Any) -> None:
        for name in names:
            refuse("wrong_type", of.get(name) is not None and not good(of[name]))

    def is_text(value: Any) -> bool:
        return isinstance(value, str)

    def is_object(value: Any) -> bool:
        return isinstance(value, dict)

    each(event, TEXT, is_text)
    each(event, ["quantity", "dwell_ms", "position"], whole)
    each(event, ["value", "price", "rating", "scroll_depth", "score", "propensity"], number)
    each(event, ["context", "properties", "traits"], is_object)
    context = event.get("context") or {}
    each(context, CONTEXT_TEXT, is_text)
    each(context, [*CONTEXT_PARTS, "consent"], is_object)
    for part, names in CONTEXT_PARTS.items():
        each(context.get(part) or {}, names, is_text)
    each(context.get("location") or {}, ["lat", "lon"], number)
    each(context.get("consent") or {}, ["location"], lambda value: isinstance(value, bool))


def moment(event: dict[str, Any], name: str) -> datetime | None:
    text = event.get(name)
    if text is None or (text == "" and name == "event_ts"):
        return None
    try:
        refuse(f"unparseable_{name}", not RFC3339.fullmatch(text))
        return datetime.fromisoformat(text)
    except ValueError:
        raise Rejected(f"unparseable_{name}") from None


def exposed(event: dict[str, Any], address: bool = False) -> bool:
    """Whether there are coordinates (or, with `address`, an internet address) without consent."""
    context = event.get("context") or {}
    location, consent = context.get("location") or {}, context.get("consent") or {}
    private = [location.get("lat"), location.get("lon"), context.get("ip") if address else None]
    return consent.get("location") is not True and private != [None, None, None]


def check_rules(event: dict[str, Any], kind: str, when: datetime, sent: datetime | None) -> None:
    context = event.get("context") or {}
    refuse("event_id_too_long", len(event["event_id"]) > 256)
    refuse("missing_actor", not (event.get("user_id") or event.get("anonymous_id")))
    if kind in STATEMENTS:
        refuse("missing_previous_id", kind == "alias" and not event.get("previous_id"))
        refuse("missing_group_id", kind == "group" and not event.get("group_id"))
    else:
        refuse("missing_item", kind not in ("search", "page_view", "custom") and not event.get("item_id"))
        refuse("missing_event_name", kind == "custom" and not event.get("event_name"))
        rating = event.get("rating")
        refuse("rating_out_of_range", kind == "rating" and not (rating is not None and 0 <= rating <= 10))
        refuse("negative_value", (event.get("value") or 0) < 0)
        refuse("scroll_depth_out_of_range", not 0 <= (event.get("scroll_depth") or 0) <= 1)
        refuse("propensity_out_of_range", not 0 < (1 if event.get("propensity") is None else event["propensity"]) <= 1)
        refuse("negative_dwell", (event.get("dwell_ms") or 0) < 0)
    refuse("event_before_first_day", when < datetime(1995, 1, 1, tzinfo=UTC))
    refuse("event_in_future", when > (sent or datetime.now(UTC)) + timedelta(hours=24))
    location = context.get("location") or {}
    if not exposed(event):
        wrong = abs(location.get("lat") or 0) > 90 or abs(location.get("lon") or 0) > 180
        refuse("coordinates_out_of_range", wrong)


def validate(line: bytes) -> tuple[dict[str, Any], datetime, datetime | None]:
    """The event with its own time and the time it was sent; raises `Rejected`."""
    event = parse(line)
    check_types(event)
    when, sent, _ = (moment(event, name) for name in ("event_ts", "sent_at", "client_event_ts"))
    for name in ("event_id", "type", "event_ts"):
        refuse(f"missing_{name}", not event.get(name))
    assert when is not None
    refuse("unknown_type", event["type"] not in (*TYPES, *STATEMENTS))
    check_rules(event, event["type"], when, sent)
    return event, when, sent


def read(lines: list[bytes]) -> dict[str, Any]:
    """What the lines hold, in the form of `Truth.to_dict`."""
    dead, by_type, ids = Counter(), Counter(), set()
    users, items, times = set(), set(), []
    contexts = late = redacted = located = duplicates = 0
    for line in lines:
        try:
            event, when, sent = validate(line)
        except Rejected as reason:
            dead[str(reason)] += 1
            continue
        if event["event_id"] in ids:
            duplicates += 1
            continue
        ids.add(event["event_id"])
        by_type[event["type"]] += 1
        times.append(when)
        contexts += event.get("context") is not None
        late += sent is not None and sent - when >= timedelta(days=1)
        located += exposed(event)
        redacted += exposed(event, address=True)
        if event["type"] not in STATEMENTS:
            users |= {event.get("user_id")} - {None}
            items |= {event.get("item_id")} - {None}
    return {
        "events": len(lines),
        "accepted": len(ids),
        "duplicates": duplicates,
        "dead_letters": dict(dead),
        "interactions": sum(n for kind, n in by_type.items() if kind not in STATEMENTS),
        "identities": sum(n for kind, n in by_type.items() if kind in STATEMENTS),
        "contexts": contexts,
        "late": late,
        "redacted": redacted,
        "redacted_coordinates": located,
        "first_event_ts": utc(min(times, default=None)),
        "last_event_ts": utc(max(times, default=None)),
        "users": len(users),
        "items": len(items),
        "by_type": dict(by_type),
    }


def utc(when: datetime | None) -> str | None:
    return when and f"{when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def reason(line: bytes) -> str | None:
    """Why a line is a dead letter; None if it is not."""
    try:
        validate(line)
    except Rejected as refused:
        return str(refused)
    return None


@pytest.fixture(scope="session")
def read_lines() -> Callable[[list[bytes]], dict[str, Any]]:
    return read


@pytest.fixture(scope="session")
def reason_of() -> Callable[[bytes], str | None]:
    return reason
