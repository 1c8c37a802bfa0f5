"""Folders for what is only needed while something runs, gone afterwards even if it crashed.

Each is locked by the process that uses it; what nobody locks was left behind by a crash.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch(staging: Path, purpose: str) -> Iterator[Path]:
    """A new folder below `staging`; those of earlier crashes for the same purpose are removed first."""
    staging.mkdir(parents=True, exist_ok=True)
    for left in staging.glob(f"{purpose}.*"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(left):
            shutil.rmtree(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}.", dir=staging))
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(folder):
            # Somebody who cleans up may have taken it for a left one before it was locked.
            if folder.exists():
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder)
                return


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
