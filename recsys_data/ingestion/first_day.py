"""The day that partitions begin with: the first of the month of the oldest data, as far as it is known.

Data flow: days of the lake and of sources -> `remember` -> `$DIR/ingest/first_day` -> `first_partition_day`, when
definitions are loaded. It is a month, so that late events seldom change it, and never moves forward, so that no
partition goes.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from threading import Lock

from recsys_data.durable import write_atomically
from recsys_data.settings import Settings
from recsys_data.storage.iceberg.catalog import NAMESPACE

_writing = Lock()


def first_partition_day(settings: Settings) -> date:
    """The first day that has a partition.

    RECSYS_DATA_FIRST_DAY, if it is set; otherwise by the oldest day that was remembered or lies in the landing folder.
    A lake of which nothing is remembered may hold any day. Without data there is room for a month of late events.
    """
    if settings.first_day != Settings().first_day:
        return settings.first_day
    known = _remembered(settings)
    if known is None and (settings.warehouse or any((settings.lake_dir / NAMESPACE).glob("*/data"))):
        return settings.first_day
    known = min([known or _month_before(datetime.now(UTC).date()), *_landed(settings)])
    return max(settings.first_day, known.replace(day=1))


def remember(settings: Settings, day: date) -> None:
    """Have partitions begin with this day's month, or before it, once definitions are loaded anew."""
    with _writing:
        known = _remembered(settings)
        if known is None or day < known:
            write_atomically(settings.first_day_file, day.isoformat().encode())


def _remembered(settings: Settings) -> date | None:
    # A file that says nothing is written again; until then every day has a partition.
    with contextlib.suppress(FileNotFoundError, ValueError):
        return date.fromisoformat(settings.first_day_file.read_text("utf-8"))
    return None


def _landed(settings: Settings) -> Iterator[date]:
    """The days of the landing folder: a backfill of them must not need a sensor that has seen them before."""
    for folder in settings.landing_dir.iterdir() if settings.landing_dir.is_dir() else []:
        for day in folder.iterdir() if folder.is_dir() else []:
            with contextlib.suppress(ValueError):
                yield date.fromisoformat(day.name)


def _month_before(day: date) -> date:
    return day.replace(day=1) - timedelta(days=1)
