"""The lake in a backup: its catalog as of one moment, and every file that the catalog's tables refer to.

Data flow: live catalog -> copy -> metadata of its tables -> manifests -> data files. The catalog comes first: what it
refers to is immutable, and table maintenance keeps it for a day after nothing refers to it any more, so that commits,
snapshots and maintenance go on meanwhile. Only metadata files go sooner, with every commit; the current ones are copied
together with the catalog.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recsys_data.durable import local_path
from recsys_data.errors import Permanent, Transient
from recsys_data.operations.backup.store import Store
from recsys_data.storage.iceberg.catalog import FILE_IO
from recsys_data.storage.iceberg.pyiceberg_patches import file_io_of
from recsys_data.storage.intent import FOLDER, intent_location, intent_of
from recsys_data.storage.ledger import OUTBOX, read_deletions, read_ledger
from recsys_data.storage.maintenance.orphans import references
from recsys_data.storage.tables import NAMESPACE

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

# A consumer may commit several times while the catalog is copied.
ATTEMPTS = 5


class File(NamedTuple):
    """A file to copy.

    Attributes:
        target: where it belongs, below the state folder.
        path: where it is.
        size: how many of its bytes to copy; None for all.
        if_missing: what to say when it is gone; None if that is fine.
    """

    target: str
    path: Path
    size: int | None = None
    if_missing: str | None = None


def add_catalog(store: Store, catalog: Path) -> dict[str, "Table"]:
    """Copy the catalog of the lake, and what only its current commits refer to; returns its tables.

    Raises:
        Transient: the tables changed faster than they could be read.
    """
    folder = catalog.parent
    for _ in range(ATTEMPTS):
        tables: dict[str, Table] = {}
        try:
            store.add_database(f"lake/{catalog.name}", catalog, partial(_open, store, folder, tables))
            return tables
        except FileNotFoundError:
            # The metadata file of a moment ago has been removed by a later commit, or an outbox by its replay.
            store.begin()
    raise Transient(f"The lake in {folder} changed too fast to be read in {ATTEMPTS} attempts. Try again.")


def _open(store: Store, folder: Path, tables: dict[str, "Table"], copied: Path) -> None:
    with closing(_catalog(copied, folder)) as catalog:
        for identifier in catalog.list_tables(NAMESPACE):
            table = tables[identifier[-1]] = catalog.load_table(identifier)
            store.add(*_place(folder, table.metadata_location))
            # What a replay has taken out and not yet brought to the event log is nowhere else.
            for box in read_deletions(table).outbox:
                store.add(f"lake/{OUTBOX}/{box.file}", folder / OUTBOX / box.file)
        _add_intents(store, folder, tables, file_io_of(catalog, str(folder)))


def _add_intents(store: Store, folder: Path, tables: dict[str, "Table"], io: "FileIO") -> None:
    """Copy the last intent, and the files of it that some tables do not have yet: nothing else refers to them.

    Raises:
        FileNotFoundError: it is gone, because consumers have committed since the catalog was copied.
    """
    ledgers = {name: read_ledger(table) for name, table in tables.items()}
    names = {name for ledger in ledgers.values() for name in (ledger.intent, *ledger.intents.values()) if name}
    intents = [intent for name in names if (intent := intent_of(io, str(folder), name))]
    if names and not intents:
        raise FileNotFoundError(folder / FOLDER)
    for intent in intents:
        store.add(*_place(folder, intent_location(str(folder), intent.name)))
        for table, part in intent.tables.items():
            if table in ledgers and part.is_pending(ledgers[table]):
                for file in part.files:
                    store.add(*_place(folder, file.location))


def _catalog(path: Path, warehouse: Path) -> "SqlCatalog":
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import URL

    uri = URL.create("sqlite", database=str(path)).render_as_string()
    return SqlCatalog("recsys_data", uri=uri, warehouse=str(warehouse), **{"py-io-impl": FILE_IO})


def lake_files(folder: Path, tables: Mapping[str, "Table"]) -> Iterator[File]:
    """Everything that the tables refer to.

    Raises:
        Permanent: a table lies elsewhere.
    """
    for name, table in tables.items():
        for location in references(table):
            target, path = _place(folder, location)
            removed = (
                f"{path} of {name} was removed while the backup was made. A backup has about a day before maintenance "
                "removes files. Run it again: it continues where this one ended."
            )
            # Earlier metadata is removed with every commit, and no reader needs it.
            yield File(target, path, None, None if location.endswith(".metadata.json") else removed)


def _place(folder: Path, location: str) -> tuple[str, Path]:
    """Where a file belongs below the state folder, and where it is."""
    path = local_path(location)
    if path is None:
        raise Permanent(f"The lake refers to {location}; only files of this machine are backed up.")
    try:
        return f"lake/{path.relative_to(folder)}", path
    except ValueError:
        raise Permanent(f"The lake in {folder} refers to {location}, outside of it. Was it moved?") from None
