from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from recsys_data.contracts import Contract
from recsys_data.settings import Settings
from recsys_data.storage.tables import Lake, open_lake
from recsys_data_tests.support.contract_files import load_one, odcs

OpenLake = Callable[..., Lake]


@pytest.fixture
def notes(tmp_path: Path) -> Contract:
    """A dataset of three columns: event_id, event_ts, note."""
    return load_one(tmp_path / "contracts", odcs())


@pytest.fixture
def open_notes(tmp_path: Path, notes: Contract) -> OpenLake:
    """Opens one lake, each time as another process would, with these contracts (`notes` alone by default)."""

    def open_(contracts: Mapping[str, Contract] | None = None) -> Lake:
        return open_lake(Settings(dir=str(tmp_path / "data")), contracts or {"notes": notes})

    return open_
