"""Checks of the lake: the catalog, each table's columns, its data files, and the ledger."""

from typing import TYPE_CHECKING

from recsys_data.durable import local_path
from recsys_data.monitoring.doctor.deployment import Deployment, StoredLake
from recsys_data.monitoring.doctor.findings import Finding, ok, problem
from recsys_data.monitoring.reconciliation import reconcile_lake
from recsys_data.storage.integrity import corrupt_files, manifest_of, names_corrupt_file
from recsys_data.storage.tables import schema_changes

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
    differences = schema_changes(found, lake.contracts[name]).refused
    if differences:
        advice = f"Undo the change of {lake.contracts[name].path.name}, or give the changed dataset a new name."
        return [problem(f"table {name}", "; ".join(differences), advice), *_files(lake, name, found)]
    return _files(lake, name, found)


def _files(lake: StoredLake, name: str, found: "Table") -> list[Finding]:
    gone, rows, count = [], 0, 0
    for file in _planned(found):
        count += 1
        rows += file.record_count
        if fault := _fault(lake, file.file_path, file.file_size_in_bytes):
            listed = f" (listed in {manifest_of(found, file.file_path)})" if len(gone) < SHOWN else ""
            gone.append(fault + listed)
    checked, damaged = corrupt_files(found, CHECK_SECONDS) if not gone else (0, [])
    gone += damaged
    if gone:
        more = f" and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
        return [problem(f"table {name}", f"{'; '.join(gone[:SHOWN])}{more}, of {count:,} data files", RESTORE)]
    return [ok(f"table {name}", f"{rows:,} rows in {count:,} data files, each there; {checked:,} read and sound")]


@names_corrupt_file
def _planned(found: "Table") -> "list[DataFile]":
    return [task.file for task in found.scan().plan_files()]


def _fault(lake: StoredLake, location: str, size: int) -> str | None:
    path = local_path(location) or location
    found = lake.io.found(location)
    if found is None:
        return f"{path} is missing"
    return None if found.bytes == size else f"{path} has {found.bytes:,} bytes; expected {size:,}"


def ledger(there: Deployment) -> list[Finding]:
    """Whether each line that was read has one outcome, and the tables hold the rows that were counted."""
    lake = there.lake
    if lake is None or not any(one.is_stream and lake.exists(name) for name, one in there.contracts.items()):
        return [ok("ledger", "nothing was read yet")]
    found = reconcile_lake(lake, there.settings)
    if found.balanced:
        behind = f"; {', '.join(sorted(found.behind))} still behind" if found.behind else ""
        return [ok("ledger", f"balanced: each of {found.read:,} lines read has one outcome{behind}")]
    faults = "; ".join(fault.found for fault in found.faults)
    return [
        problem("ledger", f"NOT BALANCED: {faults}", f"`recsys-data verify` reads all rows and names them. {RESTORE}")
    ]
