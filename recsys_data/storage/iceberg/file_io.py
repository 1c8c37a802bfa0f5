"""The lake's access to files, through which everything goes: PyIceberg's, with what it lacks.

Named in the catalog's `py-io-impl`. Local files are synced on close: PyIceberg does not sync what it writes, while its
catalog (SQLite) does, so a crash could leave a table that points at empty metadata files. Data files are written and
synced by `parquet.py`. Objects in S3 are there as a whole once they are closed.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pyarrow import fs
from pyiceberg.io import InputFile, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from recsys_data.durable import local_path, sync_all, sync_file
from recsys_data.storage.iceberg.pyiceberg_patches import shared_file_systems

# How the name of a table's first metadata file begins.
FIRST = "00000-"


class Retries(fs.AwsDefaultS3RetryStrategy):
    """How often a request to S3 is made again: for about three seconds, longer each time."""

    def __init__(self) -> None:
        super().__init__(max_attempts=7)


class FoundFile(NamedTuple):
    """A file that is there: where, how many bytes it has, and when it was written (seconds since 1970)."""

    location: str
    bytes: int
    written: float


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

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self.fs_by_scheme = shared_file_systems(self)

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

    def found(self, location: str) -> FoundFile | None:
        """The file there; None if there is none."""
        files, path = self.file_system(location)
        info = files.get_file_info(path)
        return FoundFile(location, info.size, info.mtime.timestamp()) if info.is_file else None

    def files_below(self, location: str) -> Iterator[FoundFile]:
        """The files below a folder, one of its folders at a time in memory; none where there is no such folder."""
        folder = local_path(location)
        if folder is not None:
            yield from _local_files(os.path.normpath(folder))
            return
        files, path = self.file_system(location)
        scheme = location.partition("://")[0]
        for info in files.get_file_info(fs.FileSelector(path, allow_not_found=True)):
            if info.type is fs.FileType.Directory:
                yield from self.files_below(f"{scheme}://{info.path}")
            # What pyarrow leaves in place of folders is an object with a slash at its end.
            elif info.is_file:
                yield FoundFile(f"{scheme}://{info.path}", info.size, info.mtime.timestamp())

    def file_system(self, location: str) -> tuple[fs.FileSystem, str]:
        """The file system of a location, and the path on it."""
        scheme, bucket, path = self.parse_location(location, self.properties)
        return self.fs_by_scheme(scheme, bucket), path


def _local_files(folder: str) -> Iterator[FoundFile]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _local_files(entry.path)
                continue
            # PyIceberg removes old metadata files when it commits.
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                yield FoundFile(entry.path, stat.st_size, stat.st_mtime)
