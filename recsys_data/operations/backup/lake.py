"""The lake in a backup: its catalog as of one moment, and every file that the catalog's tables refer to.

Data flow: live catalog -> copy -> metadata of its tables -> manifests -> data files. The catalog comes first: what it
refers to is immutable, and upkeep leaves it for a day after nothing refers to it any more, so that drains, snapshots
and upkeep go on meanwhile. Only metadata files go sooner, with every commit; of those the current ones are copied at
once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.durable import local_path
from recsys_data.errors import Permanent, Transient
from recsys_data.operations.backup.store import Store, Told
from recsys_data.storage.deletions import OUTBOX, read_removed
from recsys_data.storage.intent import FOLDER, SUFFIX, intent_of, intent_path
from recsys_data.storage.ledger import Ledger, read_ledger
from recsys_data.storage.maintenance.orphans import references
from recsys_data.storage.tables import NAMESPACE

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import Table

CATALOG = "catalog.db"
# A drain may commit several times while the catalog is copied.
ATTEMPTS = 5


@dataclass(slots=True)
class LakePoint:
    """The tables as of the copied catalog; opened, so that their files can be listed."""

    tables: dict[str, "Table"] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)


def add_catalog(store: Store, folder: Path) -> LakePoint:
    """Copy the catalog of the lake in `folder`, and the current metadata of its tables.

    Raises:
        Transient: the tables changed faster than they could be read.
    """
    for _ in range(ATTEMPTS):
        point = LakePoint()
        try:
            store.add_database(f"lake/{CATALOG}", folder / CATALOG, partial(_open, store, folder, point))
        except FileNotFoundError:
            # The metadata file of a moment ago has been removed by a later commit, or an outbox by its replay.
            store.begin()
            continue
        return point
    raise Transient(f"The lake in {folder} changed too fast to be read in {ATTEMPTS} attempts. Try again.")


def _open(store: Store, folder: Path, point: LakePoint, copied: Path) -> None:
    catalog = _catalog(copied, folder)
    try:
        for identifier in catalog.list_tables(NAMESPACE):
            table = catalog.load_table(identifier)
            location = table.metadata_location
            store.add(_target(folder, location), _path(location))
            # What a replay has taken out and not yet brought to the event log is nowhere else.
            for box in read_removed(table).outbox:
                store.add(f"lake/{OUTBOX}/{box.file}", folder / OUTBOX / box.file)
            point.tables[identifier[-1]] = table
            point.ledgers[identifier[-1]] = read_ledger(table)
        _add_intents(store, folder, point)
    finally:
        catalog.close()


def _add_intents(store: Store, folder: Path, point: LakePoint) -> None:
    """Copy the last intent, and the files of it that some tables do not have yet: nothing else refers to them.

    Raises:
        FileNotFoundError: it is gone, because consumers have committed since the catalog was copied.
    """
    names = {ledger.intent for ledger in point.ledgers.values() if ledger.intent}
    intents = [intent for name in names if (intent := intent_of(folder, name))]
    if names and not intents:
        raise FileNotFoundError(folder / FOLDER)
    for intent in intents:
        store.add(f"lake/{FOLDER}/{intent.name}{SUFFIX}", intent_path(folder, intent.name))
        for table, part in intent.tables.items():
            if table in point.ledgers and point.ledgers[table].token == part.base.token:
                for file in part.files:
                    store.add(_target(folder, file.location), _path(file.location))


def _catalog(path: Path, warehouse: Path) -> "SqlCatalog":
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import URL

    uri = URL.create("sqlite", database=str(path)).render_as_string()
    return SqlCatalog("recsys_data", uri=uri, warehouse=str(warehouse))


def add_files(store: Store, folder: Path, point: LakePoint, told: Told, expected: Callable[[int], None]) -> int:
    """Copy everything that the tables of the point refer to; returns how many files that is.

    Args:
        store: where to.
        folder: of the lake.
        point: as `add_catalog` gave it.
        told: is called with the bytes that were settled, piece by piece.
        expected: is called with the bytes of each table before its files are copied.

    Raises:
        Transient: a file was removed meanwhile.
        Permanent: a table lies elsewhere.
    """
    count = 0
    for name, table in point.tables.items():
        # Listed twice, so that a table of any size needs no memory: the manifests are small beside the data.
        expected(sum(_size(path) for _, path in _files(folder, table)))
        for target, path in _files(folder, table):
            try:
                store.add(target, path, told=told)
            except FileNotFoundError:
                # Earlier metadata is removed with every commit, and no reader needs it.
                if path.name.endswith(".metadata.json"):
                    continue
                raise Transient(
                    f"{path} of {name} was removed while the backup was made. A backup has about a day before upkeep "
                    "removes files; run it again, it goes on where this one ended."
                ) from None
            count += 1
    return count


def _files(folder: Path, table: "Table") -> Iterator[tuple[str, Path]]:
    for location in references(table):
        yield _target(folder, location), _path(location)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _path(location: str) -> Path:
    path = local_path(location)
    if path is None:
        raise Permanent(f"The lake refers to {location}; only files of this machine are backed up here.")
    return path


def _target(folder: Path, location: str) -> str:
    """Where a file belongs below the state folder."""
    try:
        return f"lake/{_path(location).relative_to(folder)}"
    except ValueError:
        raise Permanent(f"The lake in {folder} refers to {location}, outside of it. Was it moved?") from None
