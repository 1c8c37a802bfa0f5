"""The Iceberg catalog: PyIceberg's SqlCatalog on SQLite in the lake folder, and what its errors mean."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog

NAMESPACE = "recsys"


def open_catalog(file: Path) -> "SqlCatalog":
    """The catalog of the lake in the folder of `file`, its database; created if there is none yet.

    Raises:
        OperationalError: its database cannot be opened.
    """
    from sqlalchemy.exc import OperationalError

    try:
        return _open(file)
    except OperationalError as error:
        if "already exists" not in str(error.orig):
            raise
        # Two processes created it at once, and this one came second.
        return _open(file)


def _open(file: Path) -> "SqlCatalog":
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import NamespaceAlreadyExistsError
    from sqlalchemy import URL
    from sqlalchemy.exc import IntegrityError

    catalog = SqlCatalog(
        "recsys_data",
        uri=URL.create("sqlite", database=str(file), query={"timeout": "30"}).render_as_string(),
        # No file: URI, whose escapes (a blank in a folder's name) PyIceberg would take for the name itself.
        warehouse=str(file.parent),
        **{"py-io-impl": "recsys_data.storage.iceberg.file_io.DurableFileIO"},
    )
    _sync_journals(catalog)
    # The second of two that make it at once gets the one error or the other.
    with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
        catalog.create_namespace(NAMESPACE)
    return catalog


def _sync_journals(catalog: "SqlCatalog") -> None:
    """Let SQLite sync the removal of its journal too.

    With its default (FULL) a power failure may bring back the journal, and with it the state before the last commit,
    although what followed that commit (an outbox that was removed, an intent) is on the disk.
    """
    from sqlalchemy import event

    event.listen(catalog.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = EXTRA"))
    # It applies to new connections only.
    catalog.engine.dispose()


def metadata_location(catalog: "SqlCatalog", name: tuple[str, str]) -> str | None:
    """Where the metadata of a table is, by the catalog alone; None if there is no such table."""
    from pyiceberg.catalog.sql import IcebergTables
    from sqlalchemy import select

    found = select(IcebergTables.metadata_location).where(
        IcebergTables.catalog_name == catalog.name,
        IcebergTables.table_namespace == name[0],
        IcebergTables.table_name == name[1],
    )
    with catalog.engine.connect() as connection:
        return connection.execute(found).scalar()


def commit_failures() -> tuple[type[Exception], ...]:
    """The errors by which a catalog reports that a commit failed. It may have taken the commit all the same.

    A SQL catalog may lose its connection after COMMIT; a REST catalog answers 500, 502 or 504, or its answer is lost.
    """
    import requests
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ServiceUnavailableError
    from sqlalchemy.exc import InterfaceError, OperationalError

    return (
        CommitFailedException,
        CommitStateUnknownException,
        ServiceUnavailableError,
        requests.ConnectionError,
        requests.Timeout,
        InterfaceError,
        OperationalError,
    )
