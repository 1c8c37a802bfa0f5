"""The `context` of a Segment message in the shape of a native event's context.

Segment keeps objects where the native event has plain columns (`page`, `network`, `referrer`). What has a
column is placed there; everything else stays, under its own name or, where that name is a column's, under
`<name>_details`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from recsys_data.ingestion.streaming.collector.segment import fields

Context = dict[str, Any]
Handler = Callable[[Context, Any], None]

DEVICE = ("type", "manufacturer", "model", "os", "os_version", "browser")
APP = ("name", "version")
CAMPAIGN = ("source", "medium", "name")
SESSION = ("goal", "mode")
PLACE = ("country", "region", "city")
COORDINATES = {"latitude": "lat", "longitude": "lon", "lat": "lat", "lon": "lon"}


def to_native(given: Mapping[str, Any]) -> Context:
    """Map a Segment context; the result shares no changed object with `given`.

    >>> to_native({"os": {"name": "iOS", "version": 17}, "page": {"path": "/p", "title": "P"}})
    {'device': {'os': 'iOS', 'os_version': '17'}, 'page': '/p', 'page_details': {'title': 'P'}}
    """
    context: Context = {}
    for name, value in given.items():
        if value is None:
            continue
        handle = HANDLERS.get(name)
        if handle:
            handle(context, value)
        else:
            fields.keep(context, name, value)
    return context


def place(target: Context, column: str, value: object) -> bool:
    """Put `value` into a text column that is still free; says whether it did."""
    found = fields.text(value)
    if column in target or (found is None and value != ""):
        return False
    target[column] = found or ""
    return True


def text_column(column: str) -> Handler:
    def handle(context: Context, value: Any) -> None:
        if not place(context, column, value):
            fields.keep(context, f"{column}_details", value)

    return handle


def group(name: str, columns: tuple[str, ...]) -> Handler:
    """Of an object that has the native name already; only its columns are read."""

    def handle(context: Context, value: Any) -> None:
        if not isinstance(value, dict):
            return fields.keep(context, f"{name}_details", value)
        target = context.setdefault(name, {})
        for key, part in value.items():
            if key not in columns:
                fields.keep(target, key, part)
            elif part is not None and not place(target, key, part):
                fields.keep(target, f"{key}_details", part)
        return None

    return handle


def os(context: Context, value: Any) -> None:
    parts = dict(value) if isinstance(value, dict) else {"name": value}
    device = context.setdefault("device", {})
    for key, column in (("name", "os"), ("version", "os_version")):
        if key in parts and place(device, column, parts[key]):
            del parts[key]
    if parts:
        fields.keep(context, "os_details", parts)


def page(context: Context, value: Any) -> None:
    parts = dict(value) if isinstance(value, dict) else {"path": value}
    for key, column in (("path", "page"), ("url", "url"), ("referrer", "referrer")):
        if key in parts and place(context, column, parts[key]):
            del parts[key]
    if parts:
        fields.keep(context, "page_details", parts)


def referrer(context: Context, value: Any) -> None:
    parts = dict(value) if isinstance(value, dict) else {"url": value}
    for key in ("url", "link"):
        if key in parts and place(context, "referrer", parts[key]):
            del parts[key]
            break
    if parts:
        fields.keep(context, "referrer_details", parts)


def network(context: Context, value: Any) -> None:
    if not isinstance(value, dict):
        return text_column("network")(context, value)
    kind = next((kind for kind in ("wifi", "cellular") if value.get(kind) is True), None)
    if kind:
        place(context, "network", kind)
    fields.keep(context, "network_details", value)
    return None


def location(context: Context, value: Any) -> None:
    if not isinstance(value, dict):
        return fields.keep(context, "location_details", value)
    parts = dict(value)
    target = context.setdefault("location", {})
    for key, column in COORDINATES.items():
        degrees = fields.number(parts.get(key))
        if degrees is not None and column not in target:
            target[column] = degrees
            del parts[key]
    for key, part in parts.items():
        if key in PLACE and place(target, key, part):
            continue
        if part is not None:
            fields.keep(target, f"{key}_details" if key in PLACE or key in COORDINATES else key, part)
    return None


def consent(context: Context, value: Any) -> None:
    if not isinstance(value, dict):
        return fields.keep(context, "consent_details", value)
    target = dict(value)
    if "location" in target and not isinstance(target["location"], bool):
        fields.keep(target, "location_details", target.pop("location"))
    preferences = target.get("categoryPreferences")
    if isinstance(preferences, dict) and "location" not in target:
        for category in ("location", "Location"):
            if isinstance(preferences.get(category), bool):
                target["location"] = preferences[category]
    context["consent"] = target
    return None


HANDLERS: dict[str, Handler] = {
    "userAgent": text_column("user_agent"),
    "user_agent": text_column("user_agent"),
    "ip": text_column("ip"),
    "locale": text_column("locale"),
    "timezone": text_column("timezone"),
    "url": text_column("url"),
    "app": group("app", APP),
    "campaign": group("campaign", CAMPAIGN),
    "consent": consent,
    "device": group("device", DEVICE),
    "location": location,
    "network": network,
    "os": os,
    "page": page,
    "referrer": referrer,
    "session": group("session", SESSION),
}
