"""Contracts for tests, written to a folder as a user would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recsys_data.contracts import Contract, load_contract, load_contracts
from recsys_data.contracts.load import CONTRACTS_DIR

EVENT_ID = {"name": "event_id", "logicalType": "string", "primaryKey": True, "required": True}
EVENT_TS = {"name": "event_ts", "logicalType": "timestamp", "required": True, "partitioned": True}
NOTE = {"name": "note", "logicalType": "string"}
RECEIVED_AT = {"name": "received_at", "logicalType": "timestamp"}


def custom(**properties: str) -> list[dict[str, str]]:
    return [{"property": name, "value": value} for name, value in properties.items()]


def filled_in(name: str, kind: str) -> dict[str, Any]:
    """A column that the platform fills in."""
    return {"name": name, "logicalType": kind, "customProperties": custom(system=name)}


PLACES = [
    filled_in("ingested_at", "timestamp"),
    filled_in("log_partition", "integer"),
    filled_in("log_offset", "integer"),
]


def rule(name: str, predicate: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "type": "custom", "engine": "recsys_data", "implementation": predicate, **members}


def odcs(name: str = "notes", *columns: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """A sound contract of a dataset beside the stream, or with these columns; `members` are those of its schema."""
    schema = {"name": name, "properties": list(columns) or [EVENT_ID, EVENT_TS, NOTE], **members}
    return {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": f"test.{name}",
        "name": name,
        "version": "1.0.0",
        "status": "active",
        "slaProperties": [{"property": "latency", "value": 15, "unit": "m"}],
        "schema": [schema],
    }


def of_stream(name: str, *columns: dict[str, Any], **properties: str) -> dict[str, Any]:
    """A sound contract of a dataset that is fed by events."""
    own = [EVENT_ID, EVENT_TS, RECEIVED_AT, *columns, *PLACES]
    return odcs(name, *own, customProperties=custom(stream="events", **properties))


def builtin(name: str) -> dict[str, Any]:
    """The document of a contract of the package, to be changed."""
    return yaml.safe_load((CONTRACTS_DIR / f"{name}.odcs.yaml").read_text("utf-8"))


def columns_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return document["schema"][0]["properties"]


def rules_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return document["schema"][0]["quality"]


def write(folder: Path, *documents: Mapping[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for document in documents:
        (folder / f"{document['name']}.odcs.yaml").write_text(yaml.safe_dump(document), "utf-8")
    return folder


def load(folder: Path, *documents: Mapping[str, Any]) -> dict[str, Contract]:
    """The built-in contracts with these beside or in place of them."""
    return load_contracts(write(folder, *documents))


def load_one(folder: Path, document: Mapping[str, Any]) -> Contract:
    return load_contract(write(folder, document) / f"{document['name']}.odcs.yaml")
