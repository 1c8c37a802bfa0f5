"""What the manifests say of the days of a table that grows, shrinks and is compacted."""

import pytest
from pyiceberg.manifest import ManifestFile

from recsys_data.lake.maintenance import compact_days
from recsys_data.lake.stats import MICROSECONDS_PER_DAY, DayStats, days
from recsys_data_tests.lake.conftest import OpenLake
from recsys_data_tests.lake.rows import append, rows

FIRST = 20454
# Rows are at the first moment of their day, or a fraction of a day later.
EARLY, LATE = FIRST * MICROSECONDS_PER_DAY, int((FIRST + 0.5) * MICROSECONDS_PER_DAY)


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


def test_a_manifest_is_read_once_however_often_days_are_asked_for(
    open_notes: OpenLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_notes().table("notes")
    read: list[str] = []
    fetch = ManifestFile.fetch_manifest_entry

    def counted(self: ManifestFile, *arguments, **more):
        read.append(self.manifest_path)
        return fetch(self, *arguments, **more)

    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", counted)
    for number in range(5):
        append(table, rows((f"e{number}", 0)), number + 1)
        read.clear()
        assert days(table.refresh())[FIRST].rows == days(open_notes().table("notes"))[FIRST].rows == number + 1
        assert len(read) == 1
