import gc
import os
import shutil
from pathlib import Path

import hypothesis
import pytest

MEMORY = Path("/dev/shm")
ROOM = 4 << 30

# Property tests try a few examples, always the same. `HYPOTHESIS_PROFILE=long` tries many, other ones each time;
# tests that name a number of their own keep it.
hypothesis.settings.register_profile("few", max_examples=25, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("long", max_examples=250, deadline=None, derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


def pytest_configure() -> None:
    """Keep the folders of tests in memory where there is room: tests sync thousands of files."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are processors, because tests also wait: for processes, timers and disks."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of real public data sets; tests that want them are skipped where there is none."""
    named = os.environ.get("RECSYS_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no public data sets in {folder}; set RECSYS_TEST_DATA")
    return folder
