"""A backup of all state of one machine, made while everything runs: lake, event log, quarantined snapshots.

Data flow: catalog of the lake -> list of files: event log up to a whole line, files of the lake -> copies -> one point
(`store.py`). The log is listed after the catalog: what the catalog does not have yet is in the log, and the consumer
stores it after a restore (`restore.py`). Run alone: `recsys-data backup FOLDER`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recsys_data.errors import Transient, UserError
from recsys_data.ingestion.streaming.log.embedded.segments import segment_firsts, segment_path, sync, whole_length
from recsys_data.operations.backup.lake import File, add_catalog, add_remote_catalog, is_elsewhere, lake_files
from recsys_data.operations.backup.store import LOCAL_VERSION, LOCK, VERSION, OnProgress, Point, Store, alone, is_backup
from recsys_data.settings import Settings
from recsys_data.storage.ledger import read_ledger

if TYPE_CHECKING:
    from pyiceberg.table import Table

DATABASE = ".db"
# Parts of databases, which are copied whole.
BESIDE_DATABASES = (".db-wal", ".db-shm", ".db-journal")


class Made(NamedTuple):
    """A new restore point, and how much was copied for it."""

    point: Point
    copied_files: int
    copied_bytes: int


def back_up(
    settings: Settings, folder: Path, dagster: bool = False, progress: OnProgress = lambda done, total: None
) -> Made:
    """Make a new restore point in `folder`, which replaces the one there.

    Args:
        settings: whose state folder is backed up; the event log must be the embedded one.
        folder: outside of the state folder, on another disk at best.
        dagster: with Dagster's storage, if it lies in the state folder.
        progress: is called after each file.

    Raises:
        UserError: there is nothing to back up, or `folder` cannot be used.
        Transient: state changed too fast, or another backup is being made there; the point before stays valid.
    """
    check_places(settings, folder)
    with alone(folder), closing(Store(folder)) as store:
        if store.point and store.point.data_dir != str(settings.data_dir):
            raise UserError(
                f"{folder} is the backup of {store.point.data_dir}. Choose another for {settings.data_dir}."
            )
        made_at = datetime.now(UTC)
        begins = _begins(settings.log_dir)
        elsewhere = is_elsewhere(settings)
        tables = add_remote_catalog(store, settings) if elsewhere else add_catalog(store, settings.catalog_file)
        files, positions = _log_files(settings.log_dir, tables, begins)
        files += lake_files(settings.warehouse_location, tables)
        # Models that the registry of the catalog names were stored before it named them.
        for part in (settings.quarantine_dir, settings.pushed_dir, *settings.training_parts):
            files += _folder_files(settings.data_dir, part)
        if dagster:
            # By the runs Dagster learns, after a restore, which of them ended with the machine.
            for part in (settings.dagster_dir, settings.runs_dir):
                files += _folder_files(settings.data_dir, part)
        for number, one in enumerate(files, start=1):
            _add(store, one)
            progress(number, len(files))
        version, warehouse = (VERSION, settings.warehouse_location) if elsewhere else (LOCAL_VERSION, "")
        point = store.publish(Point(version, str(settings.data_dir), made_at, positions, dagster, warehouse=warehouse))
        return Made(point, store.copied_files, store.copied_bytes)


def check_places(settings: Settings, folder: Path) -> None:
    """Refuse what cannot be backed up, or not to there.

    Raises:
        UserError: says why.
    """
    if settings.event_log != "embedded":
        raise UserError(
            "Only the embedded event log can be backed up. Back up the log of RECSYS_DATA_EVENT_LOG with its own "
            "tools, after the lake; see docs/backup.md."
        )
    if not is_elsewhere(settings) and not settings.catalog_file.is_file():
        raise UserError(f"There is no lake in {settings.data_dir}. Set RECSYS_DATA_DIR to the state folder.")
    state, there = settings.data_dir.resolve(), folder.resolve()
    if there.is_relative_to(state) or state.is_relative_to(there):
        raise UserError(f"{folder} and the state folder {state} lie within each other. Choose a folder elsewhere.")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and not is_backup(folder):
        raise UserError(f"{folder} is not empty and holds no backup. Choose an empty folder, or that of a backup.")


def _begins(folder: Path) -> dict[int, int]:
    """Where each partition of the log begins; 0 if it is empty."""
    partitions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []
    return {partition: next(iter(segment_firsts(folder / str(partition))), 0) for partition in partitions}


def _log_files(
    folder: Path, tables: Mapping[str, "Table"], begins: Mapping[int, int]
) -> tuple[list[File], dict[int, int]]:
    """The segments of each partition up to its last whole line, and the ends of the partitions.

    Raises:
        Transient: it was pruned meanwhile, of lines that a table still needs.
    """
    files, ends = [], dict.fromkeys(begins, 0)
    for partition, begin in begins.items():
        place = folder / str(partition)
        pruned = (
            f"Partition {partition} of the log was pruned while the backup was made. Run it again; a longer "
            "RECSYS_DATA_LOG_RETENTION_HOURS leaves it more time."
        )
        firsts = segment_firsts(place)
        # A table that was never fed from the partition begins with what the log keeps. What it did not keep any more
        # before the backup (of a dataset without a contract, or lost) nobody can bring back.
        ledgers = map(read_ledger, tables.values())
        read = [max(begin, one.positions[partition]) for one in ledgers if partition in one.positions]
        if firsts and min(read, default=firsts[0]) < firsts[0]:
            raise Transient(pruned)
        for first in firsts:
            path = segment_path(place, first)
            try:
                size = _whole_size(path, active=first == firsts[-1])
            except FileNotFoundError:
                raise Transient(pruned) from None
            files.append(File(f"log/{partition}/{path.name}", path, size, pruned))
            ends[partition] = first + size
    return files, ends


def _whole_size(path: Path, active: bool) -> int:
    """Bytes of a segment that are there to stay."""
    with path.open("rb", buffering=0) as file:
        if not active:
            return os.fstat(file.fileno()).st_size
        size = whole_length(file.fileno())
        # As for a consumer: a line that is not on the disk yet could vanish, and another one get its position.
        sync(file.fileno())
        return size


def _folder_files(root: Path, folder: Path) -> Iterator[File]:
    """Whatever is in a folder; Dagster removes files of its own while it runs."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(BESIDE_DATABASES):
            yield File(str(path.relative_to(root)), path)


def _add(store: Store, file: File) -> None:
    try:
        if file.target.endswith(DATABASE) and isinstance(file.path, Path):
            store.add_database(file.target, file.path)
        else:
            store.add(file.target, file.path, file.size)
    except FileNotFoundError:
        if file.if_missing:
            raise Transient(file.if_missing) from None
