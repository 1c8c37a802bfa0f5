"""ODCS file -> plain document, refused unless it is valid by the standard's own JSON schema.

The standard's Python models ignore keys they do not know, so that a typo would pass; its schema does not.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft201909Validator
from jsonschema.exceptions import best_match

from recsys_data.errors import ContractError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def _validator() -> Draft201909Validator:
    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8")
    return Draft201909Validator(json.loads(text))


@cache
def _fault(text: str) -> str | None:
    """What the standard's schema says against a document, given as JSON; kept, for it takes a tenth of a second."""
    document = json.loads(text)
    best = best_match(_validator().iter_errors(document))
    if best is None:
        return None
    # Without its type a column breaks the standard's rules for every type, each of which says something else.
    untyped = isinstance(best.instance, dict) and "logicalType" not in best.instance
    message = "has no logicalType" if untyped and "properties" in best.absolute_path else best.message
    return f"{_place(document, best.absolute_path)}: {message}"


def read_document(path: Path) -> dict[str, Any]:
    """Read and validate one ODCS document that describes exactly one dataset.

    Raises:
        ContractError: unreadable, not YAML (with line and column), or not valid ODCS (with the path in it).
    """
    try:
        document = yaml.load(path.read_text("utf-8"), LOADER)
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        raise ContractError(f"{path}: is no valid YAML at {place}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: is no valid YAML: {error}.") from None
    if not isinstance(document, dict):
        raise ContractError(f"{path}: holds {type(document).__name__}; expected an ODCS document.")
    fault = _fault(json.dumps(document, default=str))
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
    """The `customProperties` of any ODCS element, by name."""
    return {entry["property"]: entry["value"] for entry in item.get("customProperties", [])}


def _place(document: Any, path: Any) -> str:
    """The path of an error with names in place of list positions where the elements have names."""
    parts, at = [], document
    for step in path:
        at = at[step]
        parts.append(str(at["name"]) if isinstance(at, dict) and "name" in at else str(step))
    return ".".join(parts) or "document"
