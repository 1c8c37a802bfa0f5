"""Checks of the lake: the catalog, each table's columns, its data files, and the ledger."""

from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.contracts.model import Contract
from recsys_data.durable import local_path
from recsys_data.monitoring.doctor.deployment import Deployment, StoredLake
from recsys_data.monitoring.doctor.findings import Finding, ok, problem
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.storage.integrity import damaged_files, manifest_of, naming_damage
from recsys_data.storage.tables import iceberg_schema

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

RESTORE = "Restore the lake folder from a backup."
SHOWN = 3
# What is read of a table to see whether it is damaged, the newest days first.
CHECK_SECONDS = 3.0


def catalog(there: Deployment) -> list[Finding]:
    """Whether the catalog can be read."""
    if there.lake is None:
        return [ok("lake", "not there yet; it is made at first use")]
    stored = [name for name in there.contracts if there.lake.exists(name)]
    return [ok("lake", f"{there.lake.warehouse}: {len(stored)} of {len(there.contracts)} datasets have a table")]


def table(lake: StoredLake, name: str) -> list[Finding]:
    """Whether a table follows its contract, and its current data files are there as the manifests say, and whole."""
    found = lake.table(name)
    differences = unlike(lake.contracts[name], found)
    if differences:
        advice = f"Undo the change of {lake.contracts[name].path.name}, or give the changed dataset a new name."
        return [problem(f"table {name}", "; ".join(differences), advice), *_files(name, found)]
    return _files(name, found)


def unlike(contract: Contract, found: "Table") -> list[str]:
    """How a table differs from its contract beyond new optional columns, which it takes when it is next opened."""
    stored = {field.name: field for field in found.schema().fields}
    wanted = {field.name: field for field in iceberg_schema(contract).fields}
    differences = []
    for name, field in stored.items():
        if name not in wanted:
            differences.append(f"column {name} is stored but no longer in the contract")
        elif str(wanted[name].field_type) != str(field.field_type):
            differences.append(f"column {name} is stored as {field.field_type}, not {wanted[name].field_type}")
        elif wanted[name].required and not field.required:
            differences.append(f"column {name} may be empty in what is stored, and the contract now requires it")
    differences += [f"new column {n} is required" for n, one in wanted.items() if n not in stored and one.required]
    time = found.schema().find_column_name(found.spec().fields[0].source_id)
    if time != contract.event_time.name:
        differences.append(f"it is partitioned by {time}, not {contract.event_time.name}")
    return differences


def _files(name: str, found: "Table") -> list[Finding]:
    gone, rows, count = [], 0, 0
    for file in _planned(found):
        count += 1
        rows += file.record_count
        path = local_path(file.file_path)
        if path is not None and (fault := _fault(path, file.file_size_in_bytes)):
            listed = f" (listed in {manifest_of(found, file.file_path)})" if len(gone) < SHOWN else ""
            gone.append(fault + listed)
    checked, damaged = damaged_files(found, CHECK_SECONDS) if not gone else (0, [])
    gone += damaged
    if gone:
        more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
        return [problem(f"table {name}", f"{'; '.join(gone[:SHOWN])}{more}, of {count:,} data files", RESTORE)]
    return [ok(f"table {name}", f"{rows:,} rows in {count:,} data files, each there; {checked:,} read and sound")]


@naming_damage
def _planned(found: "Table") -> "list[DataFile]":
    return [task.file for task in found.scan().plan_files()]


def _fault(path: Path, size: int) -> str | None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return f"{path} is missing"
    return None if found == size else f"{path} has {found:,} bytes; expected {size:,}"


def ledger(there: Deployment) -> list[Finding]:
    """Whether each line that was read has one outcome, and the tables hold the rows that were counted."""
    lake = there.lake
    if lake is None or not any(one.is_stream and lake.exists(name) for name, one in there.contracts.items()):
        return [ok("ledger", "nothing was read yet")]
    verdict = reconcile_lake(lake, there.settings)
    if verdict.balanced:
        behind = f"; {', '.join(sorted(verdict.behind))} still behind" if verdict.behind else ""
        return [ok("ledger", f"balanced: each of {verdict.read:,} lines read has one outcome{behind}")]
    found = "; ".join(fault.found for fault in verdict.faults)
    return [
        problem("ledger", f"NOT BALANCED: {found}", f"`recsys-data verify` reads all rows and names them. {RESTORE}")
    ]
