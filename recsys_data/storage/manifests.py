"""Manifests that are read once, for work that goes through all of a table's again and again."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from cachetools import LRUCache, cached

if TYPE_CHECKING:
    from pyiceberg.io import FileIO
    from pyiceberg.manifest import ManifestEntry, ManifestFile
    from pyiceberg.table import Table

# Entries, which take about two kilobytes each.
ENTRIES_KNOWN = 100_000


@contextmanager
def remembered_manifests() -> Iterator[None]:
    """Within this, whatever PyIceberg does in this process reads a manifest once: its file never changes."""
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


def read_manifests(table: "Table") -> None:
    """Read the manifests of the table's loaded snapshot that are not remembered yet."""
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        manifest.fetch_manifest_entry(table.io)
