"""Patches of PyIceberg, and uses of its private names: everything that another version of it may break.

Each was tried with the versions of `TRIED`. With another one they are used all the same, after a warning.
"""

import functools
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from cachetools import LRUCache, cached

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.manifest import ManifestEntry, ManifestFile

logger = logging.getLogger(__name__)

TRIED = ("0.12",)
# Each has connections of its own, and some threads.
FILE_SYSTEMS_KNOWN = 16
# Entries, which take about two kilobytes each.
ENTRIES_KNOWN = 100_000


@functools.cache
def _check_version() -> None:
    found = importlib.metadata.version("pyiceberg")
    if ".".join(found.split(".")[:2]) not in TRIED:
        logger.warning(
            "PyIceberg %s is installed; its internals were tried with %s only. Install one of these, or run the tests.",
            found,
            " and ".join(f"{version}.x" for version in TRIED),
        )


def share_frozen_metadata() -> None:
    """Let copies of a table's metadata share their frozen parts.

    PyIceberg copies the metadata deeply a dozen times a commit, with hundreds of snapshots and entries of logs.
    """
    _check_version()
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table.snapshots import MetadataLogEntry, Snapshot, SnapshotLogEntry
    from pyiceberg.table.sorting import SortOrder

    for frozen in (Schema, PartitionSpec, SortOrder, Snapshot, SnapshotLogEntry, MetadataLogEntry):
        frozen.__deepcopy__ = lambda self, memo=None: self  # type: ignore[method-assign,assignment]


@contextmanager
def remembered_manifests() -> Iterator[None]:
    """Within this, whatever PyIceberg does in this process reads a manifest once: its file never changes."""
    _check_version()
    from pyiceberg.manifest import ManifestFile

    fetch = ManifestFile.fetch_manifest_entry
    known = LRUCache[tuple[str, bool], list["ManifestEntry"]](ENTRIES_KNOWN, getsizeof=lambda entries: 1 + len(entries))

    def key(manifest: "ManifestFile", io: "FileIO", discard_deleted: bool = True) -> tuple[str, bool]:
        return manifest.manifest_path, discard_deleted

    @cached(known, key=key, lock=Lock())
    def once(manifest: "ManifestFile", io: "FileIO", discard_deleted: bool = True) -> list["ManifestEntry"]:
        return fetch(manifest, io, discard_deleted)

    ManifestFile.fetch_manifest_entry = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        ManifestFile.fetch_manifest_entry = fetch  # type: ignore[method-assign]


def file_io_of(catalog: "Catalog", location: str) -> "FileIO":
    """The file access that the catalog gives its tables."""
    _check_version()
    return catalog._load_file_io(location=location)


def shared_file_systems(io: "PyArrowFileIO") -> "Callable[[str, str | None], FileSystem]":
    """Its file systems, shared by all that have the same properties.

    PyIceberg makes a file access, and with it a client of S3 with connections of its own, each time a table is loaded.
    """
    key = tuple(
        sorted((name, str(value)) for name, value in io.properties.items() if name.startswith(("s3.", "client.")))
    )
    return lambda scheme, bucket=None: _file_system(io, key, scheme, bucket)


@cached(LRUCache(FILE_SYSTEMS_KNOWN), key=lambda io, key, scheme, bucket: (key, scheme, bucket), lock=Lock())
def _file_system(io: "PyArrowFileIO", key: object, scheme: str, bucket: str | None) -> "FileSystem":
    _check_version()
    return io._initialize_fs(scheme, bucket)


def commit_once(name: str, region: str, properties: Mapping[str, str]) -> "Catalog":
    """A Glue catalog whose client sends a commit once, and anything else again where it got no answer.

    If the answer to a commit is lost, sending it again finds the table changed. PyIceberg takes that for a commit that
    failed, and deletes the manifests of the one that was made.
    """
    _check_version()
    import boto3
    from botocore.config import Config
    from pyiceberg.catalog.glue import GlueCatalog, _register_glue_catalog_id_with_glue_client

    # Of one session, because a client knows the errors of its session only.
    session = boto3.Session(region_name=region or None)
    again = {"connect_timeout": 10, "read_timeout": 60}
    client = session.client("glue", config=Config(retries={"mode": "standard", "total_max_attempts": 5}, **again))
    once = session.client("glue", config=Config(retries={"mode": "standard", "total_max_attempts": 1}, **again))
    client.update_table = once.update_table
    for one in (client, once):
        if account := properties.get("glue.id"):
            _register_glue_catalog_id_with_glue_client(one, account)
    return GlueCatalog(name, client=client, **properties)
