import time
from datetime import UTC, date, datetime

import pytest

from recsys_data.defs.ingestion.reporting import EVERY_SECONDS, LATE_SECONDS, Reporter, wanted_days
from recsys_data.errors import UserError
from recsys_data.ingestion.streaming.stream_writer import CommitResult

TODAY = 20_000
LATE = range(TODAY - 20, TODAY - 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_late_days_are_reported_of_less_often_and_nothing_is_left_out(clock: list[float]) -> None:
    reporter, reported, reports = Reporter(), dict.fromkeys([*LATE, TODAY - 1, TODAY], 0), []
    flushes = 0
    for _ in range(int(2 * LATE_SECONDS)):
        reporter.add(CommitResult(rows={"interactions": dict.fromkeys(reported, 1)}))
        flushes += 1
        if reporter.is_due:
            gathered = reporter.take()
            reports.append(len(gathered.newest_days("interactions")))
            for day, rows in gathered.rows["interactions"].items():
                reported[day] += rows
        clock[0] += 1
    assert len(reports) == 2 * LATE_SECONDS / EVERY_SECONDS
    assert [days for days in reports if days == len(reported)] == [len(reported)] * 2
    assert {days for days in reports if days != len(reported)} == {2}
    for day, rows in reporter.take(everything=True).rows["interactions"].items():
        reported[day] += rows
    assert set(reported.values()) == {flushes}


def test_the_first_commit_is_reported_of_at_once(clock: list[float]) -> None:
    reporter = Reporter()
    assert not reporter.is_due
    reporter.add(CommitResult(rows={"interactions": {TODAY: 3, LATE[0]: 1}}))
    assert reporter.is_due
    assert reporter.take().newest_days("interactions") == [TODAY, LATE[0]]
    assert not reporter.is_due


@pytest.mark.parametrize("partition", ["2999-01-01", "1994-12-31", "yesterday"])
def test_a_day_outside_the_partitions_is_refused(partition: str) -> None:
    with pytest.raises(UserError, match=partition):
        wanted_days([datetime.now(UTC).date().isoformat(), partition], date(1995, 1, 1))
