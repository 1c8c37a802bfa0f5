"""What feature views can be computed from: the stream datasets, the histories, and the sessions of visitors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from recsys_data.contracts.features.view import Source
from recsys_data.contracts.types import canonical_type

if TYPE_CHECKING:
    from recsys_data.contracts.model import Contract

IDENTITY = ("user_id", "anonymous_id")
SESSIONS, SESSIONS_OF = "sessions", "interactions"
# What `features.sessions` adds to each row of a stream.
SESSION_COLUMNS = {
    "visitor_id": "VARCHAR",
    "visit_id": "VARCHAR",
    "visit_depth": "BIGINT",
    "visit_seconds": "DOUBLE",
    "visit_query": "VARCHAR",
    "previous_item_id": "VARCHAR",
}


def sources_of(contracts: "Mapping[str, Contract]") -> dict[str, Source]:
    """The sources of feature views by name."""
    found = {}
    for name, contract in contracts.items():
        columns = {column.name: canonical_type(column.type) for column in contract.columns}
        if contract.is_fed_by_events:
            system = {column.system: column.name for column in contract.columns if column.system}
            identity = IDENTITY if set(IDENTITY) <= columns.keys() else None
            order = ("log_partition", "log_offset")
            found[name] = Source(columns, contract.event_time.name, system.get("ingested_at"), order, None, identity)
        elif contract.kind.value == "history":
            found[name] = Source(columns, None, None, (), ("valid_from", "valid_to"))
    if SESSIONS_OF in found and SESSIONS not in found:
        stream = found[SESSIONS_OF]
        found[SESSIONS] = replace(stream, columns={**stream.columns, **SESSION_COLUMNS})
    return found


def dataset_of(source: str) -> str:
    """The dataset whose rows a source is made of."""
    return SESSIONS_OF if source == SESSIONS else source
