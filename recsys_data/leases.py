"""Who may work: kernel locks on files, which end with their process."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

POLL_SECONDS = 0.05


@contextlib.contextmanager
def file_lock(path: Path, wait_seconds: float) -> Iterator[bool]:
    """Hold a lock file; gives False where another process still holds it after `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        while not (taken := _try(file)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        yield taken


def _try(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
