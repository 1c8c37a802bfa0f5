"""Track events of the Segment e-commerce specification (v2, and v1 by its aliases) as native event types.

An order is one purchase per product, a product list one impression per product. An event gets a native type
only if it has what the contract asks of that type; otherwise it stays a `custom` event under its own name,
with all its properties, so that nothing is lost for want of a product id.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from recsys_data.ingestion.streaming.collector.segment import fields
from recsys_data.ingestion.streaming.collector.segment.event_types import EventTypes
from recsys_data.ingestion.streaming.collector.segment.fields import Table, between, integer, number, table, text

# A product list is repeated around each of its products; beyond this many bytes it stays one event.
MAX_EXPANSION_BYTES = 1024 * 1024
LINE_BYTES = 512
# Well above the longest name in `RULES`; longer ones would only fill the cache.
MAX_NAME = 64

ITEM_NAMES = ("product_id", "productId", "item_id", "itemId")
AMOUNT = between(number, 0, float("inf"))

ITEM = table(("item_id", text, ITEM_NAMES))
# Where the event is known to be about a product, these names mean it too.
PRODUCT = table(("item_id", text, (*ITEM_NAMES, "sku", "id")))
# What an order or a list says of all its products ...
SHARED = table(
    ("order_id", text, ("order_id", "orderId")),
    ("list_id", text, ("list_id", "listId")),
    ("currency", text, ("currency",)),
    ("recommendation_id", text, ("recommendation_id", "recommendationId")),
    ("query", text, ("query",)),
    # The specification's own `variant` is that of the product, e.g. its colour; it stays among the properties.
    ("model", text, ("recommendation_model", "recommendationModel")),
    ("variant", text, ("recommendation_variant", "recommendationVariant")),
)
# ... and what only a single product or event can say.
OWN = table(
    ("price", number, ("price",)),
    ("quantity", integer, ("quantity",)),
    ("value", AMOUNT, ("value", "revenue", "total")),
    ("position", integer, ("position",)),
    ("rating", between(number, 0, 10), ("rating",)),
    ("tag", text, ("tag",)),
    ("dwell_ms", between(integer, 0, float("inf")), ("dwell_ms",)),
    ("scroll_depth", between(number, 0, 1), ("scroll_depth",)),
    ("score", number, ("recommendation_score", "recommendationScore")),
    ("propensity", between(number, math.ulp(0), 1), ("propensity", "recommendation_propensity")),
)
EVENT_COLUMNS = ITEM | SHARED | OWN
PRODUCT_COLUMNS = PRODUCT | SHARED | OWN

Part = tuple[str, dict[str, Any]]


class Rule(NamedTuple):
    """The native type of an event, and under which name the lines of a product array keep what they share."""

    type: str
    shared: str | None = None


RULES = {
    "productssearched": Rule("search"),
    "productlistviewed": Rule("impression", "list"),
    "productlistfiltered": Rule("impression", "list"),
    "productclicked": Rule("click"),
    "productviewed": Rule("view"),
    "productadded": Rule("add_to_cart"),
    "productremoved": Rule("remove_from_cart"),
    "ordercompleted": Rule("purchase", "order"),
    "orderrefunded": Rule("refund", "order"),
    "productshared": Rule("share"),
    "productaddedtowishlist": Rule("bookmark"),
    "productreviewed": Rule("rating"),
    # Version 1 of the specification.
    "viewedproductcategory": Rule("impression", "list"),
    "clickedproduct": Rule("click"),
    "viewedproduct": Rule("view"),
    "addedproduct": Rule("add_to_cart"),
    "removedproduct": Rule("remove_from_cart"),
    "completedorder": Rule("purchase", "order"),
    "impression": Rule("impression", "list"),
    "purchase": Rule("purchase", "order"),
    "refund": Rule("refund", "order"),
}


@lru_cache(maxsize=4096)
def _canonical(event_name: str) -> str:
    return "".join(filter(str.isalnum, event_name.lower()))


@lru_cache(maxsize=4)
def _rules(types: EventTypes) -> dict[str, Rule]:
    """The rules of the specification, and the native types by their own names."""
    return {_canonical(name): Rule(name) for name in types.required} | RULES


def rule_of(event_name: str, types: EventTypes) -> Rule | None:
    """The rule for an event name, however it is spelled.

    >>> types = EventTypes({"view": frozenset({"item_id"})})
    >>> [rule_of(name, types).type for name in ("Product Viewed", "product_viewed", "VIEW")]
    ['view', 'view', 'view']
    """
    return _rules(types).get(_canonical(event_name))


def to_parts(event_name: str | None, properties: dict[str, Any], size: int, types: EventTypes) -> list[Part]:
    """The native events of a track call, without what all calls have in common (ids, times, context).

    Each comes with what its id adds to the id of the message: nothing, or `:<n>` for the n-th product.

    Args:
        event_name: the client's name of the event.
        properties: is used up.
        size: bytes of the message, of which everything but the products is repeated for each product.
        types: the native types.
    """
    rule = rule_of(event_name, types) if event_name and len(event_name) <= MAX_NAME else None
    if rule is None:
        return [("", single("custom", properties, EVENT_COLUMNS, types))]
    products = properties.get("products")
    if rule.shared and products and isinstance(products, list) and _affordable(products, size):
        del properties["products"]
        return _lines(rule, products, properties, types)
    return [("", single(rule.type, properties, PRODUCT_COLUMNS, types))]


def single(kind: str, properties: dict[str, Any], columns: Table, types: EventTypes) -> dict[str, Any]:
    """One event of type `kind`, or a custom one if it lacks what that type needs. Uses up `properties`."""
    native = fields.take(properties, columns)
    if kind != "impression":
        _set_value(native)
    return {"type": types.fitting(kind, native), **native, "properties": properties}


def _lines(rule: Rule, products: list[Any], properties: dict[str, Any], types: EventTypes) -> list[Part]:
    common = fields.take(properties, SHARED)
    parts = []
    for rank, given in enumerate(products, start=1):
        product = given if isinstance(given, dict) else {"product": given}
        native = fields.take(product, PRODUCT_COLUMNS)
        rest = properties | {name: common[name] for name in native.keys() & common.keys()}
        native = common | native
        if rule.shared == "list":
            native.setdefault("position", rank)
        else:
            _set_value(native)
        if rest:
            fields.keep(product, rule.shared or "", rest)
        parts.append((f":{rank}", {"type": types.fitting(rule.type, native), **native, "properties": product}))
    return parts


def _set_value(native: dict[str, Any]) -> None:
    if "value" not in native and "price" in native and "quantity" in native:
        value = AMOUNT(native["price"] * native["quantity"])
        if value is not None:
            native["value"] = round(value, 6)


def _affordable(products: list[Any], size: int) -> bool:
    if size * len(products) <= MAX_EXPANSION_BYTES:
        return True
    repeated = size - len(msgspec.json.encode(products)) + LINE_BYTES
    return repeated * len(products) <= MAX_EXPANSION_BYTES
