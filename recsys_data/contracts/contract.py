"""ODCS file -> `Contract`: what a dataset holds, checked when it is read.

Data flow: `*.odcs.yaml` -> the standard's own JSON schema -> `Contract` -> (types, rules, tables, assets).
Run alone: `recsys-data contract check`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from recsys_data.errors import ContractError

CONTRACTS_DIR = Path(__file__).parent
SUFFIX = ".odcs.yaml"
ENGINE = "recsys_data"
SECONDS_PER_UNIT = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400}


@dataclass(frozen=True, slots=True)
class Column:
    """One column, as the contract states it.

    Attributes:
        type: the logical type, e.g. `string`; `types.py` knows how it is stored.
        source: path of the value in the event's JSON; empty when it does not come from there.
        system: what the platform itself fills in (`ingested_at`, `log_partition`, `log_offset`).
        logic: SQL expression over the other columns that computes the value.
        consent: boolean column without which the value is replaced by `without_consent` (SQL).
    """

    name: str
    type: str
    description: str = ""
    required: bool = False
    key: bool = False
    partitioned: bool = False
    classification: str | None = None
    enum: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    system: str | None = None
    logic: str | None = None
    consent: str | None = None
    without_consent: str = "NULL"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row rule: a row is rejected for the reason `name` where `predicate` (SQL) is false."""

    name: str
    predicate: str
    description: str
    severity: str


@dataclass(frozen=True, slots=True)
class Contract:
    """A dataset: its columns, rules, service levels, and how rows of the stream get into it.

    Attributes:
        stream: `events` if it is fed by events, `rejects` for what they were refused, else None.
        row_when: SQL predicate that says which events are rows; None means all.
        row_from: name of the JSON object without which an event gives no row here.
        checks: quality items that are not row rules (volume, rates), by name, as the contract states them.
        latency: age of the newest data at which the dataset is stale.
    """

    name: str
    version: str
    path: Path
    purpose: str
    usage: str
    grain: str
    domain: str
    owner: str
    tags: tuple[str, ...]
    stage: str
    stream: str | None
    row_when: str | None
    row_from: str | None
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    checks: Mapping[str, Mapping[str, Any]]
    latency: timedelta

    @property
    def event_time(self) -> Column:
        """The column whose UTC day is the partition."""
        return next(column for column in self.columns if column.partitioned)

    @property
    def primary_key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.key)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def load_contracts(*folders: Path) -> dict[str, Contract]:
    """Read every contract of the package and of `folders`; a later one replaces an earlier one of its name.

    Raises:
        ContractError: a file cannot be read, is no valid ODCS, makes no sense, or does not go with the others.
    """
    from recsys_data.contracts.soundness import check_stream

    contracts: dict[str, Contract] = {}
    for folder in (CONTRACTS_DIR, *folders):
        if not folder.is_dir():
            raise ContractError(f"{folder} is no folder of contracts. Set RECSYS_DATA_CONTRACTS to one.")
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            contract = load_contract(path)
            contracts[contract.name] = contract
    check_stream(contracts)
    return contracts


def load_contract(path: Path) -> Contract:
    """Read one contract and refuse it unless it makes sense.

    Raises:
        ContractError: with the file, the path in it, what was found and what to do.
    """
    from recsys_data.contracts.document import read_document
    from recsys_data.contracts.rules import check_expressions
    from recsys_data.contracts.soundness import check_contract

    document = read_document(path)
    schema = document["schema"][0]
    extra = custom_properties(schema)
    quality = schema.get("quality", [])
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
        stream=extra.get("stream"),
        row_when=extra.get("rowWhen"),
        row_from=extra.get("rowFrom"),
        columns=tuple(_column(item, extra.get("stream")) for item in schema["properties"]),
        rules=tuple(_rule(item) for item in quality if _is_row_rule(item)),
        checks={item["name"]: item for item in quality if not _is_row_rule(item)},
        latency=_latency(path, document.get("slaProperties", [])),
    )
    check_contract(contract)
    check_expressions(contract)
    return contract


def custom_properties(item: Mapping[str, Any]) -> dict[str, Any]:
    """The `customProperties` of any ODCS element, by name."""
    return {entry["property"]: entry["value"] for entry in item.get("customProperties", [])}


def _column(item: Mapping[str, Any], stream: str | None) -> Column:
    extra = custom_properties(item)
    computed = bool(item.get("transformLogic") or extra.get("system"))
    path = str(extra.get("source", item["name"])) if stream == "events" and not computed else ""
    kind = item.get("logicalType", "")
    if kind == "timestamp" and item.get("logicalTypeOptions", {}).get("timezone") is False:
        kind = "local timestamp"
    if item.get("physicalType") == "binary":
        kind = "binary"
    return Column(
        name=item["name"],
        type=kind,
        description=item.get("description", ""),
        required=item.get("required", False),
        key=item.get("primaryKey", False),
        partitioned=item.get("partitioned", False),
        classification=item.get("classification"),
        enum=tuple(str(entry["value"]) for entry in item.get("enum", [])),
        source=tuple(path.split(".")) if path else (),
        system=extra.get("system"),
        logic=item.get("transformLogic"),
        consent=extra.get("consent"),
        without_consent=extra.get("withoutConsent", "NULL"),
    )


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
