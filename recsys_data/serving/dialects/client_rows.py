"""Properties of users and items, as clients of other systems send them -> rows of `user_profiles` and `item_catalog`.

A property becomes the column of its name if it fits the column's type, else it stays in `attributes`, as text.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from recsys_data.contracts.model import Contract
from recsys_data.ingestion.streaming.collector.segment.clock import to_text
from recsys_data.ingestion.streaming.collector.segment.fields import integer, number, text
from recsys_data.serving.dialects.client_events import moment_of, moment_of_epoch

HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
NOT_WORD = re.compile(r"[^a-z0-9]+")
# Other names of columns.
NAMES = {
    "item_catalog": {
        "name": "title",
        "item_name": "title",
        "product_name": "title",
        "category": "category_path",
        "categories": "category_path",
        "category_l1": "category_path",
        "genre": "genres",
        "creation_timestamp": "created_at",
        "item_description": "description",
        "product_description": "description",
        "year": "release_year",
        "content_owner": "brand",
    },
    "user_profiles": {"signup_date": "registered_at", "membership": "status"},
}
LIST_SEPARATOR = "|"


def to_row(contract: Contract, properties: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a client's properties, without its key.

    Args:
        contract: of the dataset.
        properties: name -> value; names in camel case or in any other.
    """
    columns = {
        column.name: column
        for column in contract.columns
        if not column.system and column.name not in (*contract.primary_key, "attributes")
    }
    row: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    for name, value in properties.items():
        plain = NOT_WORD.sub("_", HUMP.sub("_", name).lower()).strip("_")
        column = columns.get(NAMES.get(contract.name, {}).get(plain, plain))
        cast = CASTS.get(column.type.partition("(")[0]) if column else None
        found = cast(value) if cast else None
        if column is None or found is None or column.name in row or (column.enum and found not in column.enum):
            if value is not None:
                attributes[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        else:
            row[column.name] = found
    if "price" in row and len(row.get("currency", "")) != 3:
        # A price without its currency says little, and the contract refuses it.
        attributes["price"] = str(row.pop("price"))
    if attributes:
        row["attributes"] = attributes
    return row


def _list(value: object) -> list[str] | None:
    parts = value.split(LIST_SEPARATOR) if isinstance(value, str) else value
    if not isinstance(parts, list):
        return None
    found = [text(part) for part in parts]
    return [part for part in found if part is not None] if None not in found else None


def _timestamp(value: object) -> str | None:
    moment = moment_of(value) or moment_of_epoch(number(value), 1.0)
    return to_text(moment) if moment else None


def _boolean(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


CASTS: dict[str, Callable[[object], Any]] = {
    "string": text,
    "number": number,
    "integer": integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "decimal": number,
    "list<string>": _list,
}
