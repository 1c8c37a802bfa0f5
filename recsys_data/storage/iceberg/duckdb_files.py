"""Files of the warehouse as DuckDB reads and writes them, through the lake's own file access.

DuckDB's extension for S3 is installed from the network when it is first used, and knows neither the settings of the
lake nor a catalog's. DuckDB asks for ranges of a file, a row group's columns at a time, so that memory stays bounded.
"""

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

if TYPE_CHECKING:
    from pyarrow import NativeFile

    from recsys_data.storage.iceberg.file_io import DurableFileIO

# Data files never change.
WRITTEN = datetime(1970, 1, 1, tzinfo=UTC)


class _Reader(threading.local):
    """A file that several threads read at once, each at a place of its own.

    DuckDB's threads share a file, and each sets the place and reads in two calls. With one place for all, a thread gets
    what lies where another one set it.
    """

    def __init__(self, file: "NativeFile") -> None:
        self._file = file
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence:
            raise ValueError(f"Found whence {whence}; expected 0, an offset from the beginning.")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        found: bytes = self._file.read_at(self._file.size() - self._at if size < 0 else size, self._at)
        self._at += len(found)
        return found

    def close(self) -> None:
        self._file.close()


class WarehouseFiles(AbstractFileSystem):
    """What DuckDB uses of a file system. Names are taken as they are: no patterns, and no folders to make."""

    protocol = "s3"
    # Instances are made once for a process.
    cachable = False

    def __init__(self, io: "DurableFileIO") -> None:
        super().__init__()
        self._io = io
        self._sizes: dict[str, int] = {}

    def open(
        self, path: str, mode: str = "rb", block_size: object = None, cache_options: object = None, *_: Any, **__: Any
    ) -> Any:
        """Open a file; a new one is there once it is closed."""
        files, place = self._io.file_system(path)
        if "w" in mode:
            return files.open_output_stream(place, compression=None)
        opened = files.open_input_file(place)
        self._sizes[path] = opened.size()
        return _Reader(opened)

    def size(self, path: str) -> int:
        """Its bytes; DuckDB asks right after it opened the file."""
        return self._sizes.pop(path, None) or self._io.file_system(path)[0].get_file_info(self._place(path)).size

    def _place(self, path: str) -> str:
        return self._io.file_system(path)[1]

    def modified(self, path: str) -> datetime:
        """The same for all, because none changes."""
        return WRITTEN

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """The file itself; whether it is there shows when it is opened."""
        return [path]

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is a file."""
        return self.isfile(path)

    def isfile(self, path: str) -> bool:
        """Whether there is a file."""
        return self._io.found(path) is not None

    def isdir(self, path: str) -> bool:
        """True, because a folder needs not be made."""
        return True
