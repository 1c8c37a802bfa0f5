"""Whether a deployment is well, and what to do where it is not.

Data flow: settings -> machine, contracts, event log, lake, sources -> one `Finding` or more for each check.
Every check is bounded in time, none changes anything, and one that fails does not hide the others.
Run alone: `recsys-data doctor`.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from recsys_data.contracts import Contract, load_contracts
from recsys_data.monitoring.doctor import batch, machine, stream, tables
from recsys_data.monitoring.doctor.deployment import Deployment, open_deployment
from recsys_data.monitoring.doctor.findings import Check, Finding, bounded, ok
from recsys_data.settings import Settings

__all__ = ["Finding", "examine"]

MACHINE = {
    "state folder": machine.state_folder,
    "open files": machine.open_files,
    "privacy": machine.privacy,
    "sql": machine.query_guard,
    "packages": machine.packages,
    "write keys": machine.write_keys,
    "alerts": machine.alerts,
    "Dagster storage": machine.dagster_storage,
}
PLATFORM = {
    "event log": stream.event_log,
    "lake": tables.catalog,
    "positions": stream.positions,
    "lag": stream.lag,
    "ledger": tables.ledger,
    "clock": stream.clock,
}


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check, one after the other."""
    for name, check in MACHINE.items():
        yield from bounded(name, partial(check, settings))
    loaded: dict[str, Contract] = {}
    yield from bounded("contracts", partial(_load, settings, loaded))
    if not loaded:
        return
    opened: list[Deployment] = []
    yield from bounded("state", partial(_open, settings, loaded, opened))
    if not opened:
        return
    try:
        for name, check in _checks(opened[0]):
            yield from bounded(name, check)
    finally:
        if opened[0].log:
            opened[0].log.close()


def _load(settings: Settings, loaded: dict[str, Contract]) -> list[Finding]:
    loaded.update(load_contracts(*settings.contract_dirs))
    return [ok("contracts", f"{len(loaded)} datasets, each valid")]


def _open(settings: Settings, contracts: Mapping[str, Contract], opened: list[Deployment]) -> list[Finding]:
    if settings.data_dir.is_dir():
        opened.append(open_deployment(settings, contracts))
        return []
    return [ok("state", "no event and no snapshot yet: recsys-data up")]


def _checks(there: Deployment) -> Iterator[tuple[str, Check]]:
    for name, check in PLATFORM.items():
        yield name, partial(check, there)
    lake = there.lake
    for name, contract in there.contracts.items():
        # Whether a table is there is asked within the bounds of its check.
        if lake is not None:
            yield f"table {name}", lambda name=name: tables.table(lake, name) if lake.exists(name) else []
        if contract.is_snapshot:
            yield f"snapshots of {name}", partial(batch.snapshots, there, contract)
            for server in contract.servers:
                yield f"source {server.name} of {name}", partial(batch.source, there, contract, server)
