"""PyIceberg's file access with local files synced on close; named in the catalog's `py-io-impl`.

PyIceberg does not sync what it writes, while its catalog (SQLite) does, so a crash could leave a table that
points at empty metadata files. Data files are written and synced by `parquet.py`.
"""

import contextlib
from pathlib import Path
from types import TracebackType

from pyiceberg.io import InputFile, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from recsys_data.durable import local_path, sync_all, sync_file

# How the name of a table's first metadata file begins.
FIRST = "00000-"


class _DurableStream:
    """An output stream that is on the disk when it is closed."""

    def __init__(self, stream: OutputStream, path: Path) -> None:
        self._stream = stream
        self._path = path

    def write(self, b: bytes) -> int:
        return self._stream.write(b)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        sync_all([self._path])
        if self._path.name.startswith(FIRST):
            # The table's folder is new, and so may be those of its namespace and of the lake.
            for folder in self._path.parents[2:5]:
                sync_file(folder)

    def __enter__(self) -> "_DurableStream":
        return self

    def __exit__(
        self,
        exctype: type[BaseException] | None,
        excinst: BaseException | None,
        exctb: TracebackType | None,
    ) -> None:
        self.close()


class DurableFileIO(PyArrowFileIO):
    """PyIceberg's own file access, with local files synced on close. Named in the catalog's `py-io-impl`."""

    def new_output(self, location: str) -> PyArrowFile:
        output = super().new_output(location)
        path = local_path(location)
        if path is None:
            return output
        create = output.create

        def create_durably(overwrite: bool = False) -> OutputStream:
            return _DurableStream(create(overwrite), path)

        output.create = create_durably
        return output

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file; one that is gone already is as good as deleted.

        A commit removes the metadata files that fell out of the log of the metadata *it began with*. If another
        process forgot snapshots meanwhile, which leaves the head as it was and so does not refuse the commit, that
        process has removed the same files, and PyIceberg would warn that it failed to.
        """
        with contextlib.suppress(FileNotFoundError):
            super().delete(location)
