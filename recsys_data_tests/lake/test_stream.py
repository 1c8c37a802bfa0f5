"""The stream, snapshots and their history in a lake, wherever it is."""

# ruff: noqa: F401
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys_data.contracts import Contract
from recsys_data.errors import UserError
from recsys_data.monitoring.doctor import tables as doctor
from recsys_data.monitoring.doctor.deployment import open_deployment
from recsys_data.monitoring.status import read_status
from recsys_data.monitoring.verification import verify
from recsys_data.operations.backup.backup import back_up
from recsys_data.operations.backup.restore import restore
from recsys_data.storage.guard.read_only import answered
from recsys_data.storage.iceberg.catalog import NAMESPACE
from recsys_data.storage.maintenance.compaction import maintain_table
from recsys_data_tests.ingestion.conftest import MakePlatform
from recsys_data_tests.ingestion.streaming.test_replay import (
    changed,
    lenient,
    lenient_session,
    test_lines_that_the_contracts_take_now_are_replayed_once,
)
from recsys_data_tests.support.histories import Histories, moment, oracle, things
from recsys_data_tests.support.lakes import Place
from recsys_data_tests.support.platform import Platform, identify, view

pytestmark = pytest.mark.integration


@pytest.fixture
def platform(make_platform: MakePlatform, place: Place) -> Platform:
    return make_platform(**place._asdict())


def count(platform: Platform, what: str, as_of: str | None = None) -> int:
    with answered(platform.open_lake(), f"SELECT count(*) AS n FROM {what}", as_of) as result:
        return next(iter(result.batches))["n"][0].as_py()


def test_each_line_has_one_outcome_and_sql_sees_it(platform: Platform) -> None:
    platform.append([view("a"), view("b", day=2), view("a"), b"not json", identify("i")])
    platform.append([view(f"c{n}", day=1 + n % 20) for n in range(200)], writer=1)
    platform.consume()
    first = datetime.now(UTC)
    time.sleep(0.01)
    platform.append([view("d"), view("b", day=2)])
    platform.consume()
    ledger = platform.ledger()
    assert ledger.balanced
    assert (ledger.read, ledger.accepted, ledger.duplicates, ledger.dead_letters) == (207, 204, 2, 1)
    assert count(platform, "interactions") == 203
    assert count(platform, "interactions WHERE event_id LIKE 'c%'") == 200
    assert count(platform, "dead_letters") == 1
    assert count(platform, "interactions", first.isoformat()) == 202
    assert maintain_table(platform.open_lake(), "interactions").orphans.removed == 0
    assert count(platform, "interactions") == 203


def test_status_doctor_and_verification_read_it(platform: Platform) -> None:
    platform.append([view("a"), b"not json", view("a")])
    platform.consume()
    status = read_status(platform.log, platform.open_lake(), platform.settings)
    assert (status.log.lag_events, status.ledger.read) == (0, 3)
    assert not [one for one in verify(platform.open_lake(), platform.log, platform.settings) if one.state != "ok"]
    there = open_deployment(platform.settings, platform.contracts)
    assert there.lake is not None
    (found,) = doctor.table(there.lake, "interactions")
    assert (found.state, "1 rows in 1 data files, each there; 1 read and sound" in found.found) == ("ok", True)
    file = next(iter(platform.lake.table("interactions").scan().plan_files())).file.file_path
    platform.lake.io.delete(file)
    (found,) = doctor.table(there.lake, "interactions")
    assert (found.state, f"{file} is missing" in found.found) == ("problem", True)


def test_snapshots_become_a_history(tmp_path: Path, place: Place) -> None:
    histories = Histories(tmp_path, things(tmp_path / "contracts"), **place._asdict())
    days = {
        0: [{"id": "x", "a": 1, "tags": ["p"]}, {"id": "y", "a": 2}],
        1: [{"id": "x", "a": 1, "tags": ["p"]}, {"id": "y", "a": 3, "more": [("k", "v")]}, {"id": "z"}],
        3: [{"id": "y", "a": 3, "more": [("k", "v")]}, {"id": "z", "it's b": "text"}],
    }
    for number, rows in days.items():
        histories.take(number, rows)
        histories.bring()
    stored = {number: (rows, moment(number + 1)) for number, rows in days.items()}
    assert histories.periods() == oracle(histories.contract, stored)
    assert len(histories.as_of(moment(2.5))) == 3
    assert histories.sql("SELECT count(*) FROM things_history WHERE is_current") == [(2,)]


def test_a_backup_is_restored_into_an_empty_warehouse_and_catalog(platform: Platform, tmp_path: Path) -> None:
    platform.append([view("a"), b"not json", identify("i")])
    platform.consume()
    platform.append([view("b", day=2)])
    platform.consume()
    platform.append([view("later")])
    made = back_up(platform.settings, tmp_path / "backup")
    again = back_up(platform.settings, tmp_path / "backup")
    assert (made.copied_files > 10, again.copied_files <= 1) == (True, True)
    platform.close()
    shutil.rmtree(platform.settings.data_dir)
    if platform.settings.warehouse:
        catalog = platform.lake.catalog
        with pytest.raises(UserError, match="The catalog has tables already"):
            restore(platform.settings, tmp_path / "backup")
        for table in catalog.list_tables(NAMESPACE):
            catalog.drop_table(table)
        for file in platform.lake.io.files_below(platform.lake.warehouse):
            platform.lake.io.delete(file.location)
    restore(platform.settings, tmp_path / "backup")
    restored = Platform(platform.settings.data_dir, platform.contracts, **place_of(platform))
    assert count(restored, "interactions") == 2
    restored.consume()
    assert restored.ledger().balanced
    assert sorted(restored.ids()) == ["a", "b", "later"]
    restored.close()


def place_of(platform: Platform) -> dict[str, Any]:
    return {"warehouse": platform.settings.warehouse, "catalog": platform.settings.catalog}
