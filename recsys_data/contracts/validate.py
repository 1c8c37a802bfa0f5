"""Refusing contracts that make no sense: each by itself, and those that share the event stream together.

The standard's JSON schema cannot know these rules, and a contract that loads must also work.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from recsys_data.contracts.model import ENGINE, Column, Contract
from recsys_data.contracts.types import NESTED, STORED, is_stored
from recsys_data.errors import ContractError

SYSTEM = {
    "ingested_at": "timestamp",
    "log_partition": "integer",
    "log_offset": "integer",
    "snapshot_date": "date",
    "as_of": "timestamp",
}
# The first make a dataset a snapshot; the second are the history's own.
SNAPSHOT_COLUMNS = ("snapshot_date", "as_of")
HISTORY_COLUMNS = ("valid_from", "valid_to", "changed", "is_current")
LIMITS = ("maxShareLost", "maxShareChanged")
# Redelivery is recognised, and a replay goes on, by these; latency is measured by the last.
STREAM_COLUMNS = {"event_id": "string", "log_partition": "integer", "log_offset": "integer", "received_at": "timestamp"}
DATASET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
MAX_NAME = 128
NO_JSON = ("binary", "local timestamp")
# Names that the statement which decodes events gives to columns of its own.
RESERVED = {
    *("row", "line", "s", "valid", "containers", "exact_values", "clean", "keys", "mixed", "unplaced"),
    *("reason", "bad_time", "redacted", "key", "key_high", "key_low"),
}
Faults = Iterator[str]


def check_contract(contract: Contract) -> None:
    """Refuse one contract unless it makes sense.

    Raises:
        ContractError: with the file, what was found and what to do.
    """
    for fault in _faults(contract):
        raise ContractError(f"{contract.path}: {fault}")


def check_references(contracts: Mapping[str, Contract]) -> None:
    """Refuse contracts that refer to what is not there.

    Raises:
        ContractError: with the file, the column, what was found and what to do.
    """
    for contract in contracts.values():
        for reference in contract.references:
            target = contracts.get(reference.dataset)
            if target is None or not target.is_snapshot or target.primary_key != (reference.key,):
                raise ContractError(
                    f"{contract.path}: column {reference.column} refers to {reference.dataset}.{reference.key}, which "
                    "is not the one key column of a snapshot dataset. Name such a one, or take the relationship out."
                )
        known = {reference.dataset for reference in contract.references}
        for column in contract.columns:
            same = column.same_as
            if same and not (
                same.dataset in known and any(one.name == same.column for one in contracts[same.dataset].columns)
            ):
                raise ContractError(
                    f"{contract.path}: column {column.name} is declared the same as {same.dataset}.{same.column}, but "
                    "that column does not exist, or no column of this dataset refers to its dataset. Add the "
                    "relationship, or take sameAs out."
                )


def check_stream(contracts: Mapping[str, Contract]) -> None:
    """Refuse contracts that cannot all be filled from one stream of events.

    Raises:
        ContractError: with the file, the column, what was found and what to do.
    """
    stream = [contract for contract in contracts.values() if contract.is_fed_by_events]
    columns: dict[str, Column] = {}
    sources: dict[tuple[str, ...], str] = {}
    for contract in stream:
        for fault in _stream_faults(contract, columns, sources):
            raise ContractError(f"{contract.path}: {fault}")
    for source, name in sources.items():
        for depth in range(1, len(source)):
            if source[:depth] in sources:
                raise ContractError(
                    f"Column {name} has the source {'.'.join(source)}, which lies within the value of column "
                    f"{sources[source[:depth]]}. Take one of the two out of the contracts of the event stream."
                )
    taken = {f"{prefix}{name}" for prefix in ("raw_", "sent_") for name in columns}
    taken |= RESERVED | {f"in_{contract.name}".lower() for contract in stream}
    for contract in stream:
        for column in contract.columns:
            if column.name.lower() in taken:
                raise ContractError(
                    f"{contract.path}: column {column.name} has a name that decoding uses itself. Name it otherwise, "
                    f"e.g. event_{column.name}, and say in its customProperties where its value stands: "
                    f"{{property: source, value: {column.name}}}."
                )


def _stream_faults(contract: Contract, columns: dict[str, Column], sources: dict[tuple[str, ...], str]) -> Faults:
    """What contradicts the stream or the contracts before, whose columns and sources are gathered."""
    types = {column.name: column.type for column in contract.columns}
    for name, kind in STREAM_COLUMNS.items():
        if types.get(name) != kind:
            yield (
                f"a dataset of the event stream needs the column {name} ({kind}), by which redelivery and replay "
                "are recognised. Copy its declaration from interactions.odcs.yaml."
            )
    for column in contract.columns:
        known = columns.setdefault(column.name.lower(), column)
        if _origin(known) != _origin(column):
            yield (
                f"column {column.name} differs from the column {known.name} of another dataset of the event "
                "stream. Give it the same name, type and source, or another name."
            )
        if column.source and sources.setdefault(column.source, column.name) != column.name:
            yield (
                f"column {column.name} has the source {'.'.join(column.source)}, which column "
                f"{sources[column.source]} has already. Use that column, or compute one with transformLogic."
            )


def _origin(column: Column) -> tuple:
    value = (column.name, column.type, column.source, column.logic, column.system)
    return (*value, column.consent, column.without_consent)


def _faults(contract: Contract) -> Faults:
    yield from _name_faults(contract)
    for column in contract.columns:
        yield from _column_faults(contract, column)
    if not contract.primary_key:
        yield "no column is the primaryKey. Mark the column (or columns) that identify a row."
    if contract.is_snapshot:
        yield from _snapshot_faults(contract)
    else:
        times = [column for column in contract.columns if column.partitioned]
        if len(times) != 1 or times[0].type != "timestamp" or not times[0].required:
            yield (
                "exactly one required timestamp must be partitioned: the event time, by whose UTC day rows are kept. "
                "(Of a dataset that is taken as a snapshot a day: the date that the system fills in with "
                "snapshot_date.)"
            )
    if contract.row_from and not any(column.source[:1] == (contract.row_from,) for column in contract.columns):
        yield f"rowFrom is {contract.row_from}, but no column has its source in that object."
    yield from _quality_faults(contract)


def _snapshot_faults(contract: Contract) -> Faults:
    parted = [column.name for column in contract.columns if column.partitioned and column.required]
    system = {column.system: column for column in contract.columns if column.system}
    if any(name not in system or system[name].name != name for name in SNAPSHOT_COLUMNS) or parted != ["snapshot_date"]:
        yield (
            "a dataset that is taken as a snapshot a day needs the columns snapshot_date (date, required, partitioned) "
            "and as_of (timestamp), filled in by the system. Copy their declarations from item_catalog.odcs.yaml."
        )
    names, servers = {c.name for c in contract.columns}, {server.name for server in contract.servers}
    for column in contract.columns:
        if column.name in HISTORY_COLUMNS:
            yield (
                f"column {column.name} has a name that the history of the dataset needs for itself. Name it otherwise "
                "and say in its customProperties where its value stands: "
                f"{{property: source, value: {column.name}}}."
            )
        for server in [one for one in column.servers if one not in servers]:
            yield (
                f"column {column.name} is to come from {server}, which is not a server of the contract; "
                f"expected one of {', '.join(sorted(servers))}."
            )
    for server in contract.servers:
        for name in [one for one in server.columns if one not in names]:
            yield f"servers: {server.name} gives a name to {name}, which is not a column of the contract."


def _name_faults(contract: Contract) -> Faults:
    if not DATASET_NAME.fullmatch(contract.name):
        yield (
            f"the dataset is named {contract.name!r}; expected letters, digits and _ (at most 63, a letter first), "
            "because it names a table, a folder and an asset."
        )
    columns, rules = [column.name for column in contract.columns], [rule.name for rule in contract.rules]
    for name in [*columns, *rules]:
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            yield f"{name[:80]!r} is not a name; expected 1 to {MAX_NAME} printable characters."
    for kind, names in (("column", columns), ("rule", rules)):
        counts = Counter(name.lower() for name in names)
        for name in names:
            if counts[name.lower()] > 1:
                yield f"{kind} {name} is declared {counts[name.lower()]} times. Keep one."


def _column_faults(contract: Contract, column: Column) -> Faults:
    if not is_stored(column.type, not contract.is_stream):
        more = f", decimal(P,S), {', '.join(NESTED)}" if not contract.is_stream else ""
        yield (
            f"column {column.name} has the type {column.type or '(none)'}, which cannot be stored. "
            f"Use one of {', '.join(STORED)}{more}."
        )
    if contract.is_fed_by_events and not all(name and name.isprintable() for name in column.source):
        yield (
            f"column {column.name} has the source {'.'.join(column.source)!r}; expected names of members, with a dot "
            "between those of an object and those within it, e.g. context.device.os."
        )
    if contract.is_fed_by_events and column.source and column.type in NO_JSON:
        yield f"column {column.name} has the type {column.type}, which no value of an event's JSON has."
    if column.system and SYSTEM.get(column.system) != column.type:
        expected = ", ".join(f"{name} ({kind})" for name, kind in SYSTEM.items())
        yield (
            f"column {column.name} is filled in by the system with {column.system} ({column.type}); "
            f"expected one of {expected}."
        )
    if contract.is_stream and column.system in SNAPSHOT_COLUMNS:
        yield (
            f"column {column.name} is filled in by snapshots ({column.system}), but events fill this dataset. "
            "Remove the column, or `stream` from its customProperties."
        )
    if column.consent and not any(c.name == column.consent and c.type == "boolean" for c in contract.columns):
        yield f"column {column.name} asks for consent in {column.consent}, which is not a boolean column of it."


def _quality_faults(contract: Contract) -> Faults:
    for name, item in contract.checks.items():
        volume = item.get("metric") == "rowCount" and "mustBeGreaterThan" in item
        options = LIMITS if contract.is_snapshot else ("maxShareOfEvents", "maxShareOfEventsPerReason")
        share = item.get("engine") == ENGINE and any(option in item["implementation"] for option in options)
        if not volume and not share:
            yield (
                f"quality {name} asks for something that is not checked here. Use a row rule (engine {ENGINE}, a "
                f"predicate), rowCount with mustBeGreaterThan, or {' or '.join(options)}."
            )
