"""Spark sessions whose catalog is the lake's own.

Spark finds the tables by the names that PyIceberg gives them, `recsys_data.recsys.interactions`, and commits to them
through the same catalog. The session is started when it is first asked for, and lives as long as the process. What the
settings do not say (memory, executors) stands in Spark's own `spark-defaults.conf`.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_data.errors import Transient, UserError
from recsys_data.redaction import redacted
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.catalog import NAME, s3_properties

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# For pyspark 4.1, which takes them from Maven Central where no folder of jars is named.
ICEBERG = "1.11.0"
RUNTIME = f"org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:{ICEBERG}"
SQLITE = "org.xerial:sqlite-jdbc:3.46.1.3"
POSTGRESQL = "org.postgresql:postgresql:42.7.7"
AWS = f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG}"
# What a commit of PyIceberg to SQLite may take.
BUSY_MILLISECONDS = 30_000


@functools.cache
def spark_session(settings: Settings) -> "SparkSession":
    """The session of these settings, in UTC.

    Raises:
        UserError: pyspark is not installed, or the lake's catalog is none that Spark is set up for here.
        Transient: Spark cannot be started or reached.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise UserError("RECSYS_DATA_ENGINE asks for Spark, which needs `pip install 'recsys-data[spark]'`.") from None
    address, catalog = settings.engine, catalog_options(settings)
    builder = SparkSession.builder
    if not address.startswith("sc://"):
        # A server of Spark Connect has its own.
        builder = builder.master(address).appName("recsys-data").config("spark.ui.showConsoleProgress", "false")
        for name, value in _jars(settings).items():
            builder = builder.config(name, value)
    try:
        if address.startswith("sc://"):
            session = builder.remote(address).create()
        else:
            # Of a session of its own, so that another lake can have another catalog of the same name.
            session = builder.getOrCreate().newSession()
        for name, value in {**catalog, "spark.sql.session.timeZone": "UTC"}.items():
            session.conf.set(name, value)
        session.sql(f"SHOW NAMESPACES IN {NAME}").collect()
    except (PySparkException, Py4JError, OSError, RuntimeError) as error:
        raise Transient(
            f"Spark at {address} cannot be used: {_said(error, settings)}. Does it run, and is Java 17 installed here?"
        ) from error
    return session


@contextlib.contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Within this, errors of Spark become `Transient`."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise Transient(f"Spark at {settings.engine} failed: {_said(error, settings)}. Try again.") from error


def _said(error: Exception, settings: Settings) -> str:
    """What an error of Spark says in a line, without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line of what py4j raises names the call, the second the error.
    return redacted(" ".join(lines[:2]) or type(error).__name__, settings.secrets)


def catalog_options(settings: Settings) -> dict[str, str]:
    """What Spark must know to use the lake's catalog.

    Raises:
        UserError: the catalog is neither on SQLite nor on PostgreSQL.
    """
    from sqlalchemy import make_url

    catalog = {
        "type": "jdbc",
        "warehouse": settings.warehouse_location,
        # PyIceberg has made its tables.
        "jdbc.init-catalog-tables": "false",
        # What others have committed is to be seen at once.
        "cache-enabled": "false",
    }
    if not settings.catalog:
        catalog["uri"] = f"jdbc:sqlite:{settings.catalog_file}?busy_timeout={BUSY_MILLISECONDS}"
    elif settings.catalog.startswith("postgresql://"):
        url = make_url(settings.catalog)
        catalog["uri"] = f"jdbc:postgresql://{url.host}:{url.port or 5432}/{url.database}"
        catalog |= {"jdbc.user": url.username or "", "jdbc.password": str(url.password or "")}
    else:
        raise UserError(
            f"RECSYS_DATA_ENGINE is {settings.engine}, which works with catalogs on SQLite and PostgreSQL; "
            "RECSYS_DATA_CATALOG names another. Set RECSYS_DATA_ENGINE=duckdb."
        )
    if settings.warehouse:
        catalog |= {"io-impl": "org.apache.iceberg.aws.s3.S3FileIO", **_objects(settings)}
    name = f"spark.sql.catalog.{NAME}"
    return {name: "org.apache.iceberg.spark.SparkCatalog", **{f"{name}.{key}": one for key, one in catalog.items()}}


def _objects(settings: Settings) -> dict[str, str]:
    given = s3_properties(settings)
    found = {"client.region": given.get("s3.region"), "s3.endpoint": given.get("s3.endpoint")}
    return {
        **{name: value for name, value in found.items() if value},
        "s3.path-style-access": str("s3.endpoint" in given).lower(),
    }


def _jars(settings: Settings) -> dict[str, str]:
    """The Iceberg runtime and the driver of the catalog: of a folder, or as Spark itself fetches them."""
    if settings.spark_jars:
        folder = Path(settings.spark_jars).expanduser().absolute()
        jars = sorted(map(str, folder.glob("*.jar")))
        if not any("iceberg-spark-runtime" in jar for jar in jars):
            raise UserError(
                f"RECSYS_DATA_SPARK_JARS names {folder}, which has no iceberg-spark-runtime-*.jar. Put it and "
                "the driver of the catalog there, or unset the setting; Spark then fetches them from Maven Central."
            )
        return {"spark.jars": ",".join(jars)}
    wanted = [RUNTIME, POSTGRESQL if settings.catalog else SQLITE, *([AWS] if settings.warehouse else [])]
    return {"spark.jars.packages": ",".join(wanted)}
