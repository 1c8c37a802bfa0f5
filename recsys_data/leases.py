"""Who may work: kernel locks on files, which end with their process, however it ends.

They save work on one machine. What keeps tables right across machines is the compare-and-set of their commits.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from recsys_data.errors import Transient

POLL_SECONDS = 0.02


@contextlib.contextmanager
def file_lock(path: Path, wait_seconds: float, shared: bool = False) -> Iterator[bool]:
    """Hold a lock file; gives False where another process still holds it after `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        while not (taken := try_lock(file, shared)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        yield taken


@contextlib.contextmanager
def exclusive(path: Path, busy: str, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a lock file alone.

    Raises:
        Transient: another process still holds it after `wait_seconds`; with the text `busy`.
    """
    with file_lock(path, wait_seconds) as taken:
        if not taken:
            raise Transient(busy)
        yield


def try_lock(file: BinaryIO | int, shared: bool = False) -> bool:
    """Lock an open file or folder, unless another holds it; closing it unlocks it."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: BinaryIO) -> None:
    """Let others lock the file while it stays open."""
    fcntl.flock(file, fcntl.LOCK_UN)
