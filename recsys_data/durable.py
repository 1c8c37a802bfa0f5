"""Durable files: what a commit refers to must outlive a power failure, and a reader sees whole files only.

Also folders for what is only needed while something runs.
"""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlparse

from recsys_data.leases import try_lock

# Folders whose entry in the one above this process has synced.
_on_disk: set[Path] = set()
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


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; their entries are on the disk when this returns."""
    missing = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    _on_disk.difference_update(missing)
    sync_entries(folder)


def sync_entries(folder: Path) -> None:
    """Flush the entries of a folder, and of those above it, to the disk; each once by each process.

    Also those of folders that were there: a process may have died between making and syncing them.
    """
    for path in itertools.takewhile(lambda path: path not in _on_disk, (folder, *folder.parents)):
        # Nobody makes folders in one that they may not even list.
        with contextlib.suppress(PermissionError):
            sync_file(path.parent)
        _on_disk.add(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a small file so that a reader, or a crash, sees the old or the new content and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    sync_file(temporary)
    temporary.replace(path)
    sync_file(path.parent)


@contextlib.contextmanager
def scratch(staging: Path, purpose: str) -> Iterator[Path]:
    """A new folder below `staging` that is removed at the end; those that crashes left for the same purpose go first.

    Each is locked by the process that uses it; what nobody locks was left behind by a crash.
    """
    staging.mkdir(parents=True, exist_ok=True)
    for left in staging.glob(f"{purpose}.*"):
        with contextlib.suppress(FileNotFoundError), _locked(left) as mine:
            if mine:
                shutil.rmtree(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}.", dir=staging))
        with contextlib.ExitStack() as stack:
            try:
                mine = stack.enter_context(_locked(folder))
            except FileNotFoundError:
                continue
            # A process that cleans up may have taken it for a left one before it was locked.
            if not mine or not folder.exists():
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
            return


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)
