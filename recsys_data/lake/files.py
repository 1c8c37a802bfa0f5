"""Durable files: what a commit refers to must outlive a power failure, and a reader sees whole files only."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlparse

# Files that are synced side by side rather than one after the other.
MANY = 200
SYNCS_AT_ONCE = 8


def local_path(location: str) -> Path | None:
    """The path of a `file:` location or a plain path; None for anything on another file system."""
    if location.startswith("/"):
        return Path(location)
    parts = urlparse(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Flush files, and the entries of the folders they lie in, to the disk."""
    files = list(paths)
    folders = {folder for path in files for folder in (path.parent, path.parent.parent)}
    for several in (files, sorted(folders)):
        if len(several) < MANY:
            for path in several:
                sync_file(path)
        else:
            # A file system writes its journal once for those that wait at the same time.
            with ThreadPoolExecutor(SYNCS_AT_ONCE, "sync") as pool:
                list(pool.map(sync_file, several))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file so that a reader, or a crash, sees the old or the new content and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    sync_file(temporary)
    temporary.replace(path)
    sync_file(path.parent)
