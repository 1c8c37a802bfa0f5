"""Segment files of the embedded event log: names, whole lines, durability.

A partition is a folder of append-only files, each named by the position of its first byte, so that a
position is found without an index: `00000000000000000000.ndjson`, `00000000000134217728.ndjson`, ...
Nothing here decides anything; the writer (`writer.py`) and the reader (`log.py`) do.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys_data.errors import Transient, UserError

SUFFIX = ".ndjson"
DIGITS = 20
BLOCK = 1 << 20

# What waiting does not cure: somebody has to change a setting, a permission or a mount.
_LASTING = (
    errno.EACCES,
    errno.ENOENT,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about the log's files into an error for the user.

    Raises:
        UserError: the folder cannot be used as it is (permissions, read-only, a file in its place).
        Transient: anything that may pass, such as a full disk.
    """
    try:
        yield
    except OSError as error:
        found = f"{error.strerror} ({error.filename})" if error.filename else error.strerror
        if error.errno in _LASTING:
            raise UserError(
                f"The event log in {folder} cannot be used: {found}. It must be a folder that this user may "
                "read and write: correct its permissions, or choose another with RECSYS_DATA_DIR."
            ) from error
        raise Transient(
            f"The event log in {folder} cannot be used now: {found}. Free disk space or look after the disk, "
            "then try again."
        ) from error


def create_partitions(folder: Path, count: int) -> tuple[int, ...]:
    """The partitions of the log in `folder`; if there are none yet, `count` are created."""
    if not (folder / "0").is_dir():
        ancestors = [path for path in (folder, *folder.parents) if not path.exists()]
        # The highest first, so that the log is complete once 0 is there, whenever a crash cuts this short and
        # whoever else creates it at the same time, be it with another count.
        for partition in reversed(range(count)):
            (folder / str(partition)).mkdir(parents=True, exist_ok=True)
        sync_folder(folder)
        for ancestor in ancestors:
            sync_folder(ancestor.parent)
    return tuple(sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()))


def segment_path(folder: Path, first: int) -> Path:
    """The file whose first byte has position `first`."""
    return folder / f"{first:0{DIGITS}}{SUFFIX}"


def segment_firsts(folder: Path) -> list[int]:
    """Positions of the first bytes of a partition's segments, ascending; the active one last."""
    stems = (path.stem for path in folder.iterdir() if path.suffix == SUFFIX)
    return sorted(int(stem) for stem in stems if len(stem) == DIGITS and stem.isdecimal())


def whole_length(descriptor: int) -> int:
    """Bytes of a segment up to and including its last newline; what follows is not yet an event."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - BLOCK)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def sync(descriptor: int) -> None:
    """Return when the file's content is on the disk."""
    if sys.platform == "darwin":
        import fcntl

        # fsync of macOS leaves the content in the drive's own cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Return when the names of the folder's files are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
