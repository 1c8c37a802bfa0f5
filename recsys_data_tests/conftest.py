import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of real public data sets; tests that want them are skipped where there is none."""
    named = os.environ.get("RECSYS_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no public data sets in {folder}; set RECSYS_TEST_DATA")
    return folder
