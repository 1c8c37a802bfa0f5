"""The Iceberg catalog that the settings name, and what its errors mean.

SQLite in the state folder, or by URL PostgreSQL, AWS Glue, or any server of Iceberg's REST protocol. Whatever it is, a
commit is a compare-and-set in it.
"""

import contextlib
import sys
import weakref
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from recsys_data.errors import Transient, UserError
from recsys_data.settings import Settings, variable
from recsys_data.storage.availability import StoreUnavailable
from recsys_data.storage.iceberg.pyiceberg_patches import commit_once

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import Engine

NAMESPACE = "recsys"
NAME = "recsys_data"
FILE_IO = "recsys_data.storage.iceberg.file_io.DurableFileIO"
READS = 20
# The property of a catalog that names the folder of this machine's locks.
LOCKS = "recsys_data.locks"
# A server that went away without a word is given up after a minute, not after two hours.
POSTGRESQL_OPTIONS = {"connect_timeout": "10", "tcp_user_timeout": "60000", "application_name": "recsys-data"}
# Lower bounds of what an object takes; pyarrow sends what is larger in parts.
S3_PATIENCE = {
    "s3.connect-timeout": "10",
    "s3.request-timeout": "60",
    "s3.retry-strategy-impl": "recsys_data.storage.iceberg.file_io.Retries",
}


def open_catalog(settings: Settings) -> "Catalog":
    """The catalog of these settings, with the lake's namespace; what it needs is created if it is not there yet.

    Raises:
        UserError: what it needs is not installed.
        OperationalError, OSError, BotoCoreError, RESTError: it cannot be reached or used.
    """
    own = {"py-io-impl": FILE_IO, LOCKS: str(settings.lake_dir)}
    properties = {**own, "warehouse": settings.warehouse_location, **s3_properties(settings)}
    scheme = settings.catalog.partition("://")[0]
    if scheme == "glue":
        catalog = _glue(settings.catalog, properties)
    elif scheme in ("http", "https"):
        catalog = _rest(settings.catalog, properties)
    else:
        catalog = _sql(settings, properties)
    _create_namespace(catalog)
    return catalog


def _create_namespace(catalog: "Catalog") -> None:
    from pyiceberg.exceptions import NamespaceAlreadyExistsError
    from sqlalchemy.exc import IntegrityError

    # The second of two that make it at once gets the one error or the other.
    with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
        if not catalog.namespace_exists(NAMESPACE):
            catalog.create_namespace(NAMESPACE)


def s3_properties(settings: Settings) -> dict[str, str]:
    """How PyIceberg reaches the objects of the warehouse; keys are found as AWS's tools find them."""
    if not settings.warehouse:
        return {}
    endpoint = variable("AWS_ENDPOINT_URL_S3") or variable("AWS_ENDPOINT_URL")
    region = variable("AWS_REGION") or variable("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    given = {"s3.endpoint": endpoint, "s3.region": region}
    return {**S3_PATIENCE, **{name: value for name, value in given.items() if value}}


def _sql(settings: Settings, properties: dict[str, str]) -> "SqlCatalog":
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    url = _postgresql(settings.catalog) if settings.catalog else _sqlite(settings)
    # A connection that broke while nobody used it is replaced.
    properties = properties | {"uri": url, "pool_pre_ping": str(bool(settings.catalog)).lower()}
    try:
        catalog = SqlCatalog(NAME, **properties)
    except (OperationalError, ProgrammingError, IntegrityError) as error:
        if not any(sign in str(error.orig) for sign in ("already exists", "duplicate key")):
            raise
        # Two processes created it at once, and this one came second.
        catalog = SqlCatalog(NAME, **properties)
    if settings.catalog:
        # Connections to a server are closed with the catalog that they are for.
        weakref.finalize(catalog, catalog.engine.dispose)
    else:
        _sync_journals(catalog)
    return catalog


def _sqlite(settings: Settings) -> str:
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(settings.catalog_file), query={"timeout": "30"}).render_as_string()


def _postgresql(text: str) -> str:
    """The URL for SQLAlchemy, with bounds of our own where it has none."""
    from sqlalchemy import make_url

    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise UserError("A catalog on PostgreSQL needs `pip install 'recsys-data[postgres]'`.") from None
    url = make_url(text)
    return (
        url.set(drivername="postgresql+psycopg")
        .update_query_dict({name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query})
        .render_as_string(hide_password=False)
    )


def _glue(text: str, properties: dict[str, str]) -> "Catalog":
    """`glue://REGION?id=ACCOUNT`: the databases of this region, of another account's if one is named."""
    parts = urlsplit(text)
    given = {f"glue.{name}": value for name, value in parse_qsl(parts.query)}
    return commit_once(NAME, parts.netloc, {**properties, **given})


def _rest(text: str, properties: dict[str, str]) -> "Catalog":
    """`https://HOST/PATH?warehouse=NAME&credential=ID:SECRET`: options are properties of PyIceberg's REST catalog."""
    from pyiceberg.catalog.rest import RestCatalog

    url, _, options = text.partition("?")
    # What a server calls a warehouse is a name of its own, not a location.
    own = {name: value for name, value in properties.items() if name != "warehouse"}
    # As PyIceberg does by itself, but with a warning that tells of its next version.
    login = {"oauth2-server-uri": f"{url.rstrip('/')}/v1/oauth/tokens"}
    return RestCatalog(NAME, **{**own, **login, **dict(parse_qsl(options)), "uri": unquote(url)})


def _sync_journals(catalog: "SqlCatalog") -> None:
    """Let SQLite sync the removal of its journal too.

    With its default (FULL) a power failure may bring back the journal, and with it the state before the last commit,
    although what followed that commit (an outbox that was removed, an intent) is on the disk.
    """
    from sqlalchemy import event

    event.listen(catalog.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = EXTRA"))
    # It applies to new connections only.
    catalog.engine.dispose()


def postgresql_of(catalog: "Catalog") -> "Engine | None":
    """The database of the catalog, if that is PostgreSQL."""
    engine: Engine | None = getattr(catalog, "engine", None)
    return engine if engine is not None and engine.dialect.name == "postgresql" else None


def metadata_location(catalog: "Catalog", name: tuple[str, str]) -> str | None:
    """Where the metadata of a table is, by the catalog alone as far as it has a way; None if there is no such table."""
    from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
    from pyiceberg.exceptions import NoSuchTableError
    from sqlalchemy import select

    if not isinstance(catalog, SqlCatalog):
        try:
            return catalog.load_table(name).metadata_location
        except NoSuchTableError:
            return None
    found = select(IcebergTables.metadata_location).where(
        IcebergTables.catalog_name == catalog.name,
        IcebergTables.table_namespace == name[0],
        IcebergTables.table_name == name[1],
    )
    with catalog.engine.connect() as connection:
        return connection.execute(found).scalar()


def metadata_locations(catalog: "Catalog") -> dict[str, str]:
    """Where the metadata of each table of the lake is, as of one moment."""
    from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
    from sqlalchemy import select

    if isinstance(catalog, SqlCatalog):
        listed = select(IcebergTables.table_name, IcebergTables.metadata_location).where(
            IcebergTables.catalog_name == catalog.name, IcebergTables.table_namespace == NAMESPACE
        )
        with catalog.engine.connect() as connection:
            return {name: location for name, location in connection.execute(listed) if location}
    before: dict[str, str] | None = None
    for _ in range(READS):
        names = [identifier[-1] for identifier in catalog.list_tables(NAMESPACE)]
        found = {name: catalog.load_table((NAMESPACE, name)).metadata_location for name in names}
        # What is the same twice was so in between.
        if found == before:
            return found
        before = found
    raise Transient(f"The tables of the catalog changed {READS} times while they were listed. Try again.")


def commit_failures() -> tuple[type[Exception], ...]:
    """The errors by which a catalog reports that a commit failed. It may have taken the commit all the same.

    A SQL catalog may lose its connection after COMMIT; a REST catalog answers 500, 502 or 504, or its answer is lost;
    Glue throttles, or its answer is lost.
    """
    import requests
    from pyiceberg.exceptions import (
        CommitFailedException,
        CommitStateUnknownException,
        ServerError,
        ServiceUnavailableError,
    )
    from sqlalchemy.exc import InterfaceError, OperationalError

    # What was not imported cannot have been raised.
    aws = sys.modules.get("botocore.exceptions")
    return (
        CommitFailedException,
        CommitStateUnknownException,
        ServiceUnavailableError,
        ServerError,
        StoreUnavailable,
        requests.ConnectionError,
        requests.Timeout,
        InterfaceError,
        OperationalError,
        *((aws.BotoCoreError, aws.ClientError) if aws else ()),
    )
