"""ODCS file -> `Contract`: what a dataset holds, checked when it is read.

Data flow: `*.odcs.yaml` -> the standard's own JSON schema -> `Contract` -> (types, rules, tables, assets).
Run alone: `recsys-data contract check`.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from recsys_data.contracts.drift import DEFAULT_LIMITS, PROPERTY, DriftLimits, limits_of
from recsys_data.contracts.features.declared import FEATURES_OF, view_of
from recsys_data.contracts.model import ENGINE, STREAM_KINDS, Column, Contract, Kind, Rule, SameAs
from recsys_data.contracts.odcs import custom_properties, parse_document
from recsys_data.contracts.servers import precedence, references, schedule, servers
from recsys_data.contracts.yaml_text import read_text
from recsys_data.errors import ContractError

CONTRACTS_DIR = Path(__file__).parent
SUFFIX = ".odcs.yaml"
# Contracts may lie in a subfolder of this name, where feature views are usually kept.
FEATURES = "features"
SECONDS_PER_UNIT = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400}
DAYS_PER_UNIT = {"d": 1, "day": 1, "days": 1, "y": 365, "yr": 365, "year": 365, "years": 365}
MOST_DAYS = 200 * 365
# What is not taken from servers on a schedule.
NOT_TAKEN = STREAM_KINDS | {Kind.FEATURE_VIEW}


def load_contracts(*folders: Path) -> dict[str, Contract]:
    """Read every contract of the package and of `folders`; a later one replaces an earlier one of its name.

    What is derived from snapshot datasets (`NAME_history`, `NAME_rejected`) stands beside them.

    Raises:
        ContractError: a file cannot be read, is not valid ODCS, makes no sense, or does not go with the others.
    """
    from recsys_data.contracts.derived import history_of, rejected_of
    from recsys_data.contracts.features.datasets import with_feature_views
    from recsys_data.contracts.validate import check_references, check_stream

    contracts: dict[str, Contract] = {}
    for folder in (CONTRACTS_DIR, *folders):
        if not folder.is_dir():
            raise ContractError(f"{folder} is not a folder of contracts. Set RECSYS_DATA_CONTRACTS to one.")
        for path in files_in(folder):
            contract = load_contract(path)
            alike = next((name for name in contracts if name.lower() == contract.name.lower()), contract.name)
            if alike != contract.name:
                raise ContractError(
                    f"{path}: the name {contract.name} differs from {alike} by case only, which SQL does not tell "
                    f"apart. Name it {alike} to replace that contract, or otherwise."
                )
            contracts[contract.name] = contract
    check_stream(contracts)
    for contract in [contract for contract in contracts.values() if contract.is_snapshot]:
        for derived in (history_of(contract), rejected_of(contract)):
            if derived.name in contracts:
                raise ContractError(
                    f"{contracts[derived.name].path}: {derived.name} is made from {contract.name} and needs no "
                    "contract of its own. Remove the file, or rename its dataset."
                )
            contracts[derived.name] = derived
    check_references(contracts)
    return with_feature_views(contracts)


def files_in(folder: Path) -> list[Path]:
    """The contracts of a folder, those in its subfolder of feature views among them."""
    return sorted([*folder.glob(f"*{SUFFIX}"), *(folder / FEATURES).glob(f"*{SUFFIX}")])


def load_contract(path: Path) -> Contract:
    """Read one contract and refuse it unless it makes sense.

    Raises:
        ContractError: with the file, the path in it, what was found and what to do.
    """
    return _contract(path, read_text(path))


@lru_cache(maxsize=256)
def _contract(path: Path, text: str) -> Contract:
    """Kept, for contracts are read again at every tick of a sensor, and hardly ever change."""
    from recsys_data.contracts.rules import check_expressions
    from recsys_data.contracts.validate import check_contract

    document = parse_document(path, text)
    schema = document["schema"][0]
    extra = custom_properties(schema)
    quality = schema.get("quality", [])
    kind = _kind(path, extra, schema["properties"])
    drift = limits_of(path, schema["name"], extra.get(PROPERTY))
    columns = tuple(_column(path, item, kind, drift) for item in schema["properties"])
    contract = Contract(
        name=schema["name"],
        version=document["version"],
        path=path,
        purpose=document.get("description", {}).get("purpose", ""),
        usage=document.get("description", {}).get("usage", ""),
        grain=schema.get("dataGranularityDescription", ""),
        domain=document.get("domain", ""),
        owner=document.get("team", {}).get("name", ""),
        tags=tuple(document.get("tags", [])),
        stage=custom_properties(document).get("stage", "ingestion"),
        kind=kind,
        row_when=extra.get("rowWhen"),
        row_from=extra.get("rowFrom"),
        columns=columns,
        rules=tuple(_rule(item) for item in quality if _is_row_rule(item)),
        checks={item["name"]: item for item in quality if not _is_row_rule(item)},
        latency=_latency(path, document.get("slaProperties", [])),
        retention=_retention(path, document.get("slaProperties", [])),
        references=references(path, schema["properties"]),
        servers=() if kind in NOT_TAKEN else servers(path, schema["name"], document.get("servers", [])),
        schedule=None if kind in NOT_TAKEN else schedule(path, document),
        view=view_of(path, schema, {one.name: one.type for one in columns}) if kind is Kind.FEATURE_VIEW else None,
        drift=drift,
    )
    check_contract(contract)
    check_expressions(contract)
    return contract


def _kind(path: Path, extra: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> Kind:
    stream = extra.get("stream")
    if FEATURES_OF in extra:
        return Kind.FEATURE_VIEW
    if stream == "events":
        return Kind.EVENT_DETAILS if extra.get("rowFrom") else Kind.EVENTS
    if stream == "rejects":
        return Kind.DEAD_LETTERS
    if stream is not None:
        raise ContractError(f"{path}: stream is {stream}; expected events or rejects, or none at all.")
    dated = any(custom_properties(column).get("system") == "snapshot_date" for column in columns)
    return Kind.SNAPSHOT if dated else Kind.TABLE


def _column(path: Path, item: Mapping[str, Any], dataset: Kind, drift: DriftLimits | None) -> Column:
    extra = custom_properties(item)
    computed = bool(item.get("transformLogic") or extra.get("system") or dataset is Kind.FEATURE_VIEW)
    source = str(extra.get("source", item["name"])) if dataset is not Kind.DEAD_LETTERS and not computed else ""
    return Column(
        name=item["name"],
        type=_type(item, dataset),
        description=item.get("description", ""),
        required=item.get("required", False),
        key=item.get("primaryKey", False),
        partitioned=item.get("partitioned", False),
        classification=item.get("classification"),
        enum=tuple(str(entry["value"]) for entry in item.get("enum", [])),
        source=tuple(source.split(".")) if source else (),
        system=extra.get("system"),
        # That of a feature is an expression over other features, not over columns.
        logic=None if dataset is Kind.FEATURE_VIEW else item.get("transformLogic"),
        consent=extra.get("consent"),
        without_consent=extra.get("withoutConsent", "NULL"),
        servers=precedence(path, item["name"], extra.get("from", [])),
        permitted_use=tuple(map(str, extra.get("permittedUse", []))),
        drift=limits_of(path, f"column {item['name']}", extra.get(PROPERTY), drift or DEFAULT_LIMITS),
        same_as=_same_as(path, item["name"], extra),
    )


def _same_as(path: Path, name: str, extra: Mapping[str, Any]) -> SameAs | None:
    if "sameAs" not in extra:
        return None
    dataset, _, column = str(extra["sameAs"]).rpartition(".")
    most = extra.get("maxShareDifferent", 0)
    if not dataset or isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most <= 1:
        raise ContractError(
            f"{path}: column {name}: customProperties: sameAs is {extra['sameAs']!r}; expected dataset.column, with "
            "maxShareDifferent from 0 to 1 beside it."
        )
    return SameAs(dataset, column, float(most))


def _type(item: Mapping[str, Any], dataset: Kind) -> str:
    kind, physical = item.get("logicalType", ""), str(item.get("physicalType", "")).replace(" ", "").lower()
    if kind == "timestamp" and item.get("logicalTypeOptions", {}).get("timezone") is False:
        return "local timestamp"
    if physical == "binary":
        return "binary"
    if dataset not in STREAM_KINDS:
        # Events keep lists as the JSON that the client sent; snapshots have typed ones.
        if kind == "number" and physical.startswith("decimal"):
            return physical
        if kind in ("array", "vector") and "items" in item:
            return f"list<{item['items'].get('logicalType', '')}>"
        if kind == "vector":
            return "list<number>"
    return kind


def _is_row_rule(item: Mapping[str, Any]) -> bool:
    return item.get("engine") == ENGINE and isinstance(item.get("implementation"), str)


def _rule(item: Mapping[str, Any]) -> Rule:
    return Rule(item["name"], item["implementation"], item.get("description", ""), item.get("severity", "error"))


def _latency(path: Path, items: Sequence[Mapping[str, Any]]) -> timedelta:
    for item in items:
        if item["property"] == "latency":
            seconds = SECONDS_PER_UNIT.get(item.get("unit", "m"))
            if seconds is None or not isinstance(item["value"], int | float) or item["value"] * seconds < 60:
                raise ContractError(
                    f"{path}: slaProperties: latency is {item['value']} {item.get('unit')}; "
                    f"expected at least one minute, in one of {', '.join(SECONDS_PER_UNIT)}."
                )
            return timedelta(seconds=item["value"] * seconds)
    raise ContractError(f"{path}: slaProperties has no latency. Say after how long the dataset is stale.")


def _retention(path: Path, items: Sequence[Mapping[str, Any]]) -> timedelta | None:
    for item in items:
        if item["property"] == "retention":
            days = DAYS_PER_UNIT.get(item.get("unit", ""))
            if days is None or not isinstance(item["value"], int) or not 1 <= item["value"] * days <= MOST_DAYS:
                raise ContractError(
                    f"{path}: slaProperties: retention is {item['value']} {item.get('unit', 'without a unit')}; "
                    f"expected a whole number of days or years, at least one, in one of {', '.join(DAYS_PER_UNIT)}."
                )
            return timedelta(days=item["value"] * days)
    return None
