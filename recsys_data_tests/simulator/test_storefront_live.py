"""Live traffic under a clock that moves only when somebody sleeps."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recsys_data.errors import UserError
from recsys_data.simulator.live import live
from recsys_data.simulator.simulate import Batch

EVENT_ID = re.compile(rb'"event_id": ?"([^"]+)"')
START = datetime(2026, 1, 7, 20, 0, tzinfo=UTC)


class Clock:
    """Time that passes by sleeping; `lag` is added to every sleep, as by a slow reader."""

    def __init__(self, start: datetime = START) -> None:
        self.now = start.timestamp()
        self.sleeps: list[float] = []
        self.lag = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds + self.lag


def run(clock: Clock, seconds: float, **options) -> Iterator[tuple[float, Batch]]:
    """Batches with the time each was handed out."""
    until = clock.now + seconds
    for batch in live(clock=clock, sleep=clock.sleep, **options):
        if clock.now > until:
            return
        yield clock.now, batch


def fresh(lines: list[bytes], at: float) -> list[float]:
    """Age in seconds of those lines that can be read and are not late."""
    ages = []
    for line in lines:
        try:
            when = datetime.fromisoformat(json.loads(line)["event_ts"])
        except (ValueError, TypeError, KeyError):
            continue
        age = at - when.timestamp() if when.tzinfo else -1.0
        if 0 <= age < 20 * 3600:
            ages.append(age)
    return ages


@pytest.fixture(scope="module")
def minute() -> list[tuple[float, list[bytes], dict[str, Any]]]:
    """A minute at 300 a second: when each batch came, its lines, and the truth with it."""
    return [(at, batch.lines, batch.truth.to_dict()) for at, batch in run(Clock(), 60, rate=300)]


def test_lines_come_at_the_rate_asked_for_from_the_first_seconds(minute):
    for seconds in (10, 60):
        lines = sum(len(lines) for at, lines, _ in minute if at <= START.timestamp() + seconds)
        assert lines / seconds == pytest.approx(300, rel=0.25)


def test_a_slow_rate_is_kept_too():
    lines = sum(len(batch.lines) for _, batch in run(Clock(), 2000, rate=3))
    assert lines / 2000 == pytest.approx(3, rel=0.25)


def test_events_happen_now_and_batches_are_small(minute):
    ages = [age for at, lines, _ in minute for age in fresh(lines, at)]
    assert sorted(ages)[len(ages) // 2] < 3
    assert sum(age < 60 for age in ages) > 0.98 * len(ages)
    assert max(len(lines) for _, lines, _ in minute) < 300
    assert len(minute) == pytest.approx(300, rel=0.02)


def test_truth_counts_what_was_handed_out(minute):
    count = 0
    for _, lines, totals in minute:
        count += len(lines)
        assert totals["events"] == count
        assert totals["accepted"] + totals["duplicates"] + sum(totals["dead_letters"].values()) == count
    assert totals["duplicates"] > 0
    assert totals["dead_letters"]


def test_redeliveries_follow_originals_of_the_same_run(minute):
    seen, again = set(), 0
    for _, lines, _ in minute:
        for line in lines:
            name = EVENT_ID.search(line)
            again += name is not None and name[1] in seen
            seen |= {name and name[1]}
    assert again >= minute[-1][2]["duplicates"] > 50


def test_two_runs_with_one_seed_share_no_event():
    runs = [Clock(START), Clock(START + timedelta(days=7))]
    text = [b"\n".join(line for _, batch in run(clock, 20, rate=50) for line in batch.lines) for clock in runs]
    first, second = (set(EVENT_ID.findall(lines)) for lines in text)
    assert min(len(first), len(second)) > 500
    assert {name for name in first & second if len(name) < 100} == set()


def test_a_long_sleep_of_the_machine_is_not_made_up_for():
    clock = Clock()
    traffic = live(100, clock=clock, sleep=clock.sleep)
    for _ in range(20):
        next(traffic)
    clock.now += 8 * 3600
    burst = len(next(traffic).lines)
    assert burst < 100 * 60 * 12  # visits that had begun, and the last minute
    assert sum(len(next(traffic).lines) for _ in range(100)) == pytest.approx(2000, rel=0.4)


def test_a_slow_reader_gets_more_at_once():
    clock = Clock()
    clock.lag = 4.8
    sizes = [len(batch.lines) for _, batch in run(clock, 100, rate=100)]
    assert sum(sizes) / 100 == pytest.approx(100, rel=0.25)
    assert len(sizes) < 25


def test_the_daily_rhythm_can_be_felt():
    busy, quiet = (
        sum(
            len(b.lines)
            for _, b in run(Clock(datetime(2026, 1, 11, hour, tzinfo=UTC)), 40, rate=100, daily_rhythm=True)
        )
        for hour in (19, 5)
    )
    assert busy > 1.5 * quiet


@pytest.mark.parametrize(("rate", "seed"), [(0, 0), (-1, 0), (float("nan"), 0), (5001, 0), (10, -1)])
def test_a_rate_or_seed_that_makes_no_sense_is_refused(rate, seed):
    with pytest.raises(UserError, match="events a second"):
        next(live(rate, seed))
