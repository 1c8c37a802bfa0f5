"""Old days leave a lake, wherever it is, and histories outlive their snapshots."""

# ruff: noqa: F401, F811
from functools import partial
from pathlib import Path

import pytest

from recsys_data_tests.ingestion.batch.test_retention import (
    NAME,
    Clock,
    clock,
    keeping,
    test_a_history_outlives_the_snapshots_that_it_is_made_of,
    test_old_days_of_a_stream_are_retired_and_the_ledger_balances,
)
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.support.lakes import Place
from recsys_data_tests.support.snapshots import Batch

pytestmark = pytest.mark.integration


@pytest.fixture
def make_platform(make_platform: MakePlatform, place: Place) -> MakePlatform:
    return partial(make_platform, **place._asdict())


@pytest.fixture
def batch(tmp_path: Path, clock: type[Clock], place: Place) -> Batch:
    """A catalogue of five days, of which the contract keeps three; on each day another item is new."""
    batch = Batch.of(tmp_path, keeping(NAME, 3), **place._asdict())
    for number in range(5, 10):
        batch.land(
            NAME, f"2026-01-{number:02d}", [{"item_id": f"i{n}", "title": f"T{n}"} for n in range(5, number + 1)]
        )
    return batch
