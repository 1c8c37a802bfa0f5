"""Durable files: what a commit refers to must outlive a power failure, and a reader sees whole files only."""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlparse


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
    folders = set()
    for path in paths:
        sync_file(path)
        folders.update((path.parent, path.parent.parent))
    for folder in folders:
        sync_file(folder)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file so that a reader, or a crash, sees the old or the new content and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    sync_file(temporary)
    temporary.replace(path)
    sync_file(path.parent)
