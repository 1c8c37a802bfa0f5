"""Visits follow the visitor's local clock, as the lines themselves show it."""

import json
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from recsys_data.days import to_microseconds
from recsys_data.simulator import rhythm
from recsys_data.simulator.catalogue import PLACES
from recsys_data.simulator.simulate import Plan, simulate
from recsys_data.simulator.traffic.sessions import MODES, WORK, draw
from recsys_data.simulator.traffic.stream import Shares
from recsys_data.simulator.world import build


@pytest.fixture(scope="module")
def pages() -> list[tuple[datetime, str]]:
    """Local time and time zone of each page view of two weeks around a change of European clocks."""
    plan = Plan(events=150_000, end=datetime(2026, 4, 6, tzinfo=UTC), days=14, shares=Shares(0, 0, 0, 0))
    found = []
    for batch in simulate(plan):
        for line in batch.lines:
            if b'"page_view"' in line and b'"timezone"' in line:
                event = json.loads(line)
                zone = event["context"]["timezone"]
                found.append((datetime.fromisoformat(event["event_ts"]).astimezone(ZoneInfo(zone)), zone))
    return found


@pytest.mark.parametrize("area", ["Europe/", "America/"])
def test_evenings_are_busy_and_nights_are_quiet(pages, area):
    hours = Counter(when.hour for when, zone in pages if zone.startswith(area))
    evening = sum(hours[hour] for hour in (19, 20, 21))
    night = sum(hours[hour] for hour in (2, 3, 4))
    assert evening > 5 * night


@pytest.mark.parametrize("zone", sorted({place.timezone for place in PLACES}))
def test_visits_follow_the_local_hour_in_every_time_zone(zone):
    world = build()
    start = to_microseconds(datetime(2026, 6, 1, tzinfo=UTC))
    sessions = draw(world, np.random.default_rng(9), start, start + 28 * rhythm.DAY, 30_000, 0.0)
    here = [PLACES[place].timezone == zone for place in world.people.place[sessions.person]]
    times = [datetime.fromtimestamp(second, ZoneInfo(zone)).hour for second in sessions.start[here] // rhythm.SECOND]
    hours = np.bincount(times, minlength=24)
    assert np.corrcoef(hours, rhythm.HOURS)[0, 1] > 0.8


def test_weekends_are_busier(pages):
    days = Counter(when.weekday() for when, _ in pages)
    assert min(days[5], days[6]) > max(days[1], days[2])


def test_offsets_follow_the_change_of_clocks():
    berlin = next(i for i, place in enumerate(PLACES) if place.city == "Berlin")
    times = [datetime(2026, 3, 29, 0, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)]
    offsets = rhythm.utc_offsets(np.array([berlin, berlin]), np.array([to_microseconds(time) for time in times]))
    assert (offsets // rhythm.HOUR).tolist() == [1, 2]


def test_local_weekday_starts_on_monday():
    monday = to_microseconds(datetime(2026, 1, 5, 13, 30, tzinfo=UTC))
    hour, weekday = rhythm.local_hour_and_weekday(np.array([monday, monday + 6 * rhythm.DAY]))
    assert (hour.tolist(), weekday.tolist()) == ([13, 13], [0, 6])


def test_work_visits_come_in_office_hours():
    world = build()
    start = to_microseconds(datetime(2026, 1, 5, tzinfo=UTC))
    sessions = draw(world, np.random.default_rng(1), start, start + 7 * rhythm.DAY, 20_000, 0.0)
    hour, weekday = rhythm.local_hour_and_weekday(sessions.start + sessions.offset)
    office = (weekday < 5) & (hour >= 9) & (hour < 17)
    assert (sessions.mode[office] == WORK).mean() > 5 * (sessions.mode[~office] == WORK).mean()
    assert set(np.unique(sessions.mode)) == set(range(len(MODES)))


def test_every_batch_of_visits_covers_the_window_in_order():
    world = build()
    sessions = draw(world, np.random.default_rng(2), 0, rhythm.DAY, 5000, 0.02)
    assert len(sessions) == 5000
    assert (np.diff(sessions.start) >= 0).all()
    assert 0 <= sessions.start[0] < sessions.start[-1] < rhythm.DAY
    assert 0.01 < (sessions.late_days > 0).mean() < 0.03
