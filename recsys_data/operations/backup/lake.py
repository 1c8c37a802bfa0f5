"""The lake in a backup: its catalog as of one moment, and every file that the catalog's tables refer to.

Data flow: live catalog -> copy -> metadata of its tables -> manifests -> data files. The catalog comes first: what it
refers to is immutable, and table maintenance keeps it for a day after nothing refers to it any more, so that commits,
snapshots and maintenance go on meanwhile. Only metadata files go sooner, with every commit; the current ones are copied
together with the catalog. Of a catalog or a warehouse that is not in the state folder, `lake/catalog.json` says where
the metadata of each table is.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from recsys_data.durable import local_path
from recsys_data.errors import Permanent, Transient
from recsys_data.operations.backup.store import Object, Store
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.catalog import FILE_IO, metadata_locations, open_catalog
from recsys_data.storage.iceberg.pyiceberg_patches import file_io_of
from recsys_data.storage.intent import FOLDER, intent_location, intent_of
from recsys_data.storage.ledger import OUTBOX, read_deletions, read_ledger
from recsys_data.storage.maintenance.orphans import references
from recsys_data.storage.tables import NAMESPACE

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

    from recsys_data.storage.iceberg.file_io import DurableFileIO

CATALOG = "catalog.json"
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
    path: Path | Object
    size: int | None = None
    if_missing: str | None = None


def is_elsewhere(settings: Settings) -> bool:
    """Whether the lake is not in the state folder alone."""
    return bool(settings.catalog or settings.warehouse)


def add_remote_catalog(store: Store, settings: Settings) -> dict[str, "Table"]:
    """The same as `add_catalog` of a lake whose catalog or warehouse is elsewhere.

    Raises:
        Transient: the tables changed faster than they could be read.
    """
    from pyiceberg.table import StaticTable

    catalog, warehouse = open_catalog(settings), settings.warehouse_location
    io = cast("DurableFileIO", file_io_of(catalog, warehouse))
    for _ in range(ATTEMPTS):
        listed = metadata_locations(catalog)
        try:
            tables: dict[str, Table] = {
                name: StaticTable.from_metadata(location, catalog.properties) for name, location in listed.items()
            }
            for table in tables.values():
                _add_current(store, warehouse, table, io)
            _add_intents(store, warehouse, tables, io)
        except FileNotFoundError:
            store.begin()
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CATALOG
            path.write_bytes(msgspec.json.encode(listed))
            store.add(f"lake/{CATALOG}", path)
        return tables
    raise Transient(f"The lake in {warehouse} changed too fast to be read in {ATTEMPTS} attempts. Try again.")


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
            tables[identifier[-1]] = catalog.load_table(identifier)
        io = cast("DurableFileIO", file_io_of(catalog, str(folder)))
        for table in tables.values():
            _add_current(store, str(folder), table, io)
        _add_intents(store, str(folder), tables, io)


def _add_current(store: Store, warehouse: str, table: "Table", io: "DurableFileIO") -> None:
    """Copy what only the current commit of a table refers to."""
    store.add(*_place(warehouse, table.metadata_location, io))
    # What a replay has taken out and not yet brought to the event log is nowhere else.
    for box in read_deletions(table).outbox:
        store.add(*_place(warehouse, f"{warehouse}/{OUTBOX}/{box.file}", io))


def _add_intents(store: Store, warehouse: str, tables: dict[str, "Table"], io: "DurableFileIO") -> None:
    """Copy the last intent, and the files of it that some tables do not have yet: nothing else refers to them.

    Raises:
        FileNotFoundError: it is gone, because consumers have committed since the catalog was copied.
    """
    ledgers = {name: read_ledger(table) for name, table in tables.items()}
    names = {name for ledger in ledgers.values() for name in (ledger.intent, *ledger.intents.values()) if name}
    intents = [intent for name in names if (intent := intent_of(io, warehouse, name))]
    if names and not intents:
        raise FileNotFoundError(f"{warehouse}/{FOLDER}")
    for intent in intents:
        store.add(*_place(warehouse, intent_location(warehouse, intent.name), io))
        for table, part in intent.tables.items():
            if table in ledgers and part.is_pending(ledgers[table]):
                for file in part.files:
                    store.add(*_place(warehouse, file.location, io))


def _catalog(path: Path, warehouse: Path) -> "SqlCatalog":
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import URL

    uri = URL.create("sqlite", database=str(path)).render_as_string()
    return SqlCatalog("recsys_data", uri=uri, warehouse=str(warehouse), **{"py-io-impl": FILE_IO})


def lake_files(warehouse: str, tables: Mapping[str, "Table"]) -> Iterator[File]:
    """Everything that the tables refer to.

    Raises:
        Permanent: a table lies elsewhere.
    """
    for name, table in tables.items():
        for location in references(table):
            target, path = _place(warehouse, location, table.io)
            removed = (
                f"{path} of {name} was removed while the backup was made. A backup has about a day before maintenance "
                "removes files. Run it again: it continues where this one ended."
            )
            # Earlier metadata is removed with every commit, and no reader needs it.
            yield File(target, path, None, None if location.endswith(".metadata.json") else removed)


def _place(warehouse: str, location: str, io: "FileIO") -> tuple[str, Path | Object]:
    """Where a file belongs below the state folder, and where it is."""
    path = local_path(location)
    spelled = location if path is None else str(path)
    if not spelled.startswith(f"{warehouse}/"):
        raise Permanent(f"The lake in {warehouse} refers to {location}, outside of it. Was it moved?")
    return f"lake/{spelled.removeprefix(f'{warehouse}/')}", path or Object(cast("DurableFileIO", io), location)
