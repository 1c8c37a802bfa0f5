"""The clock of a process, set ahead or back."""

import datetime as clock
import importlib
import time

CLOCKS = (
    "recsys_data.ingestion.streaming.consumer",
    "recsys_data.ingestion.streaming.stream_writer",
    "recsys_data.storage.commit",
    "recsys_data.storage.maintenance.compaction",
    "pyiceberg.table.update",
)


def set_clock(ahead: float) -> None:
    """Set this process's clock ahead by seconds, for all who look at it by way of `time.time` or `datetime.now`."""
    now = time.time

    class Shifted(clock.datetime):
        @classmethod
        def now(cls, tz: clock.tzinfo | None = None) -> clock.datetime:  # type: ignore[override]
            return clock.datetime.now(tz) + clock.timedelta(seconds=ahead)

    time.time = lambda: now() + ahead
    for name in CLOCKS:
        module = importlib.import_module(name)
        assert module.datetime is clock.datetime, name
        module.datetime = Shifted  # type: ignore[attr-defined]
