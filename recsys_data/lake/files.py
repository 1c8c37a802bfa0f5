"""Durable files: what a catalog commit refers to must outlive a power failure.

PyIceberg does not sync what it writes, while its catalog (SQLite) does, so a crash could leave a table that
points at empty files. `DurableFileIO` syncs every local metadata file when it is closed; `sync_all` does the
same for the data files that we write ourselves.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlparse

from pyiceberg.io import OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFileIO


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


class _DurableStream:
    """An output stream that is on the disk when it is closed."""

    def __init__(self, stream: OutputStream, path: Path) -> None:
        self._stream = stream
        self._path = path

    def write(self, data: bytes) -> int:
        return self._stream.write(data)

    def close(self) -> None:
        self._stream.close()
        sync_all([self._path])

    def __enter__(self) -> "_DurableStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DurableFileIO(PyArrowFileIO):
    """PyIceberg's own file access, with local files synced on close. Named in the catalog's `py-io-impl`."""

    def new_output(self, location: str) -> OutputFile:
        output = super().new_output(location)
        path = local_path(location)
        if path is None:
            return output
        create = output.create

        def create_durably(overwrite: bool = False) -> OutputStream:
            return _DurableStream(create(overwrite), path)

        output.create = create_durably
        return output
