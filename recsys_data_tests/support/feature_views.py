"""Feature views for tests, written as a user would, and a small lake that they are computed from."""

from collections.abc import Mapping
from typing import Any

from recsys_data_tests.support.contract_files import odcs

FEATURE_TS = {
    "name": "feature_ts",
    "logicalType": "timestamp",
    "primaryKey": True,
    "required": True,
    "partitioned": True,
}


def key(name: str) -> dict[str, Any]:
    return {"name": name, "logicalType": "string", "primaryKey": True, "required": True}


def feature(name: str, kind: str = "integer", **options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "logicalType": kind,
        "customProperties": [{"property": one, "value": value} for one, value in options.items()],
    }


def view_file(name: str, *columns: Mapping[str, Any], of: str = "interactions", **extra: Any) -> dict[str, Any]:
    """A contract of a feature view; `columns` without `feature_ts`."""
    custom = [{"property": "featuresOf", "value": of}]
    custom += [{"property": one, "value": value} for one, value in extra.items()]
    keys = [column for column in columns if column.get("primaryKey")]
    rest = [column for column in columns if not column.get("primaryKey")]
    return odcs(name, *keys, FEATURE_TS, *rest, customProperties=custom)


CLICKS = view_file(
    "item_clicks",
    key("item_id"),
    feature("clicks_1h", function="count", filter="type = 'click'", window={"rolling": "1h"}),
    feature("events_7d", function="count", window={"sawtooth": "7d"}),
    feature("spent", "number", function="sum", source="value", filter="type = 'purchase'"),
    feature("users", function="approx_count_distinct", source="user_id"),
    feature("last_type", "string", function="last", source="type"),
    feature("recent", "array", function="last_n", n=2, source="user_id") | {"items": {"logicalType": "string"}},
    feature("share", "number", expression="clicks_1h / nullif(events_7d, 0)"),
)
USERS = view_file("user_events", key("user_id"), feature("events", function="count"))
