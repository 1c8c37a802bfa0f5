"""Contract -> JSON Schema of its native events, for those who send them.

It says what can be said of one event by itself: names, types, which fields must be there. The row rules are
stated in words; `recsys-data ingest` validates them. Run alone: `recsys-data contract jsonschema interactions`.
"""

from typing import Any

from recsys_data.contracts.model import Column, Contract
from recsys_data.contracts.rules import columns_of
from recsys_data.errors import UserError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "string", "format": "date-time"},
    "local timestamp": {"type": "string"},
    "date": {"type": "string", "format": "date"},
    "object": {"type": "object"},
    "array": {"type": "array"},
    "binary": {"type": "string"},
}
# Set by the process that appends to the event log, whatever a client says.
STAMPED = "received_at"


def json_schema(contract: Contract) -> dict[str, Any]:
    """The schema (2020-12) of events that give a row of this dataset; fields beyond it are legal and kept.

    Raises:
        UserError: the dataset is not fed by events.
    """
    if not contract.is_fed_by_events:
        raise UserError(f"{contract.name} is not fed by events, so nobody sends rows of it.")
    root = _object(contract.purpose)
    for column in contract.columns:
        if column.source:
            _place(root, column.source, _field(column, contract), column.required)
    if contract.row_from:
        _require(root, contract.row_from)
        root["properties"][contract.row_from]["type"] = "object"
    rules = "\n".join(f"- {rule.name}: {rule.description}" for rule in contract.rules)
    if rules:
        root["description"] += f"\n\nAn event that breaks one of these rules becomes a dead letter:\n{rules}"
    return {
        "$schema": DIALECT,
        "$id": f"urn:recsys-data:{contract.name}:{contract.version}",
        "title": contract.name,
        **root,
    }


def _object(description: str) -> dict[str, Any]:
    return {"type": "object", "description": description, "properties": {}, "additionalProperties": True}


def _place(root: dict[str, Any], path: tuple[str, ...], field: dict[str, Any], required: bool) -> None:
    """Put a field at its path, within the objects that lead there."""
    at = root
    for name in path[:-1]:
        inner = {"type": ["object", "null"], "properties": {}, "additionalProperties": True}
        at = at["properties"].setdefault(name, inner)
    if required:
        _require(at, path[-1])
    at["properties"][path[-1]] = field


def _require(at: dict[str, Any], name: str) -> None:
    names = at.setdefault("required", [])
    if name not in names:
        names.append(name)


def _field(column: Column, contract: Contract) -> dict[str, Any]:
    field = dict(TYPES[column.type])
    rules = [rule.description for rule in contract.rules if column.name in columns_of(rule.predicate, contract)]
    field["description"] = " ".join([column.description, *rules])
    if column.enum:
        field["enum"] = list(column.enum)
    elif column.required:
        if field["type"] == "string" and "format" not in field:
            field["minLength"] = 1
    else:
        # A null is read as if the field were not there.
        field["type"] = [field["type"], "null"]
    if column.name == STAMPED:
        field["readOnly"] = True
    return field
