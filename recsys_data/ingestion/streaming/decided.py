"""What decisions about log lines depend on, and those that a consumer before did not live to commit to all tables."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.model import Contract
from recsys_data.errors import Permanent, UserError
from recsys_data.settings import Settings
from recsys_data.storage.intent import complete, read_intent
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.tables import Lake

if TYPE_CHECKING:
    from pyiceberg.table import Table

logger = logging.getLogger(__name__)

CODE = ("recsys-data", "duckdb", "msgspec", "pyarrow")


def decided_by(contracts: Mapping[str, Contract], settings: Settings) -> dict[str, str]:
    """By name, the fingerprint or version of each thing that decisions about lines depend on."""
    digest = hashlib.sha256()
    for name in sorted(contracts):
        # Where a contract lies changes nothing.
        digest.update(repr(replace(contracts[name], path=Path())).encode())
    return {
        "contracts": digest.hexdigest()[:16],
        "RECSYS_DATA_FIRST_DAY": settings.first_day.isoformat(),
        "RECSYS_DATA_MAX_EVENT_BYTES": str(settings.max_event_bytes),
        **{name: version(name) for name in CODE},
    }


def complete_decided(
    lake: Lake, tables: "Mapping[str, Table]", first: str, settings: Settings, decided_by: Mapping[str, str]
) -> None:
    """Make the commits of the intents that the first table names for the partitions of these settings.

    Raises:
        Transient: the catalog cannot be written now.
        Permanent: the file of an intent is damaged.
    """
    done = {""}
    # Another consumer may commit to the first table meanwhile; what that commit names must be complete too.
    while names := _named(read_ledger(tables[first]), settings) - done:
        for name in names:
            _complete(name, lake, tables, decided_by)
        done |= names


def refuse_tables_behind(ledgers: Mapping[str, Ledger], first: str, settings: Settings) -> None:
    """Leave a table that reads the log again to a consumer of all partitions, whose counts it adopts in the end.

    Raises:
        UserError: one does, e.g. that of a new dataset, and other consumers read other partitions.
    """
    for partition, at in {} if settings.consumes_all else ledgers[first].positions.items():
        for name, ledger in ledgers.items():
            if settings.consumes(partition) and ledger.positions.get(partition) != at:
                raise UserError(
                    f"{name} has not read log partition {partition} as far as {first} has. Let one consumer of all "
                    "partitions (RECSYS_DATA_CONSUME_SHARE=1/1) read to the end of the log first."
                )


def _named(ledger: Ledger, settings: Settings) -> set[str]:
    """The intents that the lines of these partitions were decided by last."""
    own = {name for partition, name in ledger.intents.items() if settings.consumes(partition)}
    return own if ledger.intents else {ledger.intent}


def _complete(name: str, lake: Lake, tables: "Mapping[str, Table]", decided_by: Mapping[str, str]) -> None:
    """Make the commits of one intent; those that are made already stay as they are."""
    try:
        intent = read_intent(lake.io, lake.warehouse, name)
    except Permanent as error:
        ledgers = map(read_ledger, tables.values())
        if any(name not in (ledger.intent, *ledger.intents.values()) for ledger in ledgers):
            raise
        logger.warning("%s Every table has made its commit, so that ingestion goes on.", error)
        return
    if intent:
        # Also those of datasets whose contract was removed meanwhile.
        stored = {one: tables.get(one) or lake.stored(one) for one in intent.tables}
        complete(intent, {one: table for one, table in stored.items() if table}, decided_by)
