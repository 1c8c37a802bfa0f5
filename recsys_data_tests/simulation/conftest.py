from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for a world, in memory, where inode numbers are never used twice."""
    if not MEMORY.is_dir():
        pytest.skip("the disk of the simulation lies in /dev/shm")
    with TemporaryDirectory(prefix="recsys-simulation-", dir=MEMORY) as folder:
        yield Path(folder)
