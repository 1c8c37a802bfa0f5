"""The day that partitions begin with, from an empty state folder to data of other centuries."""

from datetime import date
from pathlib import Path

import pytest
import time_machine

from recsys_data.ingestion.first_day import first_partition_day, remember
from recsys_data.settings import Settings


@pytest.fixture
def settings(tmp_path: Path):
    with time_machine.travel("2026-11-28T12:00:00Z"):
        yield Settings(dir=str(tmp_path))


def test_without_data_a_month_of_late_events_has_partitions(settings: Settings) -> None:
    assert first_partition_day(settings) == date(2026, 10, 1)


def test_partitions_begin_with_the_month_of_the_oldest_day_and_never_later(settings: Settings) -> None:
    for day, first in (
        (date(2026, 11, 20), (2026, 11, 1)),
        (date(2025, 3, 9), (2025, 3, 1)),
        (date(2026, 1, 1), (2025, 3, 1)),
    ):
        remember(settings, day)
        assert first_partition_day(settings) == date(*first)


def test_no_partition_begins_before_the_first_accepted_day(settings: Settings) -> None:
    remember(settings, date(1970, 1, 1))
    assert first_partition_day(settings) == date(1995, 1, 1)


def test_days_in_the_landing_folder_have_partitions_at_once(settings: Settings) -> None:
    remember(settings, date(2026, 11, 20))
    for name in ("2010-12-24", "2011-01-02", ".2009-01-01.part", "README"):
        (settings.landing_dir / "item_catalog" / name).mkdir(parents=True)
    (settings.landing_dir / "notes.txt").touch()
    assert first_partition_day(settings) == date(2010, 12, 1)


@pytest.mark.parametrize("content", [None, b"", b"yesterday"])
def test_a_lake_of_which_nothing_is_remembered_may_hold_any_day(settings: Settings, content: bytes | None) -> None:
    (settings.lake_dir / "recsys" / "interactions" / "data").mkdir(parents=True)
    if content is not None:
        settings.first_day_file.parent.mkdir(parents=True)
        settings.first_day_file.write_bytes(content)
    assert first_partition_day(settings) == date(1995, 1, 1)
    remember(settings, date(2026, 11, 20))
    assert first_partition_day(settings) == date(2026, 11, 1)


def test_a_setting_holds_whatever_is_remembered(settings: Settings) -> None:
    remember(settings, date(2001, 1, 1))
    given = Settings(dir=settings.dir, first_day=date(2020, 2, 2))
    assert first_partition_day(given) == date(2020, 2, 2)
