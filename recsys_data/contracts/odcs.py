"""ODCS file -> plain document, refused unless it is valid by the standard's own JSON schema.

The standard's Python models ignore keys they do not know, so that a typo would pass; its schema does not.
"""

import contextlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs

from recsys_data.contracts.yaml_text import parse_yaml
from recsys_data.errors import ContractError

# Custom properties that are read here; what others put there is theirs.
PROPERTIES: dict[type, tuple[str, ...]] = {
    str: ("stream", "rowWhen", "rowFrom", "source", "system", "consent", "withoutConsent")
    + (
        "stage",
        "timezone",
        "table",
        "query",
        "featuresOf",
        "function",
        "filter",
        "delay",
        "halfLife",
        "expression",
        "embedding",
    ),
    list: ("permittedUse",),
}
KINDS = {str: "a text", list: "a list of texts", object: "a value"}


@cache
def _standard() -> dict[str, Any]:
    return json.loads(resources.files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8"))


@cache
def _validator() -> jsonschema_rs.Draft201909Validator:
    return jsonschema_rs.Draft201909Validator(_standard(), validate_formats=False)


def _fault(text: str) -> str | None:
    """What the standard's schema says against a document, given as JSON."""
    document = json.loads(text)
    # It refuses what is nested too deeply, too.
    with contextlib.suppress(ValueError):
        if _validator().is_valid(document):
            return None
    # A tenth of a second a document, but it finds the fault that says most.
    from jsonschema import Draft201909Validator
    from jsonschema.exceptions import best_match

    best = best_match(Draft201909Validator(_standard()).iter_errors(document))
    if best is None:
        return None
    # Without its type a column breaks the standard's rules for every type, each of which says something else.
    untyped = isinstance(best.instance, dict) and "logicalType" not in best.instance
    message = "has no logicalType" if untyped and "properties" in best.absolute_path else best.message
    return f"{_place(document, best.absolute_path)}: {message}"


def parse_document(path: Path, text: str) -> dict[str, Any]:
    """Validate one ODCS document, the text of that file, that describes exactly one dataset.

    Raises:
        ContractError: not YAML (with line and column), or not valid ODCS (with the path in it).
    """
    document = parse_yaml(path, text)
    if not isinstance(document, dict):
        raise ContractError(f"{path}: holds {type(document).__name__}; expected an ODCS document.")
    fault = _fault(json.dumps(document)) or _odd_property(document, ())
    if fault:
        raise ContractError(f"{path}: {fault}.")
    if len(document.get("schema", [])) != 1:
        raise ContractError(f"{path}: schema holds {len(document.get('schema', []))} objects; expected one dataset.")
    schema = document["schema"][0]
    if not schema.get("properties"):
        raise ContractError(f"{path}: schema.{schema['name']} has no columns. List them under properties.")
    for item in schema.get("quality", []):
        if "name" not in item:
            raise ContractError(f"{path}: schema.quality: a rule has no name. Name it; rejected rows carry the name.")
    return document


def custom_properties(item: Mapping[str, Any]) -> dict[str, Any]:
    """The `customProperties` of any ODCS element, by name; one without a value says nothing."""
    given = item.get("customProperties", [])
    return {entry["property"]: entry["value"] for entry in given if entry["value"] is not None}


def _odd_property(value: Any, at: tuple[str, ...]) -> str | None:
    """What is wrong with the first custom property of ours whose value the standard's schema cannot know."""
    if isinstance(value, list):
        named = ((str(one.get("name", n)) if isinstance(one, dict) else str(n), one) for n, one in enumerate(value))
        return next(filter(None, (_odd_property(one, (*at, name)) for name, one in named)), None)
    if not isinstance(value, dict):
        return None
    for name, found in custom_properties(value).items() if isinstance(value.get("customProperties"), list) else ():
        kind = next((kind for kind, names in PROPERTIES.items() if name in names), object)
        if not isinstance(found, kind) or "" in (found, *(found if isinstance(found, list) else ())):
            return f"{'.'.join(at) or 'document'}: customProperties: {name} is {found!r}; expected {KINDS[kind]}"
    inner = ((key, one) for key, one in value.items() if key != "customProperties")
    return next(filter(None, (_odd_property(one, (*at, key)) for key, one in inner)), None)


def _place(document: Any, path: Any) -> str:
    """The path of an error with names in place of list positions where the elements have names."""
    parts, at = [], document
    for step in path:
        at = at[step]
        parts.append(str(at["name"]) if isinstance(at, dict) and "name" in at else str(step))
    return ".".join(parts) or "document"
