"""A backup of all state of one machine, made while everything goes on: the lake, the event log, what is held back.

Data flow: catalog of the lake -> event log up to a whole line -> files of the lake -> one point (`store.py`).
The log is copied after the catalog: what the catalog does not have yet is in the log, and the first drain after a
restore stores it. Restoring is `restore.py`. Run alone: `recsys-data backup FOLDER`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from recsys_data.errors import Transient, UserError
from recsys_data.ingestion.streaming.log.embedded.segments import segment_firsts, segment_path, sync, whole_length
from recsys_data.leases import file_lock
from recsys_data.operations.backup.lake import LakePoint, add_catalog, add_files
from recsys_data.operations.backup.store import INDEX, LOCK, Store
from recsys_data.settings import Settings

VERSION = 1
DATABASE = ".db"
# Parts of databases, which are copied whole.
BESIDE_DATABASES = ("-wal", "-shm", "-journal")


class Facts(msgspec.Struct, frozen=True):
    """What a backup says of itself.

    Attributes:
        data_dir: the state folder; Iceberg's metadata name files by their whole path, so it is restored to this one.
        made_at: when its catalog was copied.
        positions: end of the copied log by partition.
        dagster: whether Dagster's storage is part of it.
    """

    version: int
    data_dir: str
    made_at: datetime
    positions: dict[int, int]
    dagster: bool


@dataclass(slots=True)
class Progress:
    """Who watches: is told the name of each step, more bytes to expect, and bytes that were settled."""

    step: Callable[[str], None] = lambda name: None
    expected: Callable[[int], None] = lambda count: None
    done: Callable[[int], None] = lambda count: None


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made: all of it, and what had to be copied for it."""

    facts: Facts
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int


def back_up(settings: Settings, folder: Path, dagster: bool = False, progress: Progress | None = None) -> Made:
    """Make a new point of the backup in `folder`, or bring the one there up to date.

    Args:
        settings: whose state folder is backed up; the event log must be the embedded one.
        folder: outside of the state folder, on another disk at best.
        dagster: with Dagster's storage, if it lies in the state folder.
        progress: is told.

    Raises:
        UserError: there is nothing to back up, or `folder` cannot take it.
        Transient: state changed too fast, or another backup is being made there; the point before holds.
    """
    progress = progress or Progress()
    check_places(settings, folder)
    with alone(folder), opened(folder) as store:
        _check_same(store, settings)
        store.begin()
        made_at = datetime.now(UTC)
        begins = _begins(settings.log_dir)
        progress.step("catalog")
        point = add_catalog(store, settings.lake_dir)
        progress.step("event log")
        positions = _add_log(store, settings.log_dir, point, begins, progress)
        progress.step("lake")
        add_files(store, settings.lake_dir, point, progress.done, progress.expected)
        _add_folder(store, settings.data_dir, "ingest/held", progress)
        if dagster:
            progress.step("Dagster")
            _add_folder(store, settings.data_dir, "dagster", progress)
            # By these Dagster is told, after a restore, which of its runs ended with the machine.
            _add_folder(store, settings.data_dir, "ingest/runs", progress)
        facts = Facts(VERSION, str(settings.data_dir), made_at, positions, dagster)
        store.publish(msgspec.to_builtins(facts, str_keys=True))
        files, size = store.size()
        return Made(facts, files, size, store.copied_files, store.copied_bytes)


def check_places(settings: Settings, folder: Path) -> None:
    """Refuse what cannot be backed up, or not to there.

    Raises:
        UserError: says why.
    """
    if settings.event_log != "embedded":
        raise UserError(
            "Only the embedded event log is backed up here. Back up the log of RECSYS_DATA_EVENT_LOG with its own "
            "tools, after the lake; see docs/backup.md."
        )
    if not (settings.lake_dir / "catalog.db").is_file():
        raise UserError(f"There is no lake in {settings.data_dir}. Set RECSYS_DATA_DIR to the state folder.")
    state, there = settings.data_dir.resolve(), folder.resolve()
    if there.is_relative_to(state) or state.is_relative_to(there):
        raise UserError(f"{folder} and the state folder {state} lie within each other. Choose a folder elsewhere.")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {LOCK} and INDEX not in names:
        raise UserError(f"{folder} is not empty and holds no backup. Choose an empty folder, or that of a backup.")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one at work on a backup.

    Raises:
        Transient: another one is.
    """
    with file_lock(folder / LOCK, 0) as taken:
        if not taken:
            raise Transient(f"Another process is at work on the backup in {folder}. Wait for it, and try again.")
        yield


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The backup in a folder."""
    store = Store(folder)
    try:
        yield store
    finally:
        store.close()


def facts_of(store: Store) -> Facts | None:
    """What the point says of itself.

    Raises:
        UserError: another version of this program made it.
    """
    told = store.facts()
    if told is None:
        return None
    if told.get("version") != VERSION:
        raise UserError(
            f"The backup in {store.folder} has the form {told.get('version')}; this version of recsys-data knows "
            f"{VERSION}. Use the version that made it."
        )
    return msgspec.convert(told, Facts, strict=False)


def _check_same(store: Store, settings: Settings) -> None:
    facts = facts_of(store)
    if facts and facts.data_dir != str(settings.data_dir):
        raise UserError(f"{store.folder} is the backup of {facts.data_dir}. Choose another for {settings.data_dir}.")


def _begins(folder: Path) -> dict[int, int]:
    """Where each partition of the log begins; 0 if it is empty."""
    partitions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []
    return {partition: next(iter(segment_firsts(folder / str(partition))), 0) for partition in partitions}


def _add_log(
    store: Store, folder: Path, point: LakePoint, begins: Mapping[int, int], progress: Progress
) -> dict[int, int]:
    """Copy each partition up to its last whole line; returns the ends.

    Raises:
        Transient: it was pruned meanwhile, of lines that a table still needs.
    """
    ends: dict[int, int] = {}
    for partition, begin in begins.items():
        place = folder / str(partition)
        firsts = segment_firsts(place)
        # A table that was never fed from the partition begins with what the log keeps. What it did not keep any more
        # before the backup (of a dataset without a contract, or lost) nobody can bring back.
        read = [
            max(begin, ledger.positions[partition])
            for ledger in point.ledgers.values()
            if partition in ledger.positions
        ]
        if firsts and min(read, default=firsts[0]) < firsts[0]:
            raise _pruned(partition)
        ends[partition] = 0
        for first in firsts:
            path = segment_path(place, first)
            try:
                size = _whole_size(path, active=first == firsts[-1])
                progress.expected(size)
                store.add(f"log/{partition}/{path.name}", path, size, progress.done)
            except FileNotFoundError:
                raise _pruned(partition) from None
            ends[partition] = first + size
    return ends


def _pruned(partition: int) -> Transient:
    return Transient(
        f"Partition {partition} of the log was pruned while the backup was made. Run it again; a longer "
        "RECSYS_DATA_LOG_RETENTION_HOURS leaves it more time."
    )


def _whole_size(path: Path, active: bool) -> int:
    """Bytes of a segment that are there to stay."""
    with path.open("rb", buffering=0) as file:
        if not active:
            return os.fstat(file.fileno()).st_size
        size = whole_length(file.fileno())
        # As for a drain: a line that is not on the disk yet could vanish, and another one get its position.
        sync(file.fileno())
        return size


def _add_folder(store: Store, root: Path, name: str, progress: Progress) -> None:
    """Copy whatever is in a folder; databases as of one moment each."""
    for parent, _, names in os.walk(root / name):
        for file in sorted(names):
            path = Path(parent) / file
            target = str(path.relative_to(root))
            if file.endswith(tuple(DATABASE + suffix for suffix in BESIDE_DATABASES)):
                continue
            try:
                progress.expected(path.stat().st_size)
                if file.endswith(DATABASE):
                    store.add_database(target, path)
                    progress.done(path.stat().st_size)
                else:
                    store.add(target, path, path.stat().st_size, progress.done)
            except FileNotFoundError:
                continue  # Dagster removes files of its own while it runs.


def point_of(positions: Mapping[int, int]) -> str:
    """Positions for people: `0: 1,024, 1: 0`."""
    return ", ".join(f"{partition}: {end:,}" for partition, end in sorted(positions.items()))
