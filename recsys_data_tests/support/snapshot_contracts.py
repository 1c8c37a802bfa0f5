"""Contracts of snapshot datasets for tests."""

from typing import Any

from recsys_data_tests.support.contract_files import custom, odcs

STORE_ID = {"name": "store_id", "logicalType": "string", "primaryKey": True, "required": True}
SNAPSHOT_DATE = {
    "name": "snapshot_date",
    "logicalType": "date",
    "required": True,
    "partitioned": True,
    "customProperties": custom(system="snapshot_date"),
}
AS_OF = {"name": "as_of", "logicalType": "timestamp", "customProperties": custom(system="as_of")}
CITY = {"name": "city", "logicalType": "string"}
AREA = {"name": "area", "logicalType": "number", "physicalType": "decimal(12, 2)"}
TAGS = {"name": "tags", "logicalType": "array", "items": {"logicalType": "string"}}
OPENS = {"name": "opens_at", "logicalType": "timestamp"}
STORES = (STORE_ID, CITY, AREA, TAGS, OPENS)


def limit(name: str, **option: float) -> dict[str, Any]:
    return {"name": name, "type": "custom", "engine": "recsys_data", "implementation": option}


def stores(*columns: dict[str, Any], quality: tuple[dict[str, Any], ...] = (), **members: Any) -> dict[str, Any]:
    """A sound contract of the dataset `stores`; `members` are those of the document."""
    document = odcs("stores", *(columns or STORES), SNAPSHOT_DATE, AS_OF)
    if quality:
        document["schema"][0]["quality"] = list(quality)
    return document | members
