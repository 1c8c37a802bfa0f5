"""ODCS file -> `FeatureView`: the custom properties of a contract and its columns that say how features are computed.

    schema:      featuresOf: interactions          the dataset that features are computed from
                 request: {basket_value: number}   what expressions may use as request.NAME
    properties:  function, source, filter, window, delay, n, halfLife, scale; or embedding, source, delay; or expression

`source` is a column or SQL over one row, or `DATASET.COLUMN` of a history.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys_data.contracts.features.view import Feature, FeatureView, Window, parse_duration, parse_window
from recsys_data.contracts.odcs import custom_properties
from recsys_data.contracts.types import canonical_type, is_stored
from recsys_data.errors import ContractError

FEATURES_OF = "featuresOf"
OPTIONS = ("function", "source", "filter", "window", "delay", "n", "halfLife", "scale", "expression", "embedding")
COLUMN_OF = re.compile(r"([A-Za-z]\w*)\.([A-Za-z]\w*)")


def view_of(path: Path, schema: Mapping[str, Any], types: Mapping[str, str]) -> FeatureView:
    """The feature view that the schema object of a contract declares.

    Args:
        path: of the contract.
        schema: valid ODCS.
        types: column -> logical type.

    Raises:
        ContractError: an option is not what it has to be.
    """
    extra = custom_properties(schema)
    columns = [item for item in schema["properties"] if not item.get("partitioned")]
    entity = tuple(item["name"] for item in columns if item.get("primaryKey"))
    features = [item for item in columns if item["name"] not in entity]
    request = extra.get("request", {})
    if not isinstance(request, dict) or not all(is_stored(str(kind), True) for kind in request.values()):
        raise ContractError(
            f"{path}: {schema['name']}: customProperties: request is {request!r}; expected names with logical types, "
            "e.g. {basket_value: number}."
        )
    return FeatureView(
        schema["name"],
        entity,
        extra[FEATURES_OF],
        tuple(_feature(f"{path}: {schema['name']}.{item['name']}", item, types[item["name"]]) for item in features),
        {name: canonical_type(kind) for name, kind in request.items()},
    )


def _feature(place: str, item: Mapping[str, Any], kind: str) -> Feature:
    given = custom_properties(item)
    column, source = given.get("source"), None
    if column and (found := COLUMN_OF.fullmatch(column)):
        source, column = found.groups()
    expression = given.get("expression", item.get("transformLogic"))
    if not any((given.get("function"), column, expression)):
        raise ContractError(
            f"{place}: nothing says how it is computed. Give it customProperties: a function and its source column, "
            "the source DATASET.COLUMN of a history, or an expression."
        )
    return Feature(
        item["name"],
        function=given.get("function"),
        column=column,
        filter=given.get("filter"),
        window=_read(place, "window", given, parse_window, Window()),
        delay=_read(place, "delay", given, parse_duration, 0),
        n=_read(place, "n", given, _whole, None),
        half_life=_read(place, "halfLife", given, parse_duration, None),
        scale=_read(place, "scale", given, _whole, 4),
        source=source,
        expression=expression,
        embedding=given.get("embedding"),
        type=canonical_type(kind) if is_stored(kind, True) else None,
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _read(place: str, name: str, given: Mapping[str, Any], parse: Callable[[Any], Any], default: Any) -> Any:
    if name not in given:
        return default
    try:
        return parse(given[name])
    except (ValueError, TypeError, AttributeError) as error:
        raise ContractError(f"{place}: {name}: {error}.") from None
