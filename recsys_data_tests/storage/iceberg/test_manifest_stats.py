"""What the manifests say of the days of a table that grows, shrinks and is compacted; and how often they are read."""

from collections import Counter

import pytest
from pyiceberg.manifest import ManifestFile

from recsys_data.days import MICROSECONDS_PER_DAY
from recsys_data.storage.iceberg.manifest_stats import DayStats, days
from recsys_data.storage.iceberg.pyiceberg_patches import remembered_manifests
from recsys_data.storage.maintenance.compaction import compact_days
from recsys_data_tests.storage.conftest import OpenLake
from recsys_data_tests.support.rows import append, rows

FIRST = 20454
# Rows are at the first moment of their day, or a fraction of a day later.
EARLY, LATE = FIRST * MICROSECONDS_PER_DAY, int((FIRST + 0.5) * MICROSECONDS_PER_DAY)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each manifest was read."""
    count: Counter[str] = Counter()
    fetch = ManifestFile.fetch_manifest_entry

    def counted(self: ManifestFile, *arguments, **more):
        count[self.manifest_path] += 1
        return fetch(self, *arguments, **more)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", counted)
    return count


def test_days_follow_appends_and_compaction(open_notes: OpenLake) -> None:
    table = open_notes().table("notes")
    assert days(table) == {}
    for number, day in enumerate((0.0, 0.5, 0.0, 1.0)):
        append(table, rows((f"e{number}", day)), number + 1)
    assert days(table.refresh()) == {
        FIRST: DayStats(rows=3, files=3, newest=LATE),
        FIRST + 1: DayStats(rows=1, files=1, newest=EARLY + MICROSECONDS_PER_DAY),
    }
    compact_days(table, FIRST + 1)
    assert days(table.refresh())[FIRST].rows == 3


def test_a_manifest_is_read_once_however_often_days_are_asked_for(open_notes: OpenLake, read: Counter[str]) -> None:
    table = open_notes().table("notes")
    for number in range(5):
        append(table, rows((f"e{number}", 0)), number + 1)
        read.clear()
        assert days(table.refresh())[FIRST].rows == days(open_notes().table("notes"))[FIRST].rows == number + 1
        assert len(read) == read.total() == 1


def test_compaction_reads_a_manifest_once_and_only_then_are_manifests_remembered(
    open_notes: OpenLake, read: Counter[str]
) -> None:
    table = open_notes().table("notes")
    for number in range(30):
        append(table, rows((f"e{number}", number % 3)), number + 1)
    read.clear()
    with remembered_manifests():
        assert compact_days(table.refresh(), FIRST + 3) == 30
        assert sorted(table.scan().to_arrow()["event_id"].to_pylist()) == sorted(f"e{n}" for n in range(30))
    assert set(read.values()) == {1}
    before = read.total()
    list(table.scan().plan_files())
    list(table.scan().plan_files())
    assert read.total() > before + 1
