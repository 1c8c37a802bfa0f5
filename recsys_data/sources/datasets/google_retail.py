"""User events of Google's Retail API -> native events, one for each product that they name.

Data flow: JSON lines -> `events_of` -> sorted by time. What has a column goes there; everything else is kept
under `properties` by its own name. Products of a search are what it showed: one `impression` each, with its
position, after the `search`. The revenue of an order is the `value` of its product if there is just one;
it is not divided. An unknown eventType is passed on as the type, and a line that is not a JSON object as it is,
for ingestion to reject; lines without a readable time come first.
The format has no event ids: an event is named by a hash of its line, which repetition of that line it is, and
its place among the events of the line.
Format: https://cloud.google.com/retail/docs/user-events. Run it alone: `recsys-data load google-retail FILE`.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from recsys_data.days import to_microseconds
from recsys_data.errors import UserError
from recsys_data.sources.datasets import Import
from recsys_data.sources.datasets.files import line_batches
from recsys_data.sources.datasets.staging import Staging

SOURCE = "google-retail"
# eventType -> type, kind of page
TYPES = {
    "home-page-view": ("page_view", "home"),
    "category-page-view": ("page_view", "category"),
    "shopping-cart-page-view": ("page_view", "cart"),
    "detail-page-view": ("view", "item"),
    "search": ("search", "search"),
    "add-to-cart": ("add_to_cart", None),
    "remove-from-cart": ("remove_from_cart", None),
    "purchase-complete": ("purchase", None),
}
WITH_PRODUCTS = ("view", "add_to_cart", "remove_from_cart", "purchase", "search")
# What has a column, or a place in the context: where it stands in Google's event.
COLUMNS = {
    "user_id": ("userInfo", "userId"),
    "anonymous_id": ("visitorId",),
    "session_id": ("sessionId",),
    "event_ts": ("eventTime",),
    "query": ("searchQuery",),
    "recommendation_id": ("attributionToken",),
    "order_id": ("purchaseTransaction", "id"),
    "currency": ("purchaseTransaction", "currencyCode"),
}
CONTEXT = {
    "url": ("uri",),
    "referrer": ("referrerUri",),
    "user_agent": ("userInfo", "userAgent"),
    "ip": ("userInfo", "ipAddress"),
}
PRODUCT = {"item_id": ("product", "id"), "quantity": ("quantity",)}
REVENUE = ("purchaseTransaction", "revenue")
STAGED = "digest VARCHAR, part INTEGER"
# `line` is an event without its opening brace, or a line that is passed on. A window can spill to the disk; a
# count of all the digests seen so far would have to stay in memory.
LINE = f"""CASE WHEN digest IS NULL THEN line ELSE encode(concat('{{"event_id":"{SOURCE}:', digest, ':',
    row_number() OVER (PARTITION BY digest, part ORDER BY ordinal), ':', part, '",')) || line END"""


def read(path: Path) -> Import:
    """The events of every line.

    Raises:
        UserError: the file cannot be read, or holds no line.
        Transient: the disk has no room to sort.
    """
    staging = Staging(STAGED)
    for lines in line_batches(path):
        staged = list(zip(*(row for line in lines for row in _rows(line)), strict=True))
        types = (pa.int64(), pa.binary(), pa.string(), pa.int32())
        columns = [pa.array(column, type_) for column, type_ in zip(staged, types, strict=True)]
        names = ["happened", "line", "digest", "part"]
        staging.add(pa.record_batch(columns, names), ", ".join(names))
    loaded = staging.load(LINE)
    if loaded.total == 0:
        raise UserError(f"{path} holds no lines. Expected one JSON object a line.")
    return loaded


def _rows(line: bytes) -> Iterator[tuple[int | None, bytes, str | None, int | None]]:
    """What is staged for a line: time in microseconds, text, digest, part."""
    try:
        # The first refuses what Python's own parser lets pass; the second sees keys that stand twice.
        msgspec.json.decode(line)
        event = json.loads(line, object_pairs_hook=_unique)
        texts = [msgspec.json.encode(native)[1:] for native in events_of(event)]
    except (TypeError, ValueError, RecursionError):
        yield None, line, None, None
        return
    digest = hashlib.blake2b(line, digest_size=16).hexdigest()
    happened = _microseconds(event.get("eventTime"))
    for part, text in enumerate(texts):
        yield happened, text, digest, part


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


def _microseconds(text: Any) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        return to_microseconds(moment)
    except (TypeError, ValueError):
        return None


def events_of(event: Any) -> list[dict[str, Any]]:
    """The native events, without ids, of one Google event.

    >>> google = {"eventType": "add-to-cart", "visitorId": "v", "productDetails": [{"product": {"id": "a"}}]}
    >>> for native in events_of(google):
    ...     print(native["type"], native["anonymous_id"], native["item_id"])
    add_to_cart v a

    Raises:
        TypeError: it is not a JSON object.
    """
    if not isinstance(event, dict):
        raise TypeError("not an object")
    rest = _copied(event)
    name = rest.pop("eventType", None)
    kind, page = TYPES.get(name, (name, None)) if isinstance(name, str) else (name, None)
    shared = {"type": kind, "event_name": name if isinstance(name, str) else None, "source": SOURCE}
    shared |= {column: _pop(rest, path) for column, path in COLUMNS.items()}
    context = {"page": page} | {field: _pop(rest, path) for field, path in CONTEXT.items()}
    products = _products(rest) if kind in WITH_PRODUCTS else []
    if kind == "purchase" and len(products) == 1:
        shared["value"] = _pop(_copied(event), REVENUE)
    if kind == "search":
        first = rest["offset"] + 1 if isinstance(rest.get("offset"), int) else 1
        shown = [{"type": "impression", "position": place} | item for place, item in enumerate(products, first)]
        products = [{}, *shown]
    return [_event(shared | item, rest, context) for item in products or [{}]]


def _products(rest: dict[str, Any]) -> list[dict[str, Any]]:
    """Move the products out of `rest`: their columns, and under `productDetails` what has none."""
    details = rest.pop("productDetails", [])
    products = []
    # Google's tutorial writes a lone product without the list around it.
    for detail in details if isinstance(details, list) else [details]:
        left = _copied(detail) if isinstance(detail, dict) else detail
        columns = {column: _pop(left, path) for column, path in PRODUCT.items()}
        left = _filled(left) if isinstance(left, dict) else left
        products.append(columns | ({"productDetails": left} if left else {}))
    return products


def _event(columns: dict[str, Any], rest: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    details = columns.pop("productDetails", None)
    properties = _filled(rest | {"productDetails": details or rest.get("productDetails")})
    return _filled(columns | {"properties": properties, "context": _filled(context)})


def _copied(members: dict[str, Any]) -> dict[str, Any]:
    """A copy whose members, and theirs, can be taken out."""
    return {name: dict(value) if isinstance(value, dict) else value for name, value in members.items()}


def _filled(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None and value != {}}


def _pop(members: Any, path: tuple[str, ...]) -> Any:
    """Take out the value at `path`; None where there is none."""
    for name in path[:-1]:
        members = members.get(name) if isinstance(members, dict) else None
    return members.pop(path[-1], None) if isinstance(members, dict) else None
